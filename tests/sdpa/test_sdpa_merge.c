/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_merge.c: what attn_sdpa_merge promises of bits and of single rows. The numbers are
 * compared with the oracle in tests/oracle.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"
#include "support/random_tensor.h"

static void assert_ok(attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

static attn_context *context_of(int32_t num_threads, const char *kernels) {
    const attn_context_config settings = {
        .struct_size = sizeof settings, .num_threads = num_threads, .kernels = kernels};
    attn_context *context;
    assert_ok(attn_context_create(&settings, &context));
    return context;
}

/* ---- bits ---- */

enum { RANK = 4, MOST_PARTS = 3 };

/* Parts of (batch, H, L, Ev), all of them with a layout. */
typedef struct parts {
    int64_t shape[RANK];
    int32_t dtype;
    attn_tensor outputs[MOST_PARTS], lses[MOST_PARTS], *output, *lse, *sinks;
} parts;

/* Serial by their size, but for the last two, which threads share; rows that are no whole blocks. */
static const parts all_parts[] = {
    {.shape = {1, 1, 1, 1}, .dtype = ATTN_DTYPE_FLOAT32},
    {.shape = {2, 3, 19, 67}, .dtype = ATTN_DTYPE_FLOAT32},
    {.shape = {2, 3, 19, 67}, .dtype = ATTN_DTYPE_FLOAT64},
    {.shape = {5, 2, 1, 130}, .dtype = ATTN_DTYPE_BFLOAT16},
    {.shape = {3, 2, 90, 131}, .dtype = ATTN_DTYPE_FLOAT16},
    {.shape = {2, 4, 150, 64}, .dtype = ATTN_DTYPE_FLOAT64},
};
enum { NUM_PARTS = sizeof all_parts / sizeof all_parts[0] };

/* The same numbers in every layout. */
static void make_parts(parts *made, tensor_pool *pool, enum tensor_layout layout) {
    const int32_t scores =
        made->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    random_state random = random_seeded(701);
    for (int i = 0; i < MOST_PARTS; ++i) {
        const attn_tensor *output = pool_input(pool, made->dtype, RANK, made->shape, layout);
        const attn_tensor *lse = pool_input(pool, scores, RANK - 1, made->shape, layout);
        random_fill(output, &random, -1, 1, 0);
        random_fill(lse, &random, -4, 4, 0);
        made->outputs[i] = *output;
        made->lses[i] = *lse;
    }
    made->sinks = pool_input(pool, scores, 1, &made->shape[1], LAYOUT_CONTIGUOUS);
    random_fill(made->sinks, &random, -1, 1, 0);
    made->output = pool_output(pool, made->dtype, RANK, made->shape, layout);
    made->lse = pool_output(pool, scores, RANK - 1, made->shape, layout);
}

static void run_parts(attn_context *context, const parts *made, const attn_tensor *output,
                      const attn_tensor *lse) {
    const attn_merge_params params = {.struct_size = sizeof params, .sinks = made->sinks};
    assert_ok(
        attn_sdpa_merge(context, MOST_PARTS, made->outputs, made->lses, &params, output, lse));
}

static void assert_same_bits(const char *name, const attn_tensor *actual,
                             const attn_tensor *expected) {
    char message[400];
    if (compare_same_bits(name, actual, expected, message, sizeof message)) {
        fail_msg("%s", message);
    }
}

static void check_layout(const parts *expected, attn_context *context, enum tensor_layout layout) {
    tensor_pool pool = {0};
    parts made = *expected;
    make_parts(&made, &pool, layout);
    run_parts(context, &made, made.output, made.lse);
    assert_same_bits("output", made.output, expected->output);
    assert_same_bits("lse", made.lse, expected->lse);
    /* In place: with one part's memory, and with that of another one. */
    run_parts(context, &made, &made.outputs[1], &made.lses[2]);
    assert_same_bits("output in place", &made.outputs[1], expected->output);
    assert_same_bits("lse in place", &made.lses[2], expected->lse);
    pool_destroy(&pool);
}

static void bits_are_those_of_one_thread_and_contiguous_memory(void **state) {
    (void)state;
    for (int32_t set = 0; attn_kernels_name(set) != NULL; ++set) {
        attn_context *alone = context_of(1, attn_kernels_name(set));
        attn_context *shared = context_of(3, attn_kernels_name(set));
        for (int i = 0; i < NUM_PARTS; ++i) {
            tensor_pool pool = {0};
            parts expected = all_parts[i];
            make_parts(&expected, &pool, LAYOUT_CONTIGUOUS);
            run_parts(alone, &expected, expected.output, expected.lse);
            for (int layout = 0; layout < LAYOUT_NUM_OUTPUT; ++layout) {
                check_layout(&expected, layout % 2 == 0 ? shared : alone,
                             (enum tensor_layout)layout);
            }
            pool_destroy(&pool);
        }
        attn_context_destroy(alone);
        attn_context_destroy(shared);
    }
}

/* Rows one by one, of one head at a time. */
static void bits_of_a_row_are_its_own(void **state) {
    (void)state;
    for (int i = 0; i < NUM_PARTS; ++i) {
        tensor_pool pool = {0};
        parts all = all_parts[i];
        make_parts(&all, &pool, LAYOUT_CONTIGUOUS);
        run_parts(NULL, &all, all.output, all.lse);
        const int64_t row_shape[] = {1, 1, 1, all.shape[3]};
        attn_tensor *output = pool_output(&pool, all.dtype, RANK, row_shape, LAYOUT_CONTIGUOUS);
        attn_tensor *lse =
            pool_output(&pool, all.lse->dtype, RANK - 1, row_shape, LAYOUT_CONTIGUOUS);
        int64_t index[RANK] = {0};
        do {
            parts one = all;
            attn_tensor expected = *all.output, expected_lse = *all.lse, sink = *all.sinks;
            expected.data = oracle_address(&expected, index);
            expected_lse.data = oracle_address(&expected_lse, index);
            sink.data = oracle_address(&sink, &index[1]);
            sink.shape[0] = 1;
            one.sinks = &sink;
            for (int part = 0; part < MOST_PARTS; ++part) {
                one.outputs[part].data = oracle_address(&all.outputs[part], index);
                one.lses[part].data = oracle_address(&all.lses[part], index);
                memcpy(one.outputs[part].shape, row_shape, sizeof row_shape);
                memcpy(one.lses[part].shape, row_shape, sizeof row_shape);
            }
            memcpy(expected.shape, row_shape, sizeof row_shape);
            memcpy(expected_lse.shape, row_shape, sizeof row_shape);
            run_parts(NULL, &one, output, lse);
            assert_same_bits("output", output, &expected);
            assert_same_bits("lse", lse, &expected_lse);
        } while (oracle_next_index(RANK - 1, all.shape, index));
        pool_destroy(&pool);
    }
}

/* ---- single rows ---- */

enum { COLS = 3 };

/* Two parts of one row and what becomes of them. */
typedef struct row_case {
    const char *name;
    float first[COLS], second[COLS];
    float lses[2];
    float sink; /* NaN: none */
    float output[COLS], lse;
} row_case;

#define NONE NAN
#define LARGE 3.4e38F

static const row_case row_cases[] = {
    {"both alike", {1, 2, 3}, {3, 2, 1}, {5, 5}, NONE, {2, 2, 2}, 5.6931472F},
    {"hidden NaN", {NAN, NAN, INFINITY}, {3, 2, 1}, {-INFINITY, 7}, NONE, {3, 2, 1}, 7},
    {"nothing seen", {NAN, 1, 2}, {3, NAN, 1}, {-INFINITY, -INFINITY}, NONE, {0}, -INFINITY},
    {"nothing but a sink", {NAN, 1, 2}, {3, NAN, 1}, {-INFINITY, -INFINITY}, 2.5F, {0}, 2.5F},
    {"a sink that halves", {2, 4, 6}, {NAN, NAN, 0}, {1, -INFINITY}, 1, {1, 2, 3}, 1.6931472F},
    {"a sink that takes all", {2, 4, 6}, {1, 1, 1}, {0, 0}, 500, {0}, 500},
    {"a sink of nothing", {2, 4, 6}, {2, 4, 6}, {0, 0}, -INFINITY, {2, 4, 6}, 0.6931472F},
    {"an infinite sink beside a part",
     {2, 4, 6},
     {1, 1, 1},
     {0, 0},
     INFINITY,
     {NAN, NAN, NAN},
     NAN},
    {"an infinite sink alone", {2, 4, 6}, {1, 1, 1}, {-INFINITY, -INFINITY}, INFINITY, {0}, NAN},
    {"NaN for an lse", {1, 2, 3}, {3, 2, 1}, {NAN, 5}, NONE, {NAN, NAN, NAN}, NAN},
    {"infinity for an lse", {1, 2, 3}, {3, 2, 1}, {0, INFINITY}, NONE, {NAN, NAN, NAN}, NAN},
    {"NaN in one column", {1, NAN, 3}, {3, 2, 1}, {5, 5}, NONE, {2, NAN, 2}, 5.6931472F},
    {"infinity in one column",
     {1, 2, INFINITY},
     {3, 2, 1},
     {5, 5},
     NONE,
     {2, 2, INFINITY},
     5.6931472F},
    {"a mean of the largest",
     {LARGE, -LARGE, 0},
     {LARGE, LARGE, 0},
     {9, 9},
     NONE,
     {LARGE, 0, 0},
     9.6931472F},
    {"logits beyond exp", {1, 1, 1}, {3, 3, 3}, {1000, 1000}, NONE, {2, 2, 2}, 1000.6931F},
    {"logits below exp", {1, 1, 1}, {3, 3, 3}, {-1000, -1000}, NONE, {2, 2, 2}, -999.30685F},
    {"one that weighs nothing", {1, 2, 3}, {9, 9, 9}, {200, -200}, NONE, {1, 2, 3}, 200},
};
enum { NUM_ROW_CASES = sizeof row_cases / sizeof row_cases[0] };

static void assert_number(const char *name, float actual, float expected) {
    const float error = fabsf(actual - expected);
    const int is_same = isfinite(expected) ? error <= 1e-6F * fabsf(expected)
                        : isnan(expected)  ? isnan(actual)
                                           : actual == expected;
    if (!is_same) {
        fail_msg("%s: expected %.9g, got %.9g", name, (double)expected, (double)actual);
    }
}

static attn_tensor view_of(void *data, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_ok(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, rank, shape));
    return view;
}

static void rows_are_what_the_header_says(void **state) {
    (void)state;
    const int64_t shape[] = {1, COLS}, one = 1;
    for (int i = 0; i < NUM_ROW_CASES; ++i) {
        row_case row = row_cases[i];
        float output[COLS], lse;
        const attn_tensor outputs[] = {view_of(row.first, 2, shape), view_of(row.second, 2, shape)};
        const attn_tensor lses[] = {view_of(&row.lses[0], 1, &one), view_of(&row.lses[1], 1, &one)};
        const attn_tensor to = view_of(output, 2, shape), to_lse = view_of(&lse, 1, &one);
        const attn_tensor sinks = view_of(&row.sink, 1, &one);
        const attn_merge_params params = {.struct_size = sizeof params,
                                          .sinks = isnan(row.sink) ? NULL : &sinks};
        assert_ok(attn_sdpa_merge(NULL, 2, outputs, lses, &params, &to, &to_lse));
        assert_number(row.name, lse, row.lse);
        for (int col = 0; col < COLS; ++col) {
            assert_number(row.name, output[col], row.output[col]);
        }
    }
}

/* Without lses numbers are added, NaN too; one part is a copy. */
static void outputs_without_lses_are_added(void **state) {
    (void)state;
    const int64_t shape[] = {1, COLS};
    float first[COLS] = {1, NAN, INFINITY}, second[COLS] = {0.5F, 1, 1}, output[COLS];
    const attn_tensor outputs[] = {view_of(first, 2, shape), view_of(second, 2, shape)};
    const attn_tensor to = view_of(output, 2, shape);
    assert_ok(attn_sdpa_merge(NULL, 2, outputs, NULL, NULL, &to, NULL));
    assert_true(output[0] == 1.5F && isnan(output[1]) && isinf(output[2]));
    assert_ok(attn_sdpa_merge(NULL, 1, outputs + 1, NULL, NULL, &to, NULL));
    assert_memory_equal(output, second, sizeof output);
}

/* More parts than any buffer would hold, and a row without columns that has an lse all the same. */
static void thousand_parts_and_no_columns_are_merged(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static attn_tensor outputs[COUNT], lses[COUNT];
    float values[COUNT], logits[COUNT], output, lse;
    const int64_t shape[] = {1, 1};
    for (int i = 0; i < COUNT; ++i) {
        values[i] = (float)i;
        logits[i] = 0;
        outputs[i] = view_of(&values[i], 2, shape);
        lses[i] = view_of(&logits[i], 1, shape);
    }
    const attn_tensor to = view_of(&output, 2, shape), to_lse = view_of(&lse, 1, shape);
    assert_ok(attn_sdpa_merge(NULL, COUNT, outputs, lses, NULL, &to, &to_lse));
    assert_true(fabsf(output - 499.5F) <= COUNT * 0x1p-24F * 499.5F);
    assert_number("lse of a thousand", lse, 6.9077553F);
    const int64_t empty_shape[] = {1, 0};
    for (int i = 0; i < COUNT; ++i) {
        outputs[i] = view_of(NULL, 2, empty_shape);
    }
    const attn_tensor nothing = view_of(NULL, 2, empty_shape);
    lse = 0;
    assert_ok(attn_sdpa_merge(NULL, COUNT, outputs, lses, NULL, &nothing, &to_lse));
    assert_number("lse without columns", lse, 6.9077553F);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_one_thread_and_contiguous_memory),
        cmocka_unit_test(bits_of_a_row_are_its_own),
        cmocka_unit_test(rows_are_what_the_header_says),
        cmocka_unit_test(outputs_without_lses_are_added),
        cmocka_unit_test(thousand_parts_and_no_columns_are_merged),
    };
    return cmocka_run_group_tests_name("attn_sdpa_merge", tests, NULL, NULL);
}
