/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_reads.c: keys and values that no row sees are never read, and those one row must not
 * see never reach it. Hidden positions lie in pages that may not be read, or hold NaN.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

/* Sizes of a call whose rows see keys [seen_begin, seen_end) only; whole pages of key rows. */
typedef struct extent {
    int64_t features, src, seen_begin, seen_end, tgt;
} extent;

/* One block of keys; several, with values as they are and packed; splits of the keys for one row.
 */
static const extent extents[] = {
    {64, 96, 32, 64, 32},
    {64, 1600, 400, 1200, 150},
    {128, 1600, 400, 1200, 150},
    {64, 9600, 3008, 8000, 1},
};
enum { NUM_EXTENTS = sizeof extents / sizeof extents[0] };

/* (src, features) float32 of which only the rows that are seen may be touched. The whole tensor has
 * addresses of its own, so that no output can lie where its hidden rows would be. */
typedef struct guarded {
    char *base;
    size_t bytes;
    attn_tensor rows;
} guarded;

static size_t whole_pages(int64_t rows, size_t row_bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return ((size_t)rows * row_bytes / page + 1) * page;
}

static guarded guard(const extent *size, int64_t col_stride) {
    const size_t row_bytes = (size_t)size->features * sizeof(float);
    const size_t seen_bytes = (size_t)(size->seen_end - size->seen_begin) * row_bytes;
    const size_t before = whole_pages(size->seen_begin, row_bytes);
    const size_t behind = whole_pages(size->src - size->seen_end, row_bytes);
    guarded made = {.bytes = before + seen_bytes + behind};
    assert_int_equal(seen_bytes % (size_t)sysconf(_SC_PAGESIZE), 0);
    made.base = mmap(NULL, made.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(made.base != MAP_FAILED);
    assert_int_equal(mprotect(made.base + before, seen_bytes, PROT_READ | PROT_WRITE), 0);
    float *seen = (float *)(void *)(made.base + before);
    for (size_t i = 0; i < seen_bytes / sizeof(float); ++i) {
        seen[i] = (float)(i % 7) - 3;
    }
    float *first_row = seen - size->seen_begin * size->features;
    if (col_stride < 0) {
        first_row += size->features - 1;
    }
    const int64_t shape[] = {size->src, size->features};
    const int64_t strides[] = {size->features, col_stride};
    assert_int_equal(
        attn_tensor_init_strided(&made.rows, first_row, ATTN_DTYPE_FLOAT32, 2, shape, strides),
        ATTN_OK);
    return made;
}

static void release(guarded *made) {
    munmap(made->base, made->bytes);
}

/* Attends with rows that see only what is between the pages; a wrong read ends the process. */
static void attend(attn_context *context, const attn_sdpa_params *params, const extent *size,
                   int64_t tgt, int64_t col_stride) {
    guarded key = guard(size, col_stride);
    guarded value = guard(size, col_stride);
    const int64_t count = tgt * size->features;
    float *q = malloc((size_t)count * sizeof *q);
    float *out = malloc((size_t)count * sizeof *out);
    assert_true(q != NULL && out != NULL);
    for (int64_t i = 0; i < count; ++i) {
        q[i] = 0.01F * (float)(i % 13);
    }
    attn_tensor query;
    attn_tensor output;
    const int64_t shape[] = {tgt, size->features};
    assert_int_equal(attn_tensor_init(&query, q, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&output, out, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_sdpa(context, &query, &key.rows, &value.rows, params, &output, NULL, 0),
                     ATTN_OK);
    for (int64_t i = 0; i < count; ++i) {
        assert_true(isfinite(out[i]));
    }
    free(q);
    free(out);
    release(&key);
    release(&value);
}

/* All ways to hide what lies before and behind. */
static void attend_in_all_ways(attn_context *context, const extent *size, int64_t col_stride) {
    int64_t position = size->seen_end - 1;
    attn_tensor offset;
    assert_int_equal(attn_tensor_init(&offset, &position, ATTN_DTYPE_INT64, 0, NULL), ATTN_OK);
    /* One row at the last key seen, whose window begins at the first. */
    attn_sdpa_params params = {.struct_size = sizeof params,
                               .flags = ATTN_SDPA_SET_WINDOW,
                               .window_left = size->seen_end - size->seen_begin - 1,
                               .window_right = -1,
                               .is_causal = 1,
                               .query_offset = &offset};
    attend(context, &params, size, 1, col_stride);
    /* Rows from the first key seen on that see themselves only. */
    position = size->seen_begin;
    params.window_left = 0;
    attend(context, &params, size, size->tgt, col_stride);
    /* The end by length instead of causality. */
    int64_t length = size->seen_end;
    attn_tensor lengths;
    assert_int_equal(attn_tensor_init(&lengths, &length, ATTN_DTYPE_INT64, 0, NULL), ATTN_OK);
    params.is_causal = 0;
    params.key_lengths = &lengths;
    attend(context, &params, size, size->tgt, col_stride);
}

typedef struct engine_choice {
    int32_t engine, gemm;
} engine_choice;

static const engine_choice engines[] = {
    {ATTN_ENGINE_BLAS, ATTN_GEMM_DEFAULT},
    {ATTN_ENGINE_BLAS, ATTN_GEMM_NATIVE},
    {ATTN_ENGINE_FUSED, ATTN_GEMM_DEFAULT},
};
enum { NUM_ENGINES = sizeof engines / sizeof engines[0] };

static attn_context *context_of(const engine_choice *choice, const char *kernels) {
    const attn_context_params settings = {.struct_size = sizeof settings,
                                          .engine = choice->engine,
                                          .gemm = choice->gemm,
                                          .kernels = kernels};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    return context;
}

static void unseen_keys_in_guard_pages_are_not_read(void **state) {
    (void)state;
    for (int engine = 0; engine < NUM_ENGINES; ++engine) {
        for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
            attn_context *context = context_of(&engines[engine], attn_kernels_name(kernels));
            for (int e = 0; e < NUM_EXTENTS; ++e) {
                attend_in_all_ways(context, &extents[e], 1);
                attend_in_all_ways(context, &extents[e], -1);
            }
            attn_context_destroy(context);
        }
    }
}

enum { FEATURES = 64 };

/* Keys or values from first_nan on are NaN: exactly the rows from there on are NaN. */
static void check_causal_rows(attn_context *context, int64_t length, int64_t first_nan,
                              int in_keys) {
    const int64_t count = length * FEATURES;
    float *buffers[4]; /* query, key, value, output */
    attn_tensor tensors[4];
    const int64_t shape[] = {length, FEATURES};
    for (int i = 0; i < 4; ++i) {
        buffers[i] = malloc((size_t)count * sizeof(float));
        assert_non_null(buffers[i]);
        assert_int_equal(attn_tensor_init(&tensors[i], buffers[i], ATTN_DTYPE_FLOAT32, 2, shape),
                         ATTN_OK);
    }
    for (int64_t i = 0; i < count; ++i) {
        const int is_nan = i / FEATURES >= first_nan;
        buffers[0][i] = 0.01F * (float)(i % 11);
        buffers[1][i] = is_nan && in_keys ? NAN : 0.01F * (float)(i % 13);
        buffers[2][i] = is_nan && !in_keys ? NAN : 1;
    }
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    assert_int_equal(
        attn_sdpa(context, &tensors[0], &tensors[1], &tensors[2], &params, &tensors[3], NULL, 0),
        ATTN_OK);
    for (int64_t i = 0; i < count; ++i) {
        assert_int_equal(isnan(buffers[3][i]) != 0, i / FEATURES >= first_nan);
    }
    for (int i = 0; i < 4; ++i) {
        free(buffers[i]);
    }
}

static void causal_rows_before_a_nan_stay_finite(void **state) {
    (void)state;
    enum { LENGTH = 400 };
    const int64_t first_nan[] = {0, 1, 7, 31, 32, 63, 64, 65, 130, 255, 256, LENGTH - 1};
    for (int engine = 0; engine < NUM_ENGINES; ++engine) {
        for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
            attn_context *context = context_of(&engines[engine], attn_kernels_name(kernels));
            for (size_t which = 0; which < sizeof first_nan / sizeof first_nan[0]; ++which) {
                check_causal_rows(context, LENGTH, first_nan[which], 0);
                check_causal_rows(context, LENGTH, first_nan[which], 1);
            }
            attn_context_destroy(context);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unseen_keys_in_guard_pages_are_not_read),
        cmocka_unit_test(causal_rows_before_a_nan_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
