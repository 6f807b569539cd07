/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_quantized_kernels.c: every set of kernels makes the same float32 of every element, wherever
 * elements lie: (element - zero) * scale, each operation rounded once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernel_select.h"
#include "kernels/stored_rows.h"
#include "support/half_numbers.h"
#include "support/random.h"

enum { MOST = 288, MOST_STRIDE = 3, MOST_BYTES = MOST * MOST_STRIDE * 34, GUARD = 77 };

static const int32_t dtypes[] = {ATTN_DTYPE_INT8,    ATTN_DTYPE_UINT8, ATTN_DTYPE_INT4X2,
                                 ATTN_DTYPE_UINT4X2, ATTN_DTYPE_Q8_0,  ATTN_DTYPE_Q4_0};

static int low_half(int byte) {
    return byte & 15;
}

/* What the value is, by tensor.h. */
static float number_of(const unsigned char *from, int32_t dtype, int64_t stride, int64_t j,
                       float scale, float zero) {
    const int64_t values = attn_dtype_values(dtype);
    const unsigned char *at = from + j / values * stride * (int64_t)attn_dtype_size_bytes(dtype);
    const int half = j % 2 == 0 ? low_half(at[0]) : at[0] >> 4;
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    const float of_block = (float)half_number(ATTN_DTYPE_FLOAT16, bits);
    const int64_t i = j % values;
    switch (dtype) {
    case ATTN_DTYPE_INT8:
        return ((float)(signed char)at[0] - zero) * scale;
    case ATTN_DTYPE_UINT8:
        return ((float)at[0] - zero) * scale;
    case ATTN_DTYPE_INT4X2:
        return ((float)(half < 8 ? half : half - 16) - zero) * scale;
    case ATTN_DTYPE_UINT4X2:
        return ((float)half - zero) * scale;
    case ATTN_DTYPE_Q8_0:
        return (float)(signed char)at[2 + i] * of_block;
    default:
        return (float)((i < 16 ? low_half(at[2 + i]) : at[2 + i - 16] >> 4) - 8) * of_block;
    }
}

static void check_row(const attni_kernel_set *set, int32_t dtype, int64_t stride, int64_t n,
                      int64_t alike, random_state *random) {
    static unsigned char memory[MOST_BYTES + 1];
    static float scales[MOST], zeros[MOST], to[MOST + 1];
    unsigned char *from = memory + random_between(random, 0, 1);
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(dtype);
    for (int64_t i = 0; i < n * stride * bytes; ++i) {
        from[i] = (unsigned char)random_between(random, 0, 255);
    }
    const uint16_t one = half_nearest(ATTN_DTYPE_FLOAT16, random_real(random, -2, 2));
    for (int64_t j = 0; j < n; ++j) {
        scales[j] = (float)random_real(random, -2, 2);
        zeros[j] = (float)random_real(random, -9, 9);
        if (bytes > 1) {
            memcpy(from + j * stride * bytes, &one, sizeof one);
        }
    }
    to[n] = GUARD;
    const attni_value_numbers numbers = {scales, zeros, alike};
    attni_take_quantized_row(set, to, from, dtype, stride, n, numbers);
    assert_true(to[n] == GUARD);
    for (int64_t j = 0; j < n; ++j) {
        const int64_t own = j / alike;
        const float expected = number_of(from, dtype, stride, j, scales[own], zeros[own]);
        if (memcmp(&to[j], &expected, sizeof expected) != 0) {
            fail_msg("%s, dtype %d, stride %lld, value %lld of %lld: expected %a, got %a",
                     set->name, (int)dtype, (long long)stride, (long long)j, (long long)n,
                     (double)expected, (double)to[j]);
        }
    }
}

static void every_set_has_the_numbers_of_the_formula(void **state) {
    random_state random = random_seeded(1);
    static const int64_t alike[] = {1, 16, 40, INT64_MAX};
    const attni_kernel_set *set;
    (void)state;
    for (int32_t i = 0; (set = attni_kernel_set_at(i)) != NULL; ++i) {
        for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; ++d) {
            const int64_t values = attn_dtype_values(dtypes[d]);
            for (int64_t n = 0; n <= MOST; n += values) {
                for (int64_t stride = 1; stride <= MOST_STRIDE; ++stride) {
                    for (size_t a = 0; a < sizeof alike / sizeof alike[0]; ++a) {
                        check_row(set, dtypes[d], stride, n, alike[a], &random);
                    }
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_has_the_numbers_of_the_formula),
    };
    return cmocka_run_group_tests_name("quantized_kernels", tests, NULL, NULL);
}
