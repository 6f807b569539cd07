/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_sizes.c: plans for every combination of sizes at the edges of 32 and 64 bits. Views are
 * broadcast, so that the tensors are small however long their axes are; nothing is computed. A plan
 * must end in a number of bytes or in an error, for every engine; the undefined behaviour sanitizer
 * sees the sizes on their way. Sizes that are refused are refused by the call itself too, before it
 * touches data (which lies in a page without access) or asks for memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <attention/attention.h>

static const int64_t lengths[] = {0,
                                  1,
                                  INT32_MAX - INT64_C(1),
                                  INT32_MAX,
                                  INT32_MAX + INT64_C(1),
                                  INT64_C(1) << 40,
                                  INT64_MAX / 4,
                                  INT64_MAX};
enum { NUM_LENGTHS = sizeof lengths / sizeof lengths[0] };

/* heads, L, S, E, Ev, weights */
enum { HEADS, ROWS, KEYS, FEATURES, VALUE_FEATURES, NUM_SIZES };

typedef struct outcome_counts {
    int64_t planned, refused;
} outcome_counts;

static attn_tensor broadcast_view(int64_t heads, int64_t rows, int64_t cols) {
    return (attn_tensor){
        .dtype = ATTN_DTYPE_FLOAT32, .rank = 3, .shape = {heads, rows, cols}, .strides = {0}};
}

/* An output may not repeat an element, so its axes are strided where that can be said. */
static attn_tensor output_view(int64_t heads, int64_t rows, int64_t cols) {
    attn_tensor view = broadcast_view(heads, rows, cols);
    const int64_t shape[] = {heads, rows, cols};
    attn_tensor strided;
    if (attn_tensor_init(&strided, NULL, ATTN_DTYPE_FLOAT32, 3, shape) == ATTN_OK) {
        view = strided;
    }
    return view;
}

static void plan(attn_context *context, const int64_t sizes[NUM_SIZES], int has_weights,
                 outcome_counts *counts) {
    const attn_tensor query = broadcast_view(sizes[HEADS], sizes[ROWS], sizes[FEATURES]);
    const attn_tensor key = broadcast_view(sizes[HEADS], sizes[KEYS], sizes[FEATURES]);
    const attn_tensor value = broadcast_view(sizes[HEADS], sizes[KEYS], sizes[VALUE_FEATURES]);
    const attn_tensor output = output_view(sizes[HEADS], sizes[ROWS], sizes[VALUE_FEATURES]);
    const attn_tensor weights = output_view(sizes[HEADS], sizes[ROWS], sizes[KEYS]);
    const attn_sdpa_params params = {.struct_size = sizeof params,
                                     .weights = has_weights ? &weights : NULL};
    size_t bytes = 1;
    const attn_status status =
        attn_sdpa_workspace_bytes(context, &query, &key, &value, &params, &output, &bytes);
    if (status == ATTN_OK) {
        counts->planned++;
        assert_true(bytes < SIZE_MAX / 2);
        return;
    }
    counts->refused++;
    assert_true(status == ATTN_ERROR_OVERFLOW || status == ATTN_ERROR_OVERLAP);
    assert_true(attn_last_error()[0] != '\0');
}

static void plan_every_size(int32_t engine, int32_t num_threads, outcome_counts *counts) {
    const attn_context_params settings = {
        .struct_size = sizeof settings, .engine = engine, .num_threads = num_threads};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    int64_t combinations = 2;
    for (int i = 0; i < NUM_SIZES; ++i) {
        combinations *= NUM_LENGTHS;
    }
    for (int64_t c = 0; c < combinations; ++c) {
        int64_t sizes[NUM_SIZES];
        int64_t rest = c / 2;
        for (int i = 0; i < NUM_SIZES; ++i) {
            sizes[i] = lengths[rest % NUM_LENGTHS];
            rest /= NUM_LENGTHS;
        }
        plan(context, sizes, (int)(c % 2), counts);
    }
    attn_context_destroy(context);
}

static void plans_of_absurd_sizes_end_in_bytes_or_an_error(void **state) {
    (void)state;
    static const int32_t engines[] = {ATTN_ENGINE_FUSED, ATTN_ENGINE_BLAS};
    static const int32_t threads[] = {1, 1024};
    for (int e = 0; e < 2; ++e) {
        for (int t = 0; t < 2; ++t) {
            outcome_counts counts = {0};
            plan_every_size(engines[e], threads[t], &counts);
            printf("engine %d, %d threads: %lld planned, %lld refused\n", engines[e], threads[t],
                   (long long)counts.planned, (long long)counts.refused);
            assert_true(counts.planned > 1000 && counts.refused > 1000);
        }
    }
}

static void more_keys_than_int32_with_weights_are_refused_by_the_fused_engine(void **state) {
    (void)state;
    const int64_t sizes[NUM_SIZES] = {1, 1, INT64_C(1) << 31, 1, 1};
    const attn_tensor query = broadcast_view(1, 1, 1);
    const attn_tensor key = broadcast_view(1, sizes[KEYS], 1);
    const attn_tensor output = output_view(1, 1, 1);
    const attn_tensor weights = output_view(1, 1, sizes[KEYS]);
    const attn_sdpa_params params = {.struct_size = sizeof params, .weights = &weights};
    size_t bytes;
    assert_int_equal(attn_sdpa_workspace_bytes(NULL, &query, &key, &key, &params, &output, &bytes),
                     ATTN_ERROR_OVERFLOW);
    assert_string_equal(attn_last_error(),
                        "weights: expected at most 2^31 - 1 keys where weights are stored, got "
                        "S=2147483648");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_of_absurd_sizes_end_in_bytes_or_an_error),
        cmocka_unit_test(more_keys_than_int32_with_weights_are_refused_by_the_fused_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
