/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_setting.c: goes through kernels, lengths and placements, and compares elements.
 */
#include "row_setting.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <attention/tensor.h>

void set_row(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    setting->row = guarded_place(&setting->row_block, (size_t)(setting->n * real_bytes(dtype)),
                                 setting->placement);
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(setting->row, j, dtype, setting->before[j]);
    }
}

void fill_row(struct row_setting *setting) {
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = random_number(setting->random, setting->choice.dtype);
    }
    set_row(setting);
}

void for_every_row(row_check check) {
    random_state random = random_seeded(61);
    static struct row_setting setting;
    setting.random = &random;
    guarded_open(&setting.row_block);
    guarded_open(&setting.operand_block);
    for (int index = 0; choose_kernels(index, &setting.choice); ++index) {
        for (int length = 0; (setting.n = row_length(length)) >= 0; ++length) {
            for (setting.placement = 0; setting.placement < GUARDED_NUM_PLACEMENTS;
                 ++setting.placement) {
                fill_row(&setting);
                check(&setting);
                guarded_check(&setting.row_block, choice_text(&setting.choice));
            }
        }
    }
    guarded_close(&setting.row_block);
    guarded_close(&setting.operand_block);
}

void fail_element(const struct row_setting *setting, int64_t j, double expected, double actual) {
    fail_msg("%s, element %lld of %lld, was %a: expected %a, got %a", choice_text(&setting->choice),
             (long long)j, (long long)setting->n, setting->before[j], expected, actual);
}

void assert_element(const struct row_setting *setting, int64_t j, double expected) {
    const double actual = row_get(setting->row, j, setting->choice.dtype);
    if (!is_same_number(actual, expected)) {
        fail_element(setting, j, expected, actual);
    }
}

void assert_unchanged(const struct row_setting *setting) {
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, setting->before[j]);
    }
}

double product_in(int32_t dtype, double a, double b) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)((float)a * (float)b) : a * b;
}

double sum_in(int32_t dtype, double a, double b) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)((float)a + (float)b) : a + b;
}

double finite_sum_in(int32_t dtype, double a, double b) {
    const double sum = sum_in(dtype, a, b);
    const double largest = dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
    return isfinite(a) && isfinite(b) && isinf(sum) ? copysign(largest, sum) : sum;
}
