/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_rope_sizes.c: rotations and normalisations for every combination of sizes at the edges of 32
 * and 64 bits, in memory that may not be touched. Those that have something to write are refused,
 * if only since memory so large overlaps; those that have nothing return at once, though 2^40 of a
 * thing would take hours one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/absurd_views.h"
#include "support/guard_pages.h"

/* batch, heads, rows, features */
enum { NUM_SIZES = 4, APART = 64 };

static bool is_empty(const int64_t *sizes) {
    return sizes[0] == 0 || sizes[1] == 0 || sizes[2] == 0 || sizes[3] == 0;
}

/* 1 where nothing but the one element is left. */
static bool is_single(const int64_t *sizes) {
    return sizes[0] == 1 && sizes[1] == 1 && sizes[2] == 1;
}

typedef struct size_counts {
    int64_t done, refused;
} size_counts;

static void count(attn_status status, const int64_t *sizes, size_counts *counts) {
    if (status == ATTN_OK) {
        assert_true(is_empty(sizes));
        ++counts->done;
    } else {
        assert_true(status == ATTN_ERROR_OVERFLOW || status == ATTN_ERROR_SHAPE ||
                    status == ATTN_ERROR_OVERLAP);
        assert_true(attn_last_error()[0] != '\0');
        ++counts->refused;
    }
}

/* Outputs with elements lie on their input, a byte off. */
static void call_both(const int64_t *sizes, unsigned char *untouchable, size_counts *rope,
                      size_counts *norm) {
    int64_t one = 1;
    const attn_tensor input = absurd_input(untouchable, ATTN_DTYPE_FLOAT32, NUM_SIZES, sizes);
    const attn_tensor output =
        absurd_output(untouchable + 1, ATTN_DTYPE_FLOAT32, NUM_SIZES, sizes, 1);
    const attn_tensor weight = absurd_input(untouchable + APART, ATTN_DTYPE_FLOAT32, 1, sizes + 3);
    const int64_t places[] = {sizes[0], sizes[2]};
    attn_tensor positions = absurd_input(&one, ATTN_DTYPE_INT64, 2, places);
    const attn_rope_params params = {.struct_size = sizeof params, .positions = &positions};
    const attn_rms_norm_params norm_params = {.struct_size = sizeof norm_params, .weight = &weight};
    count(attn_rope(NULL, &input, &params, &output), sizes, rope);
    count(attn_rope(NULL, &input, NULL, &output), sizes, rope);
    count(attn_rms_norm(NULL, &input, &norm_params, &output), sizes, norm);
}

static void absurd_sizes_return_at_once_or_are_refused(void **state) {
    (void)state;
    const guard_pages pages = guard_pages_map(0);
    size_counts rope = {0}, norm = {0};
    int64_t sizes[NUM_SIZES];
    const int64_t combinations = absurd_combination(0, NUM_SIZES, sizes);
    for (int64_t c = 0; c < combinations; ++c) {
        absurd_combination(c, NUM_SIZES, sizes);
        if (is_empty(sizes) || !is_single(sizes)) {
            call_both(sizes, pages.bytes, &rope, &norm);
        }
    }
    printf("rope: %lld with nothing to write, %lld refused; RMS norm: %lld, %lld\n",
           (long long)rope.done, (long long)rope.refused, (long long)norm.done,
           (long long)norm.refused);
    assert_true(rope.done > 100 && rope.refused > 1000 && norm.done > 100 && norm.refused > 1000);
    guard_pages_unmap(&pages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_sizes_return_at_once_or_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
