/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_feature_kernels.c: rows that are rotated and normalised, of every length that matters to any
 * vector, at every placement, in place and not; each element as if it stood alone.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "guarded_block.h"
#include "kernel_choice.h"
#include "row_setting.h"

enum { OPERANDS = 4, MOST_BYTES = 2 * ROW_MOST * 8 };

/* The rows of one check: guarded, and as they were. */
typedef struct feature_rows {
    const attni_feature_kernels *kernels;
    int32_t dtype;
    int64_t n;
    const char *label;
    char *row[OPERANDS];
    char before[OPERANDS][MOST_BYTES];
    guarded_block blocks[OPERANDS];
} feature_rows;

typedef void (*feature_check)(feature_rows *rows);

static double before_of(const feature_rows *rows, int which, int64_t i) {
    return row_get(rows->before[which], i, rows->dtype);
}

/* Rows 0 and 1 have 2 n elements, the others n. */
static void place_rows(feature_rows *rows, enum guarded_placement placement, random_state *random) {
    for (int which = 0; which < OPERANDS; ++which) {
        const int64_t count = which < 2 ? 2 * rows->n : rows->n;
        const size_t bytes = (size_t)(count * real_bytes(rows->dtype));
        rows->row[which] = guarded_place(&rows->blocks[which], bytes, placement);
        for (int64_t i = 0; i < count; ++i) {
            const double x = rounded_to(rows->dtype, random_real(random, -2, 2));
            row_set(rows->row[which], i, rows->dtype, x);
            row_set(rows->before[which], i, rows->dtype, x);
        }
    }
}

static void for_all_rows(feature_check check) {
    static feature_rows rows;
    kernel_choice choice;
    random_state random = random_seeded(17);
    for (int which = 0; which < OPERANDS; ++which) {
        guarded_open(&rows.blocks[which]);
    }
    for (int index = 0; choose_kernels(index, &choice); ++index) {
        rows.kernels = attni_feature_kernels_of(attni_kernel_set_find(choice.name), choice.dtype);
        rows.dtype = choice.dtype;
        rows.label = choice_text(&choice);
        for (int length = 0; (rows.n = row_length(length)) >= 0; ++length) {
            const int placement = length % GUARDED_NUM_PLACEMENTS;
            place_rows(&rows, (enum guarded_placement)placement, &random);
            check(&rows);
            for (int which = 0; which < OPERANDS; ++which) {
                guarded_check(&rows.blocks[which], rows.label);
            }
        }
    }
    for (int which = 0; which < OPERANDS; ++which) {
        guarded_close(&rows.blocks[which]);
    }
}

static void assert_within(const feature_rows *rows, const char *what, int64_t i, double actual,
                          long double expected, double bound) {
    if (!(fabsl((long double)actual - expected) <= (long double)bound)) {
        fail_msg("%s, n %lld, %s of pair %lld: expected %.17Lg within %g, got %.17g", rows->label,
                 (long long)rows->n, what, (long long)i, expected, bound, actual);
    }
}

/* Two products and a sum, a rounding for each at most; rows 2 and 3 are cosines and sines. */
static void assert_turned(const feature_rows *rows, int64_t i, double x, double y, double to_x,
                          double to_y) {
    const double c = before_of(rows, 2, i), s = before_of(rows, 3, i);
    const double unit = 2 * unit_roundoff(rows->dtype), tiny = smallest_normal(rows->dtype);
    const long double cosine = (long double)c, sine = (long double)s;
    assert_within(rows, "first", i, to_x, (long double)x * cosine - (long double)y * sine,
                  unit * (fabs(x * c) + fabs(y * s)) + tiny);
    assert_within(rows, "second", i, to_y, (long double)y * cosine + (long double)x * sine,
                  unit * (fabs(y * c) + fabs(x * s)) + tiny);
}

static void check_halves(feature_rows *rows) {
    const int64_t bytes = rows->n * real_bytes(rows->dtype);
    char *first = rows->row[0], *to = rows->row[1];
    rows->kernels->rotate_halves(to, to + bytes, first, first + bytes, rows->row[2], rows->row[3],
                                 rows->n);
    for (int64_t i = 0; i < rows->n; ++i) {
        assert_turned(rows, i, before_of(rows, 0, i), before_of(rows, 0, rows->n + i),
                      row_get(to, i, rows->dtype), row_get(to, rows->n + i, rows->dtype));
    }
    assert_memory_equal(first, rows->before[0], (size_t)(2 * bytes));
    rows->kernels->rotate_halves(first, first + bytes, first, first + bytes, rows->row[2],
                                 rows->row[3], rows->n);
    assert_memory_equal(first, to, (size_t)(2 * bytes));
}

static void halves_are_turned_in_place_and_apart(void **state) {
    (void)state;
    for_all_rows(check_halves);
}

static void check_neighbours(feature_rows *rows) {
    const size_t bytes = (size_t)(2 * rows->n * real_bytes(rows->dtype));
    char *from = rows->row[0], *to = rows->row[1];
    rows->kernels->rotate_neighbours(to, from, rows->row[2], rows->row[3], rows->n);
    for (int64_t i = 0; i < rows->n; ++i) {
        assert_turned(rows, i, before_of(rows, 0, 2 * i), before_of(rows, 0, 2 * i + 1),
                      row_get(to, 2 * i, rows->dtype), row_get(to, 2 * i + 1, rows->dtype));
    }
    assert_memory_equal(from, rows->before[0], bytes);
    rows->kernels->rotate_neighbours(from, from, rows->row[2], rows->row[3], rows->n);
    assert_memory_equal(from, to, bytes);
}

static void neighbours_are_turned_in_place_and_apart(void **state) {
    (void)state;
    for_all_rows(check_neighbours);
}

/* Element by element: what a pair becomes depends on nothing but the pair. */
static void check_alone(feature_rows *rows) {
    const int64_t size = real_bytes(rows->dtype), bytes = rows->n * size;
    char *from = rows->row[0], *to = rows->row[1];
    rows->kernels->rotate_halves(to, to + bytes, from, from + bytes, rows->row[2], rows->row[3],
                                 rows->n);
    for (int64_t i = 0; i < rows->n; ++i) {
        char pair[2 * sizeof(double)];
        char *x = from + i * size;
        rows->kernels->rotate_halves(pair, pair + size, x, x + bytes, rows->row[2] + i * size,
                                     rows->row[3] + i * size, 1);
        assert_memory_equal(pair, to + i * size, (size_t)size);
        assert_memory_equal(pair + size, to + bytes + i * size, (size_t)size);
        memcpy(pair, x, (size_t)size);
        memcpy(pair + size, x + bytes, (size_t)size);
        rows->kernels->rotate_neighbours(pair, pair, rows->row[2] + i * size,
                                         rows->row[3] + i * size, 1);
        assert_memory_equal(pair, to + i * size, (size_t)size);
        assert_memory_equal(pair + size, to + bytes + i * size, (size_t)size);
    }
}

static void pair_has_the_same_bits_wherever_it_stands(void **state) {
    (void)state;
    for_all_rows(check_alone);
}

/* Row 2 has the weights. In float64 nothing is left but the roundings of these operations. */
static void check_normalized(feature_rows *rows) {
    static const double factors[] = {1, 0.25}, scales[] = {0.3, 7}, offsets[] = {0, 1};
    const int which = (int)(rows->n % 2);
    const double factor = factors[which], scale = scales[which], offset = offsets[which];
    char *to = rows->row[1];
    for (int has_weights = 0; has_weights < 2; ++has_weights) {
        rows->kernels->normalize(to, rows->row[0], rows->n, factor, scale,
                                 has_weights ? rows->row[2] : NULL, offset);
        for (int64_t j = 0; j < rows->n; ++j) {
            const double x = before_of(rows, 0, j) * factor * scale;
            const double y = has_weights ? x * (offset + before_of(rows, 2, j)) : x;
            assert_true(row_get(to, j, rows->dtype) == rounded_to(rows->dtype, y));
        }
    }
    rows->kernels->normalize(rows->row[0], rows->row[0], rows->n, factor, scale, rows->row[2],
                             offset);
    assert_memory_equal(rows->row[0], to, (size_t)(rows->n * real_bytes(rows->dtype)));
}

static void row_is_normalized_in_place_and_apart(void **state) {
    (void)state;
    for_all_rows(check_normalized);
}

/* Products and sums of positive numbers in float64, in any order. */
static void check_square_sum(feature_rows *rows) {
    static const double factors[] = {1, 0x1p-30};
    for (int which = 0; which < 2; ++which) {
        long double exact = 0;
        for (int64_t j = 0; j < rows->n; ++j) {
            const long double x = (long double)before_of(rows, 0, j) * (long double)factors[which];
            exact += x * x;
        }
        const double sum = rows->kernels->square_sum(rows->row[0], rows->n, factors[which]);
        assert_within(rows, "sum", rows->n, sum, exact,
                      (double)exact * (double)(rows->n + 2) * 0x1p-53);
    }
}

static void squares_are_summed_in_float64(void **state) {
    (void)state;
    for_all_rows(check_square_sum);
}

/* Angles of each size, up to where they are reduced in vectors and beyond: near multiples of pi/2,
 * 0 and everywhere. */
static double random_angle(random_state *random, int kind) {
    const double size = ldexp(1, (int)random_between(random, -30, kind == 3 ? 60 : 19));
    const double angle = random_real(random, -size, size);
    return kind == 1 ? round(angle / M_PI_2) * M_PI_2 : kind == 2 ? round(angle) : angle;
}

static void check_turns(feature_rows *rows) {
    static random_state random;
    static double angles[ROW_MOST];
    const double position = 3, factors[] = {1, -0.75};
    const int kind = (int)(rows->n % 4);
    for (int64_t i = 0; i < rows->n; ++i) {
        angles[i] = random_angle(&random, kind) / position;
    }
    rows->kernels->turns(rows->row[2], rows->row[3], position, angles, rows->n, factors[0],
                         factors[1]);
    for (int64_t i = 0; i < rows->n; ++i) {
        const long double angle = (long double)(position * angles[i]);
        const double bound = 0x1p-52 + unit_roundoff(rows->dtype);
        assert_within(rows, "cosine", i, row_get(rows->row[2], i, rows->dtype), cosl(angle), bound);
        assert_within(rows, "sine", i, row_get(rows->row[3], i, rows->dtype),
                      (long double)factors[1] * sinl(angle), bound);
    }
}

static void turns_are_those_of_the_angle(void **state) {
    (void)state;
    for (int times = 0; times < 8; ++times) {
        for_all_rows(check_turns);
    }
}

/* Nothing is known of the cosine of an infinite angle, or of none. */
static void turns_of_no_number_are_nan(void **state) {
    (void)state;
    static const double frequencies[] = {1, INFINITY, NAN, -1};
    for (int32_t i = 0; attni_kernel_set_at(i) != NULL; ++i) {
        double cosines[4], sines[4];
        attni_feature_kernels_of(attni_kernel_set_at(i), ATTN_DTYPE_FLOAT64)
            ->turns(cosines, sines, 2, frequencies, 4, 1, 1);
        assert_true(isnan(cosines[1]) && isnan(sines[1]) && isnan(cosines[2]) && isnan(sines[2]));
        assert_true(fabs(cosines[0] - cos(2)) <= 0x1p-51 && fabs(sines[3] + sin(2)) <= 0x1p-51);
    }
}

/* Sums that float32 cannot hold. */
static void squares_of_the_largest_numbers_are_finite(void **state) {
    (void)state;
    float largest[37];
    for (int j = 0; j < 37; ++j) {
        largest[j] = 0x1.fffffep127F;
    }
    for (int32_t i = 0; attni_kernel_set_at(i) != NULL; ++i) {
        const double sum = attni_feature_kernels_of(attni_kernel_set_at(i), ATTN_DTYPE_FLOAT32)
                               ->square_sum(largest, 37, 1);
        assert_true(sum > 36 * 0x1p255 && sum < 38 * 0x1p256);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_turned_in_place_and_apart),
        cmocka_unit_test(neighbours_are_turned_in_place_and_apart),
        cmocka_unit_test(pair_has_the_same_bits_wherever_it_stands),
        cmocka_unit_test(row_is_normalized_in_place_and_apart),
        cmocka_unit_test(squares_are_summed_in_float64),
        cmocka_unit_test(turns_are_those_of_the_angle),
        cmocka_unit_test(turns_of_no_number_are_nan),
        cmocka_unit_test(squares_of_the_largest_numbers_are_finite),
    };
    return cmocka_run_group_tests_name("feature_kernels", tests, NULL, NULL);
}
