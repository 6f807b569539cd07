/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_softmax_sizes.c: rows for every combination of sizes at the edges of 32 and 64 bits. Their
 * workspace is a number of bytes or an error, and sizes that are refused are refused by the call
 * itself too, before it touches data (which lies in a page without access) or asks for memory.
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

/* batches, rows, S */
enum { NUM_SIZES = 3 };

/* Bytes between tensors of one element; outputs lie behind the inputs. */
enum { APART = 64 };

typedef struct views {
    attn_tensor input, mask, output, lse;
    attn_softmax_params params;
} views;

/* Outputs whose elements are not neighbours in order need a workspace; those that lie backwards
 * one that is larger than themselves, in whole cache lines. */
static const int64_t spacings[] = {1, 2, -1};

/* `options` are bits, and above them the number of a spacing. */
enum { HAS_MASK = 1, HAS_LSE = 2, NUM_FLAGS = 4, NUM_OPTIONS = NUM_FLAGS * 3 };

static void make_views(views *made, int32_t dtype, const int64_t *sizes, int options,
                       unsigned char *untouchable) {
    made->input = absurd_input(untouchable, dtype, 3, sizes);
    made->mask = absurd_input(untouchable + APART, dtype, 3, sizes);
    made->lse = absurd_output(untouchable + 2 * APART, dtype, 2, sizes, 1);
    made->output =
        absurd_output(untouchable + 3 * APART, dtype, 3, sizes, spacings[options / NUM_FLAGS]);
    made->params = (attn_softmax_params){
        .struct_size = sizeof made->params,
        .mask_kind = options & HAS_MASK ? ATTN_MASK_ADDITIVE : ATTN_MASK_NONE,
        .mask = options & HAS_MASK ? &made->mask : NULL,
        .lse = options & HAS_LSE ? &made->lse : NULL,
    };
}

/* As the workspace's bytes were refused, or because outputs so large overlap; reading or writing
 * what it is given ends the process. */
static void refuse(attn_context *context, const views *given, void *workspace,
                   size_t workspace_bytes, attn_status planned, absurd_counts *counts) {
    const attn_status status = attn_softmax(context, &given->input, &given->params, &given->output,
                                            workspace, workspace_bytes);
    absurd_count_call(planned, status, counts);
}

static void plan(attn_context *context, const views *given, absurd_counts *counts) {
    size_t bytes = 1;
    const attn_status status = attn_softmax_workspace_bytes(context, &given->input, &given->params,
                                                            &given->output, &bytes);
    if (absurd_count_plan(status, bytes, counts) == ATTN_OK) {
        return;
    }
    refuse(context, given, NULL, 0, status, counts);
    refuse(context, given, given->input.data, SIZE_MAX, status, counts);
}

static void plan_every_size(int32_t dtype, unsigned char *untouchable, absurd_counts *counts) {
    counting_allocator allocator;
    attn_context_config settings = {.struct_size = sizeof settings};
    counting_allocator_init(&allocator);
    counting_allocator_use(&allocator, &settings);
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    const int64_t requests = allocator.requests;
    int64_t sizes[NUM_SIZES];
    const int64_t combinations = absurd_combination(0, NUM_SIZES, sizes);
    for (int64_t c = 0; c < NUM_OPTIONS * combinations; ++c) {
        absurd_combination(c / NUM_OPTIONS, NUM_SIZES, sizes);
        views given;
        make_views(&given, dtype, sizes, (int)(c % NUM_OPTIONS), untouchable);
        plan(context, &given, counts);
    }
    assert_int_equal(allocator.requests, requests);
    attn_context_destroy(context);
    assert_int_equal(allocator.live_blocks, 0);
}

static void absurd_sizes_end_in_bytes_or_an_error_without_allocating(void **state) {
    (void)state;
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    const guard_pages pages = guard_pages_map(0);
    for (int i = 0; i < 2; ++i) {
        absurd_counts counts = {0};
        plan_every_size(dtypes[i], pages.bytes, &counts);
        printf("float%d: %lld planned, %lld refused; calls: %lld too large, %lld by workspace\n",
               32 * (i + 1), (long long)counts.planned, (long long)counts.refused,
               (long long)counts.too_large, (long long)counts.no_workspace);
        assert_true(counts.planned > 100 && counts.refused > 1000 && counts.too_large > 1000);
        assert_true(counts.no_workspace > 0);
    }
    guard_pages_unmap(&pages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_sizes_end_in_bytes_or_an_error_without_allocating),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
