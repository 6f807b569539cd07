/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_block_reads.c: keys and values in blocks that are hidden from every row are never read:
 * they lie in pages of memory that may not be touched, between others. By every engine and set of
 * kernels, for rows in lanes, a few rows, pairs of bfloat16, packed values, weights and scores.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { HEADS = 2, KEY_BLOCKS = 40, MAX_ROWS = 150 };

/* Rows of key of so many bytes; a page of memory is a column of blocks. */
typedef struct read_case {
    int32_t dtype;
    int64_t features, rows, block_rows;
    int has_weights, has_scores;
} read_case;

static const read_case cases[] = {
    {ATTN_DTYPE_FLOAT32, 64, 150, 16, 0, 0},  {ATTN_DTYPE_FLOAT32, 64, 150, 48, 1, 1},
    {ATTN_DTYPE_FLOAT32, 64, 1, 1, 0, 1},     {ATTN_DTYPE_FLOAT32, 256, 70, 7, 0, 0},
    {ATTN_DTYPE_BFLOAT16, 64, 100, 32, 0, 0}, {ATTN_DTYPE_BFLOAT16, 64, 2, 64, 1, 0},
    {ATTN_DTYPE_FLOAT64, 64, 40, 5, 1, 1},
};
enum { NUM_CASES = sizeof cases / sizeof cases[0] };

/* Columns that no row sees: every third, and some together. */
static int is_hidden(int64_t column) {
    return column % 3 == 1 || (column > 20 && column < 26);
}

/* Two heads share the columns that are seen. */
static void fill_blocks(unsigned char *blocks, int64_t rows) {
    for (int64_t at = 0; at < HEADS * rows * KEY_BLOCKS; ++at) {
        const int64_t column = at % KEY_BLOCKS, row = at / KEY_BLOCKS;
        const int is_shown = (row + column) % 2 == 0;
        blocks[at] = is_hidden(column) || !is_shown ? ATTN_BLOCK_HIDDEN : ATTN_BLOCK_VISIBLE;
    }
}

/* Pages of zeroes, of which those of hidden columns may not be touched. */
static void *map_keys(size_t page) {
    char *memory =
        mmap(NULL, KEY_BLOCKS * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    for (int64_t column = 0; column < KEY_BLOCKS; ++column) {
        if (is_hidden(column)) {
            assert_int_equal(mprotect(memory + column * (int64_t)page, page, PROT_NONE), 0);
        }
    }
    return memory;
}

static attn_tensor view_of(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, dtype, rank, shape), ATTN_OK);
    return view;
}

static attn_tensor zeroes(int32_t dtype, int64_t rows, int64_t cols) {
    const int64_t shape[] = {HEADS, rows, cols};
    void *data = calloc((size_t)(HEADS * rows * cols), attn_dtype_size_bytes(dtype));
    assert_non_null(data);
    return view_of(data, dtype, 3, shape);
}

static void attend(attn_context *context, const read_case *made) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int64_t width = (int64_t)attn_dtype_size_bytes(made->dtype) * made->features;
    const int64_t of_block = (int64_t)page / width, keys = KEY_BLOCKS * of_block;
    const int64_t block_rows = (made->rows + made->block_rows - 1) / made->block_rows;
    const int32_t score_dtype =
        made->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    unsigned char blocks[HEADS * MAX_ROWS * KEY_BLOCKS];
    void *memory = map_keys(page);
    fill_blocks(blocks, block_rows);
    const attn_tensor key = view_of(memory, made->dtype, 3, (int64_t[]){1, keys, made->features});
    const attn_tensor mask =
        view_of(blocks, ATTN_DTYPE_UINT8, 3, (int64_t[]){HEADS, block_rows, KEY_BLOCKS});
    const attn_tensor query = zeroes(made->dtype, made->rows, made->features);
    const attn_tensor output = zeroes(score_dtype, made->rows, made->features);
    const attn_tensor weights = zeroes(score_dtype, made->rows, keys);
    const attn_tensor scores = zeroes(score_dtype, made->rows, keys);
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .enable_gqa = 1,
                                     .block_mask = &mask,
                                     .block_rows = made->block_rows,
                                     .block_columns = of_block,
                                     .weights = made->has_weights ? &weights : NULL,
                                     .scores = made->has_scores ? &scores : NULL,
                                     .scores_stage = ATTN_SCORE_MASKED};
    memset(output.data, 0x7f,
           (size_t)(HEADS * made->rows * made->features) * attn_dtype_size_bytes(score_dtype));
    assert_int_equal(attn_sdpa(context, &query, &key, &key, &params, &output, NULL, 0), ATTN_OK);
    for (int64_t i = 0; i < HEADS * made->rows * made->features; ++i) {
        assert_true(score_dtype == ATTN_DTYPE_FLOAT32 ? ((const float *)output.data)[i] == 0
                                                      : ((const double *)output.data)[i] == 0);
    }
    munmap(memory, KEY_BLOCKS * page);
    free(query.data);
    free(output.data);
    free(weights.data);
    free(scores.data);
}

static void attend_by(int32_t engine, int32_t gemm, const char *kernels) {
    const attn_context_config settings = {
        .struct_size = sizeof settings, .engine = engine, .gemm = gemm, .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    for (int i = 0; i < NUM_CASES; ++i) {
        if (engine != ATTN_ENGINE_FUSED || cases[i].dtype != ATTN_DTYPE_FLOAT64) {
            attend(context, &cases[i]);
        }
    }
    attn_context_destroy(context);
}

static void blocks_hidden_from_all_rows_are_not_read(void **state) {
    (void)state;
    attend_by(ATTN_ENGINE_BLAS, ATTN_GEMM_AUTO, NULL);
    attend_by(ATTN_ENGINE_BLAS, ATTN_GEMM_NATIVE, NULL);
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        attend_by(ATTN_ENGINE_FUSED, ATTN_GEMM_AUTO, attn_kernels_name(i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_hidden_from_all_rows_are_not_read),
    };
    return cmocka_run_group_tests_name("reads of blocks", tests, NULL, NULL);
}
