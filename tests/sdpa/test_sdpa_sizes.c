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

#include "errors/counting_allocator.h"
#include "support/absurd_views.h"
#include "support/guard_pages.h"

/* heads, L, S, E, Ev */
enum { HEADS, ROWS, KEYS, FEATURES, VALUE_FEATURES, NUM_SIZES };

/* Bytes between tensors of one element. Outputs lie behind the inputs and apart from them, since
 * what overlaps is refused for that. */
enum { APART = 64 };

/* Who is asked, and where data would be. */
typedef struct setting {
    int32_t dtype, engine, num_threads;
    attn_context *context;
    counting_allocator allocator;
    unsigned char *untouchable;
} setting;

typedef struct views {
    attn_tensor query, key, value, output, weights;
    attn_sdpa_params params; /* with the address of weights, or without */
} views;

static void make_views(views *made, const setting *asked, const int64_t sizes[NUM_SIZES],
                       int has_weights) {
    const int64_t query[] = {sizes[HEADS], sizes[ROWS], sizes[FEATURES]};
    const int64_t key[] = {sizes[HEADS], sizes[KEYS], sizes[FEATURES]};
    const int64_t value[] = {sizes[HEADS], sizes[KEYS], sizes[VALUE_FEATURES]};
    const int64_t output[] = {sizes[HEADS], sizes[ROWS], sizes[VALUE_FEATURES]};
    const int64_t weights[] = {sizes[HEADS], sizes[ROWS], sizes[KEYS]};
    unsigned char *data = asked->untouchable;
    made->query = absurd_input(data, asked->dtype, 3, query);
    made->key = absurd_input(data + APART, asked->dtype, 3, key);
    made->value = absurd_input(data + 2 * APART, asked->dtype, 3, value);
    made->output = absurd_output(data + 3 * APART, asked->dtype, 3, output, 1);
    made->weights = absurd_output(data + 4 * APART, asked->dtype, 3, weights, 1);
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .weights = has_weights ? &made->weights : NULL};
}

/* A call of a size that no plan can have is refused as the plan is, or because outputs so large
 * overlap; reading or writing what it is given ends the process. */
static void refuse(setting *asked, const views *given, void *workspace, size_t workspace_bytes,
                   attn_status planned, absurd_counts *counts) {
    const attn_status status =
        attn_sdpa(asked->context, &given->query, &given->key, &given->value, &given->params,
                  &given->output, workspace, workspace_bytes);
    absurd_count_call(planned, status, counts);
}

static void plan(setting *asked, const views *given, absurd_counts *counts) {
    size_t bytes = 1;
    const attn_status status =
        attn_sdpa_workspace_bytes(asked->context, &given->query, &given->key, &given->value,
                                  &given->params, &given->output, &bytes);
    if (absurd_count_plan(status, bytes, counts) == ATTN_OK) {
        return;
    }
    refuse(asked, given, NULL, 0, status, counts);
    refuse(asked, given, asked->untouchable, SIZE_MAX, status, counts);
}

static void plan_every_size(setting *asked, absurd_counts *counts) {
    attn_context_config settings = {
        .struct_size = sizeof settings, .engine = asked->engine, .num_threads = asked->num_threads};
    counting_allocator_init(&asked->allocator);
    counting_allocator_use(&asked->allocator, &settings);
    assert_int_equal(attn_context_create(&settings, &asked->context), ATTN_OK);
    const int64_t requests = asked->allocator.requests;
    int64_t sizes[NUM_SIZES];
    const int64_t combinations = absurd_combination(0, NUM_SIZES, sizes);
    for (int64_t c = 0; c < 2 * combinations; ++c) {
        absurd_combination(c / 2, NUM_SIZES, sizes);
        views given;
        make_views(&given, asked, sizes, (int)(c % 2));
        plan(asked, &given, counts);
    }
    assert_int_equal(asked->allocator.requests, requests);
    attn_context_destroy(asked->context);
    assert_int_equal(asked->allocator.live_blocks, 0);
}

static void absurd_sizes_end_in_bytes_or_an_error_without_allocating(void **state) {
    (void)state;
    static setting settings[] = {
        {.dtype = ATTN_DTYPE_FLOAT32, .engine = ATTN_ENGINE_FUSED, .num_threads = 1},
        {.dtype = ATTN_DTYPE_FLOAT32, .engine = ATTN_ENGINE_FUSED, .num_threads = 1024},
        {.dtype = ATTN_DTYPE_FLOAT32, .engine = ATTN_ENGINE_BLAS, .num_threads = 1},
        {.dtype = ATTN_DTYPE_FLOAT32, .engine = ATTN_ENGINE_BLAS, .num_threads = 1024},
        {.dtype = ATTN_DTYPE_FLOAT64, .engine = ATTN_ENGINE_BLAS, .num_threads = 1},
        {.dtype = ATTN_DTYPE_FLOAT64, .engine = ATTN_ENGINE_BLAS, .num_threads = 1024},
    };
    const guard_pages pages = guard_pages_map(0);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; ++i) {
        setting *asked = &settings[i];
        absurd_counts counts = {0};
        asked->untouchable = pages.bytes;
        plan_every_size(asked, &counts);
        printf("%s, engine %d, %d threads: %lld planned, %lld refused; calls: %lld too large, %lld "
               "by workspace\n",
               asked->dtype == ATTN_DTYPE_FLOAT32 ? "float32" : "float64", asked->engine,
               asked->num_threads, (long long)counts.planned, (long long)counts.refused,
               (long long)counts.too_large, (long long)counts.no_workspace);
        assert_true(counts.planned > 1000 && counts.refused > 1000 && counts.too_large > 1000);
        assert_true(counts.no_workspace > 0);
    }
    guard_pages_unmap(&pages);
}

static void more_keys_than_int32_with_weights_are_refused_by_the_fused_engine(void **state) {
    (void)state;
    const int64_t one[] = {1, 1, 1};
    const int64_t many[] = {1, INT64_C(1) << 31, 1};
    const int64_t row[] = {1, 1, INT64_C(1) << 31};
    const attn_tensor query = absurd_input(NULL, ATTN_DTYPE_FLOAT32, 3, one);
    const attn_tensor key = absurd_input(NULL, ATTN_DTYPE_FLOAT32, 3, many);
    const attn_tensor output = absurd_output(NULL, ATTN_DTYPE_FLOAT32, 3, one, 1);
    const attn_tensor weights = absurd_output(NULL, ATTN_DTYPE_FLOAT32, 3, row, 1);
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
        cmocka_unit_test(absurd_sizes_end_in_bytes_or_an_error_without_allocating),
        cmocka_unit_test(more_keys_than_int32_with_weights_are_refused_by_the_fused_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
