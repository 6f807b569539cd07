/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_storage_kernels.c: numbers as they are stored, of every set of kernels and storage type:
 * every number of 16 bits widened, what lies at and beside every number and every tie narrowed,
 * rows and matrices of any layout packed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"
#include "support/half_numbers.h"

enum { MOST_COLS = 70, MOST_KEYS = 23, ALL_HALVES = 1 << 16, PART = 256 };

static void fill_stored(panel_setting *setting, void *first, int64_t rows, int64_t row_stride,
                        int64_t cols, int64_t col_stride) {
    for (int64_t i = 0; i < rows * cols; ++i) {
        const bool is_special = random_between(&setting->random, 0, 50) == 0;
        set_stored(setting, first, i / cols * row_stride + i % cols * col_stride,
                   is_special ? (double)NAN : random_real(&setting->random, -9, 9));
    }
}

/* Sign and number, or any NaN. */
static void assert_same(const panel_setting *setting, const char *what, int64_t at, double actual,
                        double expected) {
    const bool is_same =
        isnan(expected) ? isnan(actual)
                        : actual == expected && (signbit(actual) != 0) == (signbit(expected) != 0);
    if (!is_same) {
        fail_msg("%s, storage %d, %s %lld: expected %a, got %a", setting->set->name,
                 (int)setting->storage, what, (long long)at, expected, actual);
    }
}

/* ---- every number ---- */

static bool is_half_setting(const panel_setting *setting) {
    return setting->vectors == 1 && half_is(storage_dtype(setting));
}

/* Widened by vectors and, with a row of one, by what is left of them. */
static void check_all_widened(panel_setting *setting) {
    float wide[PART];
    uint16_t halves[PART];
    for (int32_t first = 0; is_half_setting(setting) && first < ALL_HALVES; first += PART) {
        for (int32_t i = 0; i < PART; ++i) {
            halves[i] = (uint16_t)(first + i);
        }
        storage_of(setting)->widen(wide, halves, 1, PART);
        for (int32_t i = 0; i < PART; ++i) {
            const double expected = half_number(storage_dtype(setting), halves[i]);
            float alone;
            storage_of(setting)->widen(&alone, &halves[i], 1, 1);
            assert_same(setting, "widened", first + i, (double)wide[i], expected);
            assert_same(setting, "widened alone", first + i, (double)alone, expected);
        }
    }
}

/* A number and its neighbours in float32, of either sign. */
static int64_t add_neighbours(double number, float *numbers, int64_t count) {
    const float middle = (float)number;
    const float all[] = {middle, nextafterf(middle, INFINITY), nextafterf(middle, -INFINITY)};
    for (int i = 0; i < 3; ++i) {
        numbers[count++] = all[i];
        numbers[count++] = -all[i];
    }
    return count;
}

static void check_narrowed(const panel_setting *setting, const float *numbers, int64_t count) {
    uint16_t halves[PART];
    assert_true(count <= PART);
    storage_of(setting)->narrow(halves, 1, numbers, count);
    for (int64_t i = 0; i < count; ++i) {
        const int32_t dtype = storage_dtype(setting);
        const uint16_t expected = half_nearest(dtype, (double)numbers[i]);
        uint16_t alone;
        storage_of(setting)->narrow(&alone, 1, &numbers[i], 1);
        assert_same(setting, "narrowed", i, half_number(dtype, halves[i]),
                    half_number(dtype, expected));
        assert_int_equal(alone, halves[i]);
    }
}

/* Every number of the type and every tie between two of them; the one behind the largest number
 * stands for what becomes infinite. */
static void check_all_narrowed(panel_setting *setting) {
    const int32_t dtype = storage_dtype(setting);
    float numbers[PART];
    int64_t count = 0;
    for (int32_t bits = 0; is_half_setting(setting) && bits < ALL_HALVES / 2; ++bits) {
        const double number = half_number(dtype, (uint16_t)bits);
        const double step = isfinite(number) ? half_step(dtype, number) : 0;
        count = add_neighbours(number, numbers, count);
        count = add_neighbours(number + step, numbers, count);
        if (count + 12 > PART) {
            check_narrowed(setting, numbers, count);
            count = 0;
        }
    }
    check_narrowed(setting, numbers, count);
}

static void all_widened(panel_setting *setting) {
    for_every_storage(setting, check_all_widened);
}

static void all_narrowed(panel_setting *setting) {
    for_every_storage(setting, check_all_narrowed);
}

static void every_number_of_16_bits_is_widened_exactly(void **state) {
    (void)state;
    for_every_panel(all_widened);
}

static void every_number_and_tie_is_narrowed_to_the_nearest_even(void **state) {
    (void)state;
    for_every_panel(all_narrowed);
}

/* ---- rows ---- */

static void check_rows_of(panel_setting *setting, int64_t n, int64_t stride) {
    begin_call(setting);
    float *wide = place_own(setting, n);
    float *sums = place_own(setting, n);
    void *from = place_stored(setting, 1, 0, n, stride);
    void *back = place_stored(setting, 1, 0, n, stride == 0 ? 1 : stride);
    const float factor = random_float(setting, -2, 2);
    fill_stored(setting, from, 1, 0, n, stride);
    for (int64_t j = 0; j < n; ++j) {
        sums[j] = 1;
    }
    storage_of(setting)->widen(wide, from, stride, n);
    storage_of(setting)->accumulate(sums, from, stride, n, factor);
    storage_of(setting)->narrow(back, stride == 0 ? 1 : stride, wide, n);
    check_guards(setting, "widen, accumulate and narrow");
    for (int64_t j = 0; j < n; ++j) {
        const float x = get_stored(setting, from, j * stride);
        assert_same(setting, "element", j, (double)wide[j], (double)x);
        assert_same(setting, "stored back", j,
                    (double)get_stored(setting, back, j * (stride == 0 ? 1 : stride)), (double)x);
        assert_within(setting, "sum", j, 0, sums[j], 1 + (double)factor * (double)x,
                      2 * FLOAT_UNIT * (1 + fabs((double)factor * (double)x)));
    }
}

static void check_rows(panel_setting *setting) {
    for (int64_t n = 0; setting->vectors == 1 && n <= MOST_COLS; ++n) {
        check_rows_of(setting, n, 1);
        check_rows_of(setting, n, 2 - n % 3 * 2); /* 2, 0, -2 */
    }
}

static void every_storage_rows(panel_setting *setting) {
    for_every_storage(setting, check_rows);
}

static void rows_of_any_length_and_stride(void **state) {
    (void)state;
    for_every_panel(every_storage_rows);
}

/* ---- pack_rows ---- */

/* Rows at some distance from one another, one for each lane; some lanes share a row. */
static void place_lanes(panel_setting *setting, int64_t cols, int64_t col_stride,
                        const void *rows[ATTNI_PANEL_LANES]) {
    const int64_t pitch = cols * (col_stride < 0 ? -col_stride : col_stride) + 3;
    char *first = place_stored(setting, setting->width, pitch, cols, col_stride);
    fill_stored(setting, first, setting->width, pitch, cols, col_stride);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const int64_t row = random_between(&setting->random, 0, setting->width - 1);
        rows[lane] = first + row * pitch * storage_of(setting)->element_bytes;
    }
}

static void check_packed_rows(panel_setting *setting, int64_t head_dim, int64_t stride) {
    const float factors[] = {1, -0.37F, 0, 1e30F};
    const float factor = factors[random_between(&setting->random, 0, 3)];
    const void *rows[ATTNI_PANEL_LANES] = {0};
    begin_call(setting);
    float *panel = place_own(setting, head_dim * setting->width);
    place_lanes(setting, head_dim, stride, rows);
    storage_of(setting)->pack_rows(panel, setting->vectors, rows, stride, head_dim, factor);
    check_guards(setting, "pack_rows");
    for (int64_t i = 0; i < setting->width * head_dim; ++i) {
        const int64_t lane = i % setting->width;
        const int64_t e = i / setting->width;
        assert_equals(setting, "query", e, lane, panel[i],
                      factor * get_stored(setting, rows[lane], e * stride));
    }
}

static void check_pack_rows(panel_setting *setting) {
    static const int64_t longer[] = {63, 64, 65, 128, 300};
    for (int64_t head_dim = 0; head_dim <= 40; ++head_dim) {
        check_packed_rows(setting, head_dim, 1);
        check_packed_rows(setting, head_dim, 2 - head_dim % 3 * 2); /* 2, 0, -2 */
    }
    for (int i = 0; i < 5; ++i) {
        check_packed_rows(setting, longer[i], 1);
    }
}

static void every_storage_pack_rows(panel_setting *setting) {
    for_every_storage(setting, check_pack_rows);
}

static void pack_rows_is_one_product_of_each_element(void **state) {
    (void)state;
    for_every_panel(every_storage_pack_rows);
}

/* ---- pack_values ---- */

static void check_packed(const panel_setting *setting, const float *packed, int64_t chunk_stride,
                         int64_t num_keys, int64_t value_dim, const void *values,
                         int64_t key_stride, int64_t col_stride) {
    const int64_t cols = setting->set->tiles->value_columns;
    const int64_t chunks = (value_dim + cols - 1) / cols;
    for (int64_t c = 0; c < chunks * cols; ++c) {
        const float *chunk = packed + c / cols * chunk_stride;
        for (int64_t j = 0; j < num_keys; ++j) {
            const float expected =
                c < value_dim ? get_stored(setting, values, j * key_stride + c * col_stride) : 0;
            assert_equals(setting, "packed", j, c, chunk[j * cols + c % cols], expected);
        }
        for (int64_t i = num_keys * cols; i < chunk_stride; ++i) {
            assert_equals(setting, "between chunks", i, c, chunk[i], NAN);
        }
    }
}

static void check_pack(panel_setting *setting) {
    for (int64_t value_dim = 0; setting->vectors == 1 && value_dim <= MOST_COLS; ++value_dim) {
        const int64_t col_strides[] = {1, 1, 2, -1, 0};
        const int64_t num_keys = random_between(&setting->random, 0, MOST_KEYS);
        const int64_t col_stride = random_of(setting, col_strides, 5);
        const int64_t key_strides[] = {value_dim, 2 * value_dim + 3, -2 * value_dim - 1, 0, 1};
        const int64_t key_stride = random_of(setting, key_strides, 5);
        const int64_t cols = setting->set->tiles->value_columns;
        const int64_t chunk_stride = (num_keys + random_between(&setting->random, 0, 2)) * cols;
        begin_call(setting);
        float *packed = place_own(setting, (value_dim + cols - 1) / cols * chunk_stride);
        void *values = place_stored(setting, num_keys, key_stride, value_dim, col_stride);
        fill_stored(setting, values, num_keys, key_stride, value_dim, col_stride);
        storage_of(setting)->pack_values(packed, chunk_stride, cols, values, key_stride, col_stride,
                                         num_keys, value_dim);
        check_guards(setting, "pack_values");
        check_packed(setting, packed, chunk_stride, num_keys, value_dim, values, key_stride,
                     col_stride);
    }
}

static void every_storage_pack(panel_setting *setting) {
    for_every_storage(setting, check_pack);
}

static void pack_values_copies_chunks_and_fills_with_0(void **state) {
    (void)state;
    for_every_panel(every_storage_pack);
}

/* ---- are_finite ---- */

static void check_finite(panel_setting *setting) {
    const double specials[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    const double largest = largest_of_dtype(storage_dtype(setting));
    for (int64_t value_dim = 0; setting->vectors == 1 && value_dim <= MOST_COLS; ++value_dim) {
        const int64_t col_strides[] = {1, 1, 2, -1};
        const int64_t col_stride = random_of(setting, col_strides, 4);
        const int64_t key_strides[] = {2 * value_dim, 2 * value_dim + 3, -2 * value_dim - 1};
        const int64_t key_stride = random_of(setting, key_strides, 3);
        const int64_t num_keys = random_between(&setting->random, 0, 7);
        begin_call(setting);
        void *values = place_stored(setting, num_keys, key_stride, value_dim, col_stride);
        for (int64_t i = 0; i < num_keys * value_dim; ++i) {
            set_stored(setting, values, i / value_dim * key_stride + i % value_dim * col_stride,
                       i % 2 == 0 ? largest : -largest);
        }
        bool (*are_finite)(const void *, int64_t, int64_t, int64_t, int64_t) =
            storage_of(setting)->are_finite;
        assert_true(are_finite(values, key_stride, col_stride, num_keys, value_dim));
        for (int64_t i = 0; i < num_keys * value_dim; ++i) {
            const int64_t at = i / value_dim * key_stride + i % value_dim * col_stride;
            set_stored(setting, values, at, specials[i % 3]);
            assert_false(are_finite(values, key_stride, col_stride, num_keys, value_dim));
            set_stored(setting, values, at, 1);
        }
        check_guards(setting, "are_finite");
    }
}

static void every_storage_finite(panel_setting *setting) {
    for_every_storage(setting, check_finite);
}

static void are_finite_finds_nan_and_infinity_at_every_place(void **state) {
    (void)state;
    for_every_panel(every_storage_finite);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_16_bits_is_widened_exactly),
        cmocka_unit_test(every_number_and_tie_is_narrowed_to_the_nearest_even),
        cmocka_unit_test(rows_of_any_length_and_stride),
        cmocka_unit_test(pack_rows_is_one_product_of_each_element),
        cmocka_unit_test(pack_values_copies_chunks_and_fills_with_0),
        cmocka_unit_test(are_finite_finds_nan_and_infinity_at_every_place),
    };
    return cmocka_run_group_tests_name("storage_kernels", tests, NULL, NULL);
}
