/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_sizes.c: gradients of every combination of sizes at the edges of 32 and 64 bits.
 * Views are broadcast, so that the tensors are small however long their axes are. A plan must end in
 * a number of bytes or in an error; the undefined behaviour sanitizer sees the sizes on their way.
 * Sizes that are refused are refused by the call itself too, before it touches data (which lies in a
 * page without access) or asks for memory. And where nothing that is wanted has an element the call
 * is made: it must end, touch nothing and need no memory, however many heads, rows or keys there
 * are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* What is wanted. */
enum wanted { WANTED_INPUTS, WANTED_MASK, WANTED_NUMBERS, NUM_WANTED };

/* Bytes between tensors of one element: what is written lies behind what is read, since what
 * overlaps is refused for that. */
enum { APART = 64 };

typedef struct setting {
    int32_t dtype, num_threads;
    attn_context *context;
    counting_allocator allocator;
    unsigned char *untouchable;
} setting;

typedef struct views {
    attn_tensor query, key, value, output, lse, mask, slopes, sinks, given;
    attn_tensor of_query, of_key, of_value, of_mask, of_slopes, of_sinks;
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
} views;

static attn_tensor written(const setting *asked, int place, const attn_tensor *of) {
    return absurd_output(asked->untouchable + place * APART, of->dtype, of->rank, of->shape, 1);
}

static void make_views(views *made, const setting *asked, const int64_t sizes[NUM_SIZES],
                       enum wanted wanted) {
    const int64_t query[] = {sizes[HEADS], sizes[ROWS], sizes[FEATURES]};
    const int64_t key[] = {sizes[HEADS], sizes[KEYS], sizes[FEATURES]};
    const int64_t value[] = {sizes[HEADS], sizes[KEYS], sizes[VALUE_FEATURES]};
    const int64_t output[] = {sizes[HEADS], sizes[ROWS], sizes[VALUE_FEATURES]};
    const int64_t mask[] = {sizes[ROWS], sizes[KEYS]};
    unsigned char *data = asked->untouchable;
    *made = (views){
        .query = absurd_input(data, asked->dtype, 3, query),
        .key = absurd_input(data + APART, asked->dtype, 3, key),
        .value = absurd_input(data + 2 * APART, asked->dtype, 3, value),
        .mask = absurd_input(data + 3 * APART, asked->dtype, 2, mask),
        .slopes = absurd_input(data + 4 * APART, asked->dtype, 1, query),
        .sinks = absurd_input(data + 5 * APART, asked->dtype, 1, query),
        .given = absurd_input(data + 6 * APART, asked->dtype, 3, output),
        .output = absurd_output(data + 7 * APART, asked->dtype, 3, output, 1),
        .lse = absurd_output(data + 8 * APART, asked->dtype, 2, output, 1),
        .params = {.struct_size = sizeof made->params},
        .gradients = {.struct_size = sizeof made->gradients},
    };
    made->params.lse = &made->lse;
    made->gradients.output = &made->given;
    switch (wanted) {
    case WANTED_INPUTS:
        made->of_query = written(asked, 9, &made->query);
        made->of_key = written(asked, 10, &made->key);
        made->of_value = written(asked, 11, &made->value);
        made->gradients.query = &made->of_query;
        made->gradients.key = &made->of_key;
        made->gradients.value = &made->of_value;
        break;
    case WANTED_MASK:
        made->of_mask = written(asked, 9, &made->mask);
        made->params.mask = &made->mask;
        made->params.mask_kind = ATTN_MASK_ADDITIVE;
        made->gradients.mask = &made->of_mask;
        break;
    default:
        made->of_slopes = written(asked, 9, &made->slopes);
        made->of_sinks = written(asked, 10, &made->sinks);
        made->params.alibi_slopes = &made->slopes;
        made->params.sinks = &made->sinks;
        made->gradients.alibi_slopes = &made->of_slopes;
        made->gradients.sinks = &made->of_sinks;
        break;
    }
}

static attn_status call(const setting *asked, const views *given, void *workspace,
                        size_t workspace_bytes) {
    return attn_sdpa_backward(asked->context, &given->query, &given->key, &given->value,
                              &given->params, &given->output, &given->gradients, workspace,
                              workspace_bytes);
}

static bool is_empty(const attn_tensor *tensor) {
    bool is_empty = tensor == NULL;
    for (int32_t axis = 0; !is_empty && axis < tensor->rank; ++axis) {
        is_empty = tensor->shape[axis] == 0;
    }
    return is_empty;
}

static bool writes_nothing(const attn_sdpa_gradients *gradients) {
    return is_empty(gradients->query) && is_empty(gradients->key) && is_empty(gradients->value) &&
           is_empty(gradients->mask) && is_empty(gradients->alibi_slopes) &&
           is_empty(gradients->sinks);
}

/* A call of a size that no plan can have is refused as the plan is, or because outputs so large
 * overlap; reading or writing what it is given ends the process. */
static void ask(const setting *asked, const views *given, absurd_counts *counts, int64_t *empty) {
    size_t bytes = 1;
    const attn_status status = attn_sdpa_backward_workspace_bytes(
        asked->context, &given->query, &given->key, &given->value, &given->params, &given->output,
        &given->gradients, &bytes);
    if (absurd_count_plan(status, bytes, counts) != ATTN_OK) {
        absurd_count_call(status, call(asked, given, NULL, 0), counts);
        absurd_count_call(status, call(asked, given, asked->untouchable, SIZE_MAX), counts);
    } else if (writes_nothing(&given->gradients)) {
        assert_int_equal(bytes, 0);
        const attn_status called = call(asked, given, NULL, 0);
        /* Inputs, which repeat, may be so large as to overlap nothing; outputs overlap. */
        assert_true(called == ATTN_OK || called == ATTN_ERROR_OVERLAP);
        *empty += called == ATTN_OK;
    }
}

static void ask_for_every_size(setting *asked, absurd_counts *counts, int64_t *empty) {
    attn_context_config settings = {.struct_size = sizeof settings,
                                    .num_threads = asked->num_threads};
    counting_allocator_init(&asked->allocator);
    counting_allocator_use(&asked->allocator, &settings);
    assert_int_equal(attn_context_create(&settings, &asked->context), ATTN_OK);
    const int64_t requests = asked->allocator.requests;
    int64_t sizes[NUM_SIZES];
    const int64_t combinations = absurd_combination(0, NUM_SIZES, sizes);
    for (int64_t c = 0; c < NUM_WANTED * combinations; ++c) {
        absurd_combination(c / NUM_WANTED, NUM_SIZES, sizes);
        views given;
        make_views(&given, asked, sizes, (enum wanted)(c % NUM_WANTED));
        ask(asked, &given, counts, empty);
    }
    assert_int_equal(asked->allocator.requests, requests);
    attn_context_destroy(asked->context);
    assert_int_equal(asked->allocator.live_blocks, 0);
}

static void absurd_sizes_end_in_bytes_or_an_error_without_allocating(void **state) {
    (void)state;
    static setting settings[] = {
        {.dtype = ATTN_DTYPE_FLOAT32, .num_threads = 1024},
        {.dtype = ATTN_DTYPE_FLOAT64, .num_threads = 1},
    };
    const guard_pages pages = guard_pages_map(0);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; ++i) {
        setting *asked = &settings[i];
        absurd_counts counts = {0};
        int64_t empty = 0;
        asked->untouchable = pages.bytes;
        ask_for_every_size(asked, &counts, &empty);
        printf("%s, %d threads: %lld planned, %lld refused, %lld ended without an element; calls: "
               "%lld too large, %lld by workspace\n",
               asked->dtype == ATTN_DTYPE_FLOAT32 ? "float32" : "float64", asked->num_threads,
               (long long)counts.planned, (long long)counts.refused, (long long)empty,
               (long long)counts.too_large, (long long)counts.no_workspace);
        assert_true(counts.planned > 1000 && counts.refused > 1000 && counts.too_large > 1000);
        assert_true(counts.no_workspace > 0 && empty > 100);
    }
    guard_pages_unmap(&pages);
}

/* Zeroes of what is there, though heads are more than there could be and rows none. */
static void no_row_of_countless_heads_leaves_zeroes(void **state) {
    (void)state;
    enum { KEYS_THERE = 3, FEATURES_THERE = 2 };
    const int64_t heads = INT64_C(1) << 40;
    const int64_t query[] = {heads, 0, FEATURES_THERE};
    const int64_t key[] = {1, KEYS_THERE, FEATURES_THERE};
    float key_data[KEYS_THERE * FEATURES_THERE] = {0}, of_key[KEYS_THERE * FEATURES_THERE];
    int32_t starts_data[] = {0, 0}, key_starts_data[] = {1, 3};
    const int64_t ends = 2;
    attn_tensor none, keys, of_keys, starts, key_starts;
    assert_int_equal(attn_tensor_init(&none, NULL, ATTN_DTYPE_FLOAT32, 3, query), ATTN_OK);
    assert_int_equal(attn_tensor_init(&keys, key_data, ATTN_DTYPE_FLOAT32, 3, key), ATTN_OK);
    assert_int_equal(attn_tensor_init(&of_keys, of_key, ATTN_DTYPE_FLOAT32, 3, key), ATTN_OK);
    assert_int_equal(attn_tensor_init(&starts, starts_data, ATTN_DTYPE_INT32, 1, &ends), ATTN_OK);
    assert_int_equal(attn_tensor_init(&key_starts, key_starts_data, ATTN_DTYPE_INT32, 1, &ends),
                     ATTN_OK);
    const attn_kv kv = {
        .struct_size = sizeof kv, .key = &keys, .value = &keys, .starts = &key_starts};
    attn_tensor lse = none;
    --lse.rank;
    for (int is_ragged = 0; is_ragged <= 1; ++is_ragged) {
        const attn_sdpa_params params = {.struct_size = sizeof params,
                                         .lse = &lse,
                                         .query_starts = is_ragged ? &starts : NULL,
                                         .kv = is_ragged ? &kv : NULL};
        const attn_sdpa_gradients gradients = {
            .struct_size = sizeof gradients, .output = &none, .key = &of_keys};
        for (int i = 0; i < KEYS_THERE * FEATURES_THERE; ++i) {
            of_key[i] = 7;
        }
        const attn_tensor *source = is_ragged ? NULL : &keys;
        assert_int_equal(
            attn_sdpa_backward(NULL, &none, source, source, &params, &none, &gradients, NULL, 0),
            ATTN_OK);
        /* Row 0 is of no sequence where sequences have rows of their own. */
        for (int i = 0; i < KEYS_THERE * FEATURES_THERE; ++i) {
            assert_true(of_key[i] == (is_ragged && i < FEATURES_THERE ? 7 : 0));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_sizes_end_in_bytes_or_an_error_without_allocating),
        cmocka_unit_test(no_row_of_countless_heads_leaves_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
