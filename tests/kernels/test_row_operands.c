/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_row_operands.c: the kernels that read something beside the row (biases, flags, another row)
 * at any stride, or a stream of random words, against plain loops; the operand, too, lies between pages that may not be touched.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "row_setting.h"
#include "support/oracle_dropout.h"

/* The place of element 0 of an operand of n elements `stride` apart that fills its block exactly.
 */
static char *place_operand(struct row_setting *setting, int64_t stride, int64_t element) {
    const int64_t reach = setting->n > 0 ? (setting->n - 1) * stride : 0;
    const int64_t elements = setting->n > 0 ? llabs(reach) + 1 : 0;
    char *memory =
        guarded_place(&setting->operand_block, (size_t)(elements * element), setting->placement);
    memset(memory, 0x7F, (size_t)(elements * element));
    return reach < 0 ? memory - reach * element : memory;
}

static const int64_t strides[] = {1, 2, -1, 0, -3, 1};

static int64_t random_stride(const struct row_setting *setting) {
    return strides[random_between(setting->random, 0, sizeof strides / sizeof strides[0] - 1)];
}

/* With `adds`, the kernel that adds the bias; else the one that only excludes. */
static void check_bias(struct row_setting *setting, int32_t bias_dtype, double excluded,
                       bool adds) {
    static double bias[ROW_MOST];
    const int64_t stride = random_stride(setting);
    char *first = place_operand(setting, stride, real_bytes(bias_dtype));
    const int32_t narrow =
        setting->choice.dtype == ATTN_DTYPE_FLOAT32 ? ATTN_DTYPE_FLOAT32 : bias_dtype;
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool excludes = random_between(setting->random, 0, 4) == 0;
        bias[stride == 0 ? 0 : j] =
            excludes ? -(double)INFINITY : random_number(setting->random, narrow);
    }
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(first, j * stride, bias_dtype, bias[stride == 0 ? 0 : j]);
    }
    const attni_row_kernels *kernels = setting->choice.kernels;
    (adds ? kernels->add_bias : kernels->exclude)(setting->row, setting->n, first, stride,
                                                  bias_dtype, excluded);
    for (int64_t j = 0; j < setting->n; ++j) {
        const double b = bias[stride == 0 ? 0 : j];
        const double before = setting->before[j];
        const double other = adds ? finite_sum_in(setting->choice.dtype, before, b) : before;
        assert_element(setting, j, b == -(double)INFINITY ? excluded : other);
    }
    guarded_check(&setting->operand_block, "bias");
}

static void check_both_biases(struct row_setting *setting, bool adds) {
    check_bias(setting, ATTN_DTYPE_FLOAT32, -(double)INFINITY, adds);
    guarded_check(&setting->row_block, choice_text(&setting->choice));
    fill_row(setting);
    check_bias(setting, ATTN_DTYPE_FLOAT64, 0.0, adds);
}

static void check_add_bias(struct row_setting *setting) {
    check_both_biases(setting, true);
}

static void add_bias_adds_and_excludes_at_minus_infinity(void **state) {
    (void)state;
    for_every_row(check_add_bias);
}

/* Every pair of a score and a bias at the edge of what is finite: scores that are not stay what they
 * are, beside any finite bias. */
static void check_sums_stay_finite(struct row_setting *setting) {
    const int32_t dtype = setting->choice.dtype;
    const double most = dtype == ATTN_DTYPE_FLOAT32 ? (double)FLT_MAX : DBL_MAX;
    const double scores[] = {most, -most, most / 2, -most / 2,         0,
                             -1,   NAN,   INFINITY, -(double)INFINITY, 3};
    const double biases[] = {most, -most, most / 4 * 3, -most / 4 * 3, -(double)INFINITY, 0, 1};
    enum {
        NUM_SCORES = sizeof scores / sizeof scores[0],
        NUM_BIASES = sizeof biases / sizeof biases[0]
    };
    const int64_t stride = random_stride(setting);
    for (int64_t j = 0; j < setting->n; ++j) {
        setting->before[j] = scores[j % NUM_SCORES];
    }
    set_row(setting);
    char *first = place_operand(setting, stride, real_bytes(dtype));
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(first, j * stride, dtype, biases[j / NUM_SCORES % NUM_BIASES]);
    }
    setting->choice.kernels->add_bias(setting->row, setting->n, first, stride, dtype, -1.5);
    for (int64_t j = 0; j < setting->n; ++j) {
        const double bias = row_get(first, j * stride, dtype);
        const double score = setting->before[j];
        const bool stays = !isfinite(score);
        const double sum = stays ? score : finite_sum_in(dtype, score, bias);
        assert_element(setting, j, bias == -(double)INFINITY ? -1.5 : sum);
    }
}

static void add_bias_of_finite_numbers_stays_finite(void **state) {
    (void)state;
    for_every_row(check_sums_stay_finite);
}

static void check_exclude(struct row_setting *setting) {
    check_both_biases(setting, false);
}

static void exclude_adds_nothing(void **state) {
    (void)state;
    for_every_row(check_exclude);
}

static void check_hide(struct row_setting *setting) {
    static const unsigned char bytes[] = {0, 0, 1, 0xFF, 0x80};
    static unsigned char flags[ROW_MOST];
    const int64_t stride = random_stride(setting);
    const bool hidden_if = random_between(setting->random, 0, 1) == 1;
    const double excluded = random_between(setting->random, 0, 1) == 1 ? -(double)INFINITY : 0.0;
    char *first = place_operand(setting, stride, 1);
    for (int64_t j = 0; j < setting->n; ++j) {
        flags[j] = bytes[random_between(setting->random, 0, 4)];
        first[j * stride] = (char)flags[j];
    }
    setting->choice.kernels->hide(setting->row, setting->n, (const unsigned char *)first, stride,
                                  hidden_if, excluded);
    for (int64_t j = 0; j < setting->n; ++j) {
        const unsigned char flag = stride == 0 ? flags[setting->n - 1] : flags[j];
        assert_element(setting, j, (flag != 0) == hidden_if ? excluded : setting->before[j]);
    }
    guarded_check(&setting->operand_block, "flags");
}

static void hide_replaces_what_the_flags_say(void **state) {
    (void)state;
    for_every_row(check_hide);
}

/* ---- dropout ---- */

/* Places at every distance from a group of 4 columns, also where a counter has more than 32 bits of
 * columns. */
static const int64_t first_columns[] = {0, 1, 2, 3, 4, 5, 6, 7, (INT64_C(1) << 34) - ROW_MOST};

static void check_drop_at(struct row_setting *setting, attn_dropout dropout) {
    const int32_t dtype = setting->choice.dtype;
    const uint64_t batch = (uint64_t)dropout.batch;
    const double share = rounded_to(dtype, 1 / (1 - dropout.probability));
    const attni_dropout_stream stream = {
        .key = {(uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32)},
        .threshold = (uint32_t)(dropout.probability * 0x1p32),
        .batch = (uint32_t)(batch >> 16),
        .scale = 1 / (1 - dropout.probability),
    };
    fill_row(setting);
    setting->choice.kernels->drop(setting->row, setting->n, dropout.column, (uint32_t)dropout.row,
                                  (uint32_t)dropout.head | (uint32_t)(batch << 16), &stream);
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool is_kept = oracle_dropout_factor(&dropout, 0, 0, 0, j) != 0;
        assert_element(setting, j, product_in(dtype, setting->before[j], is_kept ? share : 0));
    }
    guarded_check(&setting->row_block, choice_text(&setting->choice));
    setting->choice.kernels->keep(setting->row, setting->n, dropout.column, (uint32_t)dropout.row,
                                  (uint32_t)dropout.head | (uint32_t)(batch << 16), &stream);
    for (int64_t j = 0; j < setting->n; ++j) {
        const bool is_kept = oracle_dropout_factor(&dropout, 0, 0, 0, j) != 0;
        assert_element(setting, j, is_kept ? share : 0);
    }
    guarded_check(&setting->row_block, choice_text(&setting->choice));
}

static void check_drop(struct row_setting *setting) {
    attn_dropout dropout = {.struct_size = sizeof dropout,
                            .probability = 0.375,
                            .seed = 0xfedcba9876543210U,
                            .batch = INT64_C(0x765432109876),
                            .head = 0xfedc,
                            .row = 0xfffffffe};
    enum { MOST_DROPPED = 132 }; /* the definition is slow */
    if (setting->n > MOST_DROPPED) {
        return;
    }
    for (size_t i = 0; i < sizeof first_columns / sizeof first_columns[0]; ++i) {
        dropout.column = first_columns[i];
        check_drop_at(setting, dropout);
    }
}

/* What is dropped is 0 of the same sign, and NaN, as infinity, becomes or stays NaN. */
static void drop_keeps_what_the_definition_says(void **state) {
    (void)state;
    for_every_row(check_drop);
}

static void check_multiply(struct row_setting *setting) {
    static double factors[ROW_MOST];
    const int32_t dtype = setting->choice.dtype;
    char *first = place_operand(setting, 1, real_bytes(dtype));
    for (int64_t j = 0; j < setting->n; ++j) {
        factors[j] = random_number(setting->random, dtype);
        row_set(first, j, dtype, factors[j]);
    }
    setting->choice.kernels->multiply(setting->row, first, setting->n);
    for (int64_t j = 0; j < setting->n; ++j) {
        assert_element(setting, j, product_in(dtype, setting->before[j], factors[j]));
    }
    guarded_check(&setting->row_block, choice_text(&setting->choice));
}

static void multiply_takes_elements_pairwise(void **state) {
    (void)state;
    for_every_row(check_multiply);
}

/* to + factor * from, rounded once or twice: compilers may fuse. */
static void check_accumulate(struct row_setting *setting) {
    static double from[ROW_MOST];
    const int32_t dtype = setting->choice.dtype;
    const int64_t stride = random_stride(setting);
    const double factor = rounded_to(dtype, random_real(setting->random, -2, 2));
    char *first = place_operand(setting, stride, real_bytes(dtype));
    for (int64_t j = 0; j < setting->n; ++j) {
        from[stride == 0 ? 0 : j] = random_number(setting->random, dtype);
    }
    for (int64_t j = 0; j < setting->n; ++j) {
        row_set(first, j * stride, dtype, from[stride == 0 ? 0 : j]);
    }
    setting->choice.kernels->accumulate(setting->row, first, stride, setting->n, factor);
    for (int64_t j = 0; j < setting->n; ++j) {
        const double term = from[stride == 0 ? 0 : j];
        const double before = setting->before[j];
        const double fused = dtype == ATTN_DTYPE_FLOAT32
                                 ? (double)fmaf((float)factor, (float)term, (float)before)
                                 : fma(factor, term, before);
        if (!is_same_number(row_get(setting->row, j, dtype), fused)) {
            assert_element(setting, j, sum_in(dtype, before, product_in(dtype, factor, term)));
        }
    }
    guarded_check(&setting->operand_block, "from");
}

static void accumulate_adds_a_multiple(void **state) {
    (void)state;
    for_every_row(check_accumulate);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_bias_adds_and_excludes_at_minus_infinity),
        cmocka_unit_test(add_bias_of_finite_numbers_stays_finite),
        cmocka_unit_test(exclude_adds_nothing),
        cmocka_unit_test(hide_replaces_what_the_flags_say),
        cmocka_unit_test(drop_keeps_what_the_definition_says),
        cmocka_unit_test(multiply_takes_elements_pairwise),
        cmocka_unit_test(accumulate_adds_a_multiple),
    };
    return cmocka_run_group_tests_name("row_operands", tests, NULL, NULL);
}
