/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_kv_append_quantized.c: what a quantised cache holds after attn_kv_append: scales and zeros
 * that new rows bring, elements within half a step of the numbers, in every kind of cache; and
 * what becomes of zeroes, NaN, infinities and numbers that a given scale cannot hold.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/half_numbers.h"
#include "support/oracle_tensor.h"
#include "support/random_tensor.h"

enum { B = 2, H = 2, C = 8, L = 3, E = 192, PAGE = 4, BLOCKS = 6 };

/* New rows are the last L of these. */
static const int64_t lengths_of[B] = {3, 8};

typedef enum place { CACHES, BEHIND, PAGED } place;

typedef struct element_type {
    int32_t dtype;
    double lowest, highest, largest;
} element_type;

static const element_type types[] = {{ATTN_DTYPE_INT8, -127, 127, 127},
                                     {ATTN_DTYPE_UINT8, 0, 255, 127},
                                     {ATTN_DTYPE_INT4X2, -7, 7, 7},
                                     {ATTN_DTYPE_UINT4X2, 0, 15, 7}};
static const int32_t scale_types[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16};
static const int32_t row_types[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16,
                                    ATTN_DTYPE_FLOAT64};

/* One call; keys and values are the same rows. */
typedef struct append_setup {
    tensor_pool pool;
    random_state random;
    place place;
    attn_tensor *rows, *cached[2], *scale[2], *zero[2], *lengths;
    attn_kv kv;
} append_setup;

static void index_of(const append_setup *setup, int64_t b, int64_t h, int64_t row, int64_t col,
                     int64_t index[4]) {
    static const int64_t pages[B][2] = {{3, 0}, {1, 4}};
    const int64_t at[] = {b, h, row, col};
    const int64_t joined[] = {h, b * C + row, col, 0};
    memcpy(index, setup->place == BEHIND ? joined : at, sizeof at);
    if (setup->place == PAGED) {
        index[0] = pages[b][row / PAGE];
        index[2] = row % PAGE;
    }
}

static attn_tensor *add_rows(append_setup *setup, int32_t dtype, int64_t cols,
                             enum tensor_layout layout) {
    const int64_t caches[] = {B, H, C, cols}, behind[] = {H, B * C, cols},
                  pages[] = {5, H, PAGE, cols};
    return setup->place == CACHES   ? pool_output(&setup->pool, dtype, 4, caches, layout)
           : setup->place == BEHIND ? pool_output(&setup->pool, dtype, 3, behind, layout)
                                    : pool_output(&setup->pool, dtype, 4, pages, layout);
}

static void add_places(append_setup *setup) {
    static const int64_t table[B][2] = {{3, 0}, {1, 4}};
    const int64_t batch = B, past = B + 1, pages[] = {B, 2};
    setup->lengths = pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &batch, 0);
    for (int64_t b = 0; b < B; ++b) {
        oracle_store_integer(setup->lengths, &b, lengths_of[b]);
    }
    setup->kv.struct_size = sizeof setup->kv;
    setup->kv.lengths = setup->lengths;
    if (setup->place == BEHIND) {
        attn_tensor *starts = pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &past, 0);
        for (int64_t b = 0; b <= B; ++b) {
            oracle_store_integer(starts, &b, b * C);
        }
        setup->kv.starts = starts;
    } else if (setup->place == PAGED) {
        attn_tensor *entries = pool_input(&setup->pool, ATTN_DTYPE_INT64, 2, pages, 0);
        for (int64_t i = 0; i < 4; ++i) {
            const int64_t at[] = {i / 2, i % 2};
            oracle_store_integer(entries, at, table[i / 2][i % 2]);
        }
        setup->kv.page_table = entries;
    }
}

/* `cols` scales for each row; 0: none. */
static void set_up(append_setup *setup, place where, int32_t dtype, int32_t scale_dtype,
                   int64_t cols, int has_zero, int32_t row_dtype, enum tensor_layout layout,
                   uint64_t seed) {
    const int64_t shape[] = {B, H, L, E};
    memset(setup, 0, sizeof *setup);
    setup->place = where;
    setup->random = random_seeded(seed);
    setup->rows = pool_input(&setup->pool, row_dtype, 4, shape, layout);
    random_fill(setup->rows, &setup->random, -2, 3, 0);
    add_places(setup);
    for (int part = 0; part < 2; ++part) {
        setup->cached[part] = add_rows(setup, dtype, E / attn_dtype_values(dtype), layout);
        setup->scale[part] = cols > 0 ? add_rows(setup, scale_dtype, cols, layout) : NULL;
        setup->zero[part] = has_zero ? add_rows(setup, scale_dtype, cols, layout) : NULL;
    }
    setup->kv.key = setup->cached[0];
    setup->kv.value = setup->cached[1];
    setup->kv.key_scale = setup->scale[0];
    setup->kv.value_scale = setup->scale[1];
    setup->kv.key_zero = setup->zero[0];
    setup->kv.value_zero = setup->zero[1];
}

static void run(append_setup *setup) {
    char message[200];
    pool_begin(&setup->pool);
    if (attn_kv_append(NULL, &setup->kv, setup->rows, setup->rows, NULL) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    if (pool_check(&setup->pool, message, sizeof message) != 0) {
        fail_msg("%s", message);
    }
}

static int level_of(const attn_tensor *tensor, const int64_t *index) {
    int64_t element[4];
    const int32_t values = attn_dtype_values(tensor->dtype);
    const int64_t last = index[tensor->rank - 1];
    memcpy(element, index, sizeof element);
    element[tensor->rank - 1] = last / values;
    const unsigned char *at = oracle_address(tensor, element);
    const int half = last % 2 == 0 ? *at & 15 : *at >> 4;
    switch (tensor->dtype) {
    case ATTN_DTYPE_INT8:
        return (signed char)*at;
    case ATTN_DTYPE_UINT8:
        return *at;
    case ATTN_DTYPE_INT4X2:
        return half < 8 ? half : half - 16;
    default:
        return half;
    }
}

static double number_of(const append_setup *setup, const attn_tensor *numbers, int64_t b, int64_t h,
                        int64_t row, int64_t col) {
    int64_t index[4];
    const int64_t cols = numbers->shape[numbers->rank - 1];
    index_of(setup, b, h, row, col / (E / cols), index);
    return oracle_element(numbers, index);
}

/* The extremes, 0 among them, of a block of a new row as float32. */
static void extremes_of(const append_setup *setup, int64_t b, int64_t h, int64_t i, int64_t first,
                        int64_t count, double *lowest, double *highest) {
    *lowest = 0;
    *highest = 0;
    for (int64_t col = first; col < first + count; ++col) {
        const int64_t at[] = {b, h, i, col};
        *lowest = fmin(*lowest, (double)(float)oracle_element(setup->rows, at));
        *highest = fmax(*highest, (double)(float)oracle_element(setup->rows, at));
    }
}

/* A scale that was written is the exact one, rounded up to the next number of its type. */
static void assert_scale(const append_setup *setup, const element_type *type, int64_t b, int64_t h,
                         int64_t i, int64_t col, double scale) {
    const attn_tensor *scales = setup->scale[0];
    const int64_t width = E / scales->shape[scales->rank - 1];
    double lowest, highest;
    extremes_of(setup, b, h, i, col / width * width, width, &lowest, &highest);
    const double exact = setup->zero[0] != NULL
                             ? (highest - lowest) / (type->highest - type->lowest)
                             : fmax(highest, -lowest) / type->largest;
    const double unit = scales->dtype == ATTN_DTYPE_FLOAT32    ? 0x1p-23
                        : scales->dtype == ATTN_DTYPE_BFLOAT16 ? 0x1p-7
                                                               : 0x1p-10;
    assert_true(scale >= exact && scale <= exact * (1 + unit));
}

/* Every stored number is half a scale off at most, beside the rounding of (element - zero) * scale;
 * their mean is what that of as many uniform errors is. */
static void assert_stored(const append_setup *setup, const element_type *type, int part) {
    double sum = 0, scales = 0;
    int64_t count = 0;
    for (int64_t n = 0; n < B * H * L * E; ++n) {
        const int64_t col = n % E, i = n / E % L, h = n / E / L % H, b = n / E / L / H;
        const int64_t row = lengths_of[b] - L + i, at[] = {b, h, i, col};
        const double exact = (double)(float)oracle_element(setup->rows, at);
        int64_t index[4];
        index_of(setup, b, h, row, col, index);
        const double scale = number_of(setup, setup->scale[part], b, h, row, col);
        const double middle = type->dtype == ATTN_DTYPE_UINT8     ? 128
                              : type->dtype == ATTN_DTYPE_UINT4X2 ? 8
                                                                  : 0;
        const double zero = setup->zero[part] != NULL
                                ? number_of(setup, setup->zero[part], b, h, row, col)
                                : middle;
        const int level = level_of(setup->cached[part], index);
        assert_scale(setup, type, b, h, i, col, scale);
        assert_true(level >= type->lowest && level <= type->highest);
        assert_true(zero == rint(zero) && zero >= type->lowest && zero <= type->highest);
        const double error = (level - zero) * scale - exact;
        if (fabs(error) > scale / 2 * (1 + 0x1p-40)) {
            fail_msg("part %d, row %lld, column %lld: %.9g became %.9g with scale %.9g", part,
                     (long long)row, (long long)col, exact, exact + error, scale);
        }
        sum += error / scale;
        scales += scale;
        ++count;
    }
    assert_true(scales > 0);
    assert_true(fabs(sum) <= 6 * sqrt((double)count / 12));
}

static void elements_are_the_nearest_to_the_numbers(void **state) {
    static append_setup setup;
    static const int64_t cols_of[] = {1, 3, BLOCKS};
    uint64_t seed = 1;
    (void)state;
    for (int type = 0; type < 4; ++type) {
        for (int n = 0; n < 3 * 3 * 2 * 4; ++n) {
            const int32_t scale_dtype = scale_types[n % 3], row_dtype = row_types[n / 18];
            const place where = (place)(n / 3 % 3);
            const int64_t cols = cols_of[(n + type) % 3];
            set_up(&setup, where, types[type].dtype, scale_dtype, cols, n / 9 % 2, row_dtype,
                   (enum tensor_layout)(seed % LAYOUT_NUM_OUTPUT), seed);
            run(&setup);
            assert_stored(&setup, &types[type], 0);
            assert_stored(&setup, &types[type], 1);
            pool_destroy(&setup.pool);
            ++seed;
        }
    }
}

/* ---- numbers that have no scale ---- */

static void set_row(append_setup *setup, int64_t i, double number) {
    for (int64_t n = 0; n < B * H * E; ++n) {
        const int64_t at[] = {n / E / H, n / E % H, i, n % E};
        oracle_store(setup->rows, at, number);
    }
}

static void zeroes_and_what_is_not_finite_are_told_by_the_scale(void **state) {
    static append_setup setup;
    (void)state;
    for (int type = 0; type < 4; ++type) {
        for (int has_zero = 0; has_zero < 2; ++has_zero) {
            set_up(&setup, CACHES, types[type].dtype, ATTN_DTYPE_FLOAT16, 1, has_zero,
                   ATTN_DTYPE_FLOAT32, LAYOUT_CONTIGUOUS, 1);
            set_row(&setup, 0, 0);
            const int64_t infinite[] = {0, 0, 1, 5}, nan[] = {1, 0, 1, E - 1};
            const int64_t tiny[] = {0, 0, 2, 0};
            oracle_store(setup.rows, infinite, -INFINITY);
            oracle_store(setup.rows, nan, NAN);
            set_row(&setup, 2, 0);
            oracle_store(setup.rows, tiny, 1e-40); /* scale: the smallest float16 */
            run(&setup);
            const int64_t middle = types[type].dtype == ATTN_DTYPE_UINT8     ? 128
                                   : types[type].dtype == ATTN_DTYPE_UINT4X2 ? 8
                                                                             : 0;
            for (int64_t col = 0; col < E; ++col) {
                const int64_t zeroes[] = {0, 0, 0, col};
                const double zero =
                    has_zero ? number_of(&setup, setup.zero[0], 0, 0, 0, 0) : (double)middle;
                assert_true(level_of(setup.cached[0], zeroes) == zero);
            }
            assert_true(number_of(&setup, setup.scale[0], 0, 0, 0, 0) == 0);
            assert_true(isnan(number_of(&setup, setup.scale[0], 0, 0, 1, 0)));
            assert_true(isnan(number_of(&setup, setup.scale[0], 1, 0, 6, 0)));
            assert_false(isnan(number_of(&setup, setup.scale[0], 1, 1, 6, 0)));
            assert_true(number_of(&setup, setup.scale[0], 0, 0, 2, 0) == 0x1p-24);
            pool_destroy(&setup.pool);
        }
    }
}

/* ---- scales that are read ---- */

static void a_given_scale_is_read(void **state) {
    enum { COUNT = 8 };
    static const float rows[COUNT] = {0.25F, 0.75F, -1.25F, 1000, -1000, INFINITY, -INFINITY, NAN};
    static const int expected[4][2][COUNT] = {
        {{0, 2, -2, 127, -127, 127, -127, 0}, {2, 2, -2, 127, -127, 127, -127, 1}},
        {{128, 130, 126, 255, 0, 255, 0, 128}, {2, 2, 0, 255, 0, 255, 0, 1}},
        {{0, 2, -2, 7, -7, 7, -7, 0}, {2, 2, -2, 7, -7, 7, -7, 1}},
        {{8, 10, 6, 15, 0, 15, 0, 8}, {2, 2, 0, 15, 0, 15, 0, 1}}};
    const int64_t row[] = {1, 1, 1, COUNT}, batch[] = {1}, one[] = {1, 1, 1, 1};
    static int64_t length[] = {2};
    (void)state;
    for (int type = 0; type < 4; ++type) {
        for (int has_zero = 0; has_zero < 2; ++has_zero) {
            unsigned char memory[2 * COUNT] = {0};
            float half = 0.5F, zero = 1;
            const int64_t cached[] = {1, 1, 2, COUNT / attn_dtype_values(types[type].dtype)};
            attn_tensor new_row, cache, scale, zeros, lengths;
            assert_int_equal(
                attn_tensor_init(&new_row, (void *)(uintptr_t)rows, ATTN_DTYPE_FLOAT32, 4, row),
                ATTN_OK);
            assert_int_equal(attn_tensor_init(&cache, memory, types[type].dtype, 4, cached),
                             ATTN_OK);
            assert_int_equal(attn_tensor_init(&scale, &half, ATTN_DTYPE_FLOAT32, 4, one), ATTN_OK);
            assert_int_equal(attn_tensor_init(&zeros, &zero, ATTN_DTYPE_FLOAT32, 4, one), ATTN_OK);
            assert_int_equal(attn_tensor_init(&lengths, length, ATTN_DTYPE_INT64, 1, batch),
                             ATTN_OK);
            attn_tensor other = cache;
            unsigned char other_memory[2 * COUNT] = {0};
            other.data = other_memory;
            const attn_kv kv = {.struct_size = sizeof kv,
                                .key = &cache,
                                .value = &other,
                                .lengths = &lengths,
                                .key_scale = &scale,
                                .key_zero = has_zero ? &zeros : NULL};
            assert_int_equal(attn_kv_append(NULL, &kv, &new_row, &new_row, NULL), ATTN_OK);
            for (int64_t col = 0; col < COUNT; ++col) {
                const int64_t at[] = {0, 0, 1, col};
                assert_int_equal(level_of(&cache, at), expected[type][has_zero][col]);
            }
            assert_true(half == 0.5F && zero == 1);
        }
    }
}

/* ---- ggml's blocks ---- */

/* quantize_row_q8_0_ref of ggml. */
static void q8_0_of(const float *numbers, unsigned char *block) {
    float most = 0;
    for (int i = 0; i < 32; ++i) {
        most = fmaxf(most, fabsf(numbers[i]));
    }
    const float scale = most / 127;
    const float inverse = scale != 0 ? 1 / scale : 0;
    const uint16_t half = half_nearest(ATTN_DTYPE_FLOAT16, scale);
    memcpy(block, &half, sizeof half);
    for (int i = 0; i < 32; ++i) {
        block[2 + i] = (unsigned char)(signed char)roundf(numbers[i] * inverse);
    }
}

static void q8_0_is_ggmls(void **state) {
    static append_setup setup;
    (void)state;
    for (int n = 0; n < 12; ++n) {
        set_up(&setup, (place)(n % 3), ATTN_DTYPE_Q8_0, 0, 0, 0, row_types[n / 3],
               (enum tensor_layout)(n % LAYOUT_NUM_OUTPUT), (uint64_t)n);
        if (n == 5) {
            set_row(&setup, 1, 0);
        }
        run(&setup);
        for (int64_t at = 0; at < B * H * L * BLOCKS; ++at) {
            const int64_t block = at % BLOCKS, i = at / BLOCKS % L, h = at / BLOCKS / L % H,
                          b = at / BLOCKS / L / H;
            float numbers[32];
            unsigned char expected[34];
            int64_t index[4];
            for (int64_t e = 0; e < 32; ++e) {
                const int64_t source[] = {b, h, i, block * 32 + e};
                numbers[e] = (float)oracle_element(setup.rows, source);
            }
            q8_0_of(numbers, expected);
            index_of(&setup, b, h, lengths_of[b] - L + i, block, index);
            assert_memory_equal(oracle_address(setup.cached[0], index), expected, sizeof expected);
        }
        pool_destroy(&setup.pool);
    }
}

static void q8_0_of_what_is_not_finite_is_nan(void **state) {
    static append_setup setup;
    static const double numbers[] = {NAN, INFINITY, -INFINITY};
    (void)state;
    for (int n = 0; n < 3; ++n) {
        set_up(&setup, CACHES, ATTN_DTYPE_Q8_0, 0, 0, 0, ATTN_DTYPE_FLOAT32, LAYOUT_CONTIGUOUS, 1);
        const int64_t at[] = {0, 1, 0, 40}, block[] = {0, 1, 0, 1};
        oracle_store(setup.rows, at, numbers[n]);
        run(&setup);
        uint16_t scale;
        memcpy(&scale, oracle_address(setup.cached[0], block), sizeof scale);
        assert_true(isnan(half_number(ATTN_DTYPE_FLOAT16, scale)));
        pool_destroy(&setup.pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements_are_the_nearest_to_the_numbers),
        cmocka_unit_test(zeroes_and_what_is_not_finite_are_told_by_the_scale),
        cmocka_unit_test(a_given_scale_is_read),
        cmocka_unit_test(q8_0_is_ggmls),
        cmocka_unit_test(q8_0_of_what_is_not_finite_is_nan),
    };
    return cmocka_run_group_tests_name("kv_append_quantized", tests, NULL, NULL);
}
