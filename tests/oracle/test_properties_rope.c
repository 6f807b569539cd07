/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_rope.c: what holds for every rotation by position: it can be undone, scores
 * depend on distances, and a row's bits on nothing but the row.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/half_numbers.h"
#include "support/oracle_rope.h"
#include "support/oracle_tensor.h"

enum { BATCHES = 3, HEADS = 4, ROWS = 137, FEATURES = 66, DIM = 48 };
static const int64_t shape[] = {BATCHES, HEADS, ROWS, FEATURES};
static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                 ATTN_DTYPE_FLOAT16};
enum { NUM_DTYPES = 4 };

typedef struct rope_setup {
    tensor_pool pool;
    attn_tensor *input, *output, *other;
    random_state random;
} rope_setup;

static void setup_create(rope_setup *setup, int32_t dtype, uint64_t seed) {
    *setup = (rope_setup){.random = random_seeded(seed)};
    setup->input = pool_input(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    setup->output = pool_output(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    setup->other = pool_output(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    random_fill(setup->input, &setup->random, -1, 1, 0);
}

static attn_tensor *indices(rope_setup *setup, int32_t rank, const int64_t *axes) {
    return pool_input(&setup->pool, ATTN_DTYPE_INT64, rank, axes, LAYOUT_CONTIGUOUS);
}

/* No options, positions, and lengths that say the same. */
static void rows_are_counted_without_positions(void **state) {
    (void)state;
    static const int64_t rows[] = {ROWS};
    for (int d = 0; d < NUM_DTYPES; ++d) {
        rope_setup setup;
        setup_create(&setup, dtypes[d], 11);
        attn_tensor *positions = indices(&setup, 1, rows), *length = indices(&setup, 0, NULL);
        attn_rope_params params = {.struct_size = sizeof params};
        for (int64_t shift = 0; shift < 1000; shift += 999) {
            for (int64_t i = 0; i < ROWS; ++i) {
                oracle_store_integer(positions, &i, i + shift);
            }
            oracle_store_integer(length, NULL, ROWS + shift);
            params.positions = positions;
            params.lengths = NULL;
            assert_ok(attn_rope(NULL, setup.input, &params, setup.output));
            params.positions = NULL;
            params.lengths = length;
            assert_ok(attn_rope(NULL, setup.input, &params, setup.other));
            assert_same_bits("lengths", setup.other, setup.output);
            if (shift == 0) {
                assert_ok(attn_rope(NULL, setup.input, NULL, setup.other));
                assert_same_bits("default", setup.other, setup.output);
            }
        }
        pool_destroy(&setup.pool);
    }
}

/* Products of these positions and frequencies are exact, so that reducing them is all that could go
 * wrong. */
static void far_positions_are_reduced_exactly(void **state) {
    (void)state;
    static const int64_t places[] = {
        INT64_C(1) << 53, -(INT64_C(1) << 53), (INT64_C(1) << 53) - 1, 123456789012345, -7,
        1000003};
    static const double turns[] = {1, 0.5, 0x1p-20, 1024};
    const int64_t rows[] = {6}, pairs[] = {4}, axes[] = {6, 8};
    for (int d = 0; d < 2; ++d) {
        random_state random = random_seeded(12);
        tensor_pool pool = {0};
        attn_tensor *input = pool_input(&pool, dtypes[d], 2, axes, LAYOUT_CONTIGUOUS);
        attn_tensor *output = pool_output(&pool, dtypes[d], 2, axes, LAYOUT_CONTIGUOUS);
        attn_tensor *positions = pool_input(&pool, ATTN_DTYPE_INT64, 1, rows, LAYOUT_CONTIGUOUS);
        attn_tensor *frequencies = pool_input(&pool, ATTN_DTYPE_FLOAT32, 1, pairs, LAYOUT_REVERSED);
        random_fill(input, &random, -1, 1, 0);
        for (int64_t i = 0; i < 6; ++i) {
            oracle_store_integer(positions, &i, places[i]);
        }
        for (int64_t i = 0; i < 4; ++i) {
            oracle_store(frequencies, &i, turns[i]);
        }
        const attn_rope_params params = {
            .struct_size = sizeof params, .frequencies = frequencies, .positions = positions};
        assert_ok(attn_rope(NULL, input, &params, output));
        for (int64_t at = 0; at < 24; ++at) {
            const int64_t first[] = {at / 4, at % 4}, second[] = {at / 4, at % 4 + 4};
            const double x = oracle_element(input, first), y = oracle_element(input, second);
            const long double angle = (long double)places[at / 4] * (long double)turns[at % 4];
            const long double expected =
                (long double)x * cosl(angle) - (long double)y * sinl(angle);
            const double bound =
                (5 * bound_rounding_of(dtypes[d]).unit + 0x1p-51) * (fabs(x) + fabs(y));
            assert_true(fabsl((long double)oracle_element(output, first) - expected) <=
                        (long double)bound);
        }
        pool_destroy(&pool);
    }
}

/* With |x|, |y| <= 1 a rotated pair is at most sqrt(2) long. By the header's bound a rotation adds
 * at most 5 sqrt(2) u + 2 (d + 2^-51) to each of the pair, which the inverse turns as it turns the
 * pair, and the inverse adds the same times sqrt(2). */
static void inverse_undoes_the_rotation(void **state) {
    (void)state;
    for (int which = 0; which < 2 * NUM_DTYPES; ++which) {
        const int32_t dtype = dtypes[which / 2];
        rope_setup setup;
        setup_create(&setup, dtype, 13);
        attn_rope_params params = {
            .struct_size = sizeof params, .rotary_dim = DIM, .interleaved = which % 2};
        const double angle_error = (6 + log(10000)) * 0x1p-53 * ROWS + 0x1p-51;
        const double each = 5 * sqrt(2) * bound_rounding_of(dtype).unit + 2 * angle_error +
                            (half_is(dtype) ? half_step(dtype, 1.5) : 0);
        assert_ok(attn_rope(NULL, setup.input, &params, setup.output));
        params.inverse = 1;
        assert_ok(attn_rope(NULL, setup.output, &params, setup.other));
        int64_t index[4] = {0};
        do {
            const double before = oracle_element(setup.input, index);
            const double after = oracle_element(setup.other, index);
            assert_true(fabs(after - before) <= 2 * sqrt(2) * each);
            assert_true(index[3] < DIM || after == before);
        } while (oracle_next_index(4, shape, index));
        pool_destroy(&setup.pool);
    }
}

static double dot(const attn_tensor *a, const attn_tensor *b, int64_t row_of_a, int64_t row_of_b) {
    double sum = 0;
    for (int64_t e = 0; e < FEATURES; ++e) {
        const int64_t left[] = {0, 0, row_of_a, e}, right[] = {0, 0, row_of_b, e};
        sum += oracle_element(a, left) * oracle_element(b, right);
    }
    return sum;
}

/* One query and one key at many pairs of positions, the same distance apart: their rows repeat. */
static void scores_depend_on_the_distance_alone(void **state) {
    (void)state;
    static const int64_t query_axes[] = {1, 1, ROWS, FEATURES}, rows[] = {ROWS};
    enum { DISTANCE = 23, STEP = 101 };
    for (int interleaved = 0; interleaved < 2; ++interleaved) {
        tensor_pool pool = {0};
        random_state random = random_seeded(14);
        attn_tensor *tensors[2], *rotated[2];
        attn_rope_params params = {.struct_size = sizeof params, .interleaved = interleaved};
        for (int i = 0; i < 2; ++i) {
            attn_tensor *positions =
                pool_input(&pool, ATTN_DTYPE_INT64, 1, rows, LAYOUT_CONTIGUOUS);
            for (int64_t row = 0; row < ROWS; ++row) {
                oracle_store_integer(positions, &row, row * STEP + i * DISTANCE);
            }
            tensors[i] = pool_input(&pool, ATTN_DTYPE_FLOAT64, 4, query_axes, LAYOUT_REPEATED_ROWS);
            random_fill(tensors[i], &random, -1, 1, 0);
            rotated[i] = pool_output(&pool, ATTN_DTYPE_FLOAT64, 4, query_axes, LAYOUT_CONTIGUOUS);
            params.positions = positions;
            assert_ok(attn_rope(NULL, tensors[i], &params, rotated[i]));
        }
        /* Each feature of both is off by `each` at most and below sqrt(2). */
        const double angle = ROWS * STEP + DISTANCE;
        const double each =
            5 * sqrt(2) * 0x1p-53 + 2 * ((4 + log(10000)) * 0x1p-53 * angle + 0x1p-51);
        const double bound = FEATURES * (2 * sqrt(2) * each + 2 * (FEATURES + 4) * 0x1p-53);
        const double score = dot(rotated[0], rotated[1], 0, 0);
        for (int64_t row = 1; row < ROWS; ++row) {
            assert_true(fabs(dot(rotated[0], rotated[1], row, row) - score) <= 2 * bound);
        }
        assert_true(fabs(dot(rotated[0], rotated[1], 1, 2) - score) > 1e-6);
        pool_destroy(&pool);
    }
}

/* All at once on three threads, from the last item to the first, and each row alone on one. */
static void row_has_the_same_bits_alone(void **state) {
    (void)state;
    static const int64_t axes[] = {BATCHES, ROWS};
    attn_context *three = native_context(3), *one = native_context(1);
    for (int d = 0; d < NUM_DTYPES; ++d) {
        rope_setup setup;
        setup_create(&setup, dtypes[d], 15);
        attn_tensor *positions = indices(&setup, 2, axes);
        random_fill_integers(positions, &setup.random, -5000, 5000);
        attn_rope_params params = {
            .struct_size = sizeof params, .rotary_dim = DIM, .positions = positions};
        assert_ok(attn_rope(three, setup.input, &params, setup.output));
        for (int64_t row = 0; row < BATCHES * HEADS * ROWS; ++row) {
            const int64_t place[] = {row / ROWS / HEADS, row % ROWS};
            const int64_t index[] = {place[0], row / ROWS % HEADS, place[1], 0};
            const int64_t alone[] = {1, FEATURES};
            attn_tensor from, to, position;
            assert_ok(
                attn_tensor_init(&from, oracle_address(setup.input, index), dtypes[d], 2, alone));
            assert_ok(
                attn_tensor_init(&to, oracle_address(setup.other, index), dtypes[d], 2, alone));
            assert_ok(attn_tensor_init(&position, oracle_address(positions, place),
                                       ATTN_DTYPE_INT64, 1, alone));
            params.positions = &position;
            assert_ok(attn_rope(one, &from, &params, &to));
        }
        assert_same_bits("rows alone", setup.other, setup.output);
        pool_destroy(&setup.pool);
    }
    attn_context_destroy(three);
    attn_context_destroy(one);
}

/* Of each batch, or of all, are cosines, sines, both: what tells batches apart may be either. */
static void either_table_may_differ_between_batches(void **state) {
    (void)state;
    static const int64_t shapes[2][3] = {{1, ROWS, DIM / 2}, {BATCHES, 1, DIM / 2}};
    for (int which = 0; which < 4; ++which) {
        rope_setup setup;
        setup_create(&setup, ATTN_DTYPE_FLOAT32, 19);
        attn_tensor *cosines =
            pool_input(&setup.pool, ATTN_DTYPE_BFLOAT16, 3, shapes[which % 2], LAYOUT_CONTIGUOUS);
        attn_tensor *sines =
            pool_input(&setup.pool, ATTN_DTYPE_FLOAT32, 3, shapes[which / 2], LAYOUT_CONTIGUOUS);
        random_fill(cosines, &setup.random, -1, 1, 0);
        random_fill(sines, &setup.random, -1, 1, 0);
        const attn_rope_params params = {
            .struct_size = sizeof params, .rotary_dim = DIM, .cos = cosines, .sin = sines};
        assert_ok(attn_rope(NULL, setup.input, &params, setup.output));
        oracle_array expected = oracle_rope(setup.input, &params);
        assert_close("output", setup.output, &expected);
        oracle_array_destroy(&expected);
        pool_destroy(&setup.pool);
    }
}

static void layout_leaves_no_bit(void **state) {
    (void)state;
    for (int which = 0; which < NUM_DTYPES * LAYOUT_NUM_OUTPUT; ++which) {
        const int32_t dtype = dtypes[which % NUM_DTYPES];
        const enum tensor_layout layout = (enum tensor_layout)(which / NUM_DTYPES);
        rope_setup setup;
        setup_create(&setup, dtype, 18);
        attn_tensor *input = pool_input(&setup.pool, dtype, 4, shape, layout);
        attn_tensor *output = pool_output(&setup.pool, dtype, 4, shape, layout);
        int64_t index[4] = {0};
        do {
            oracle_store(input, index, oracle_element(setup.input, index));
        } while (oracle_next_index(4, shape, index));
        const attn_rope_params params = {
            .struct_size = sizeof params, .rotary_dim = DIM, .interleaved = which % 3 == 0};
        assert_ok(attn_rope(NULL, setup.input, &params, setup.output));
        assert_ok(attn_rope(NULL, input, &params, output));
        assert_same_bits(tensor_layout_names[layout], output, setup.output);
        pool_destroy(&setup.pool);
    }
}

/* More planes than an item takes, of one position each: as in decoding for many. */
static void many_planes_are_those_of_one(void **state) {
    (void)state;
    enum { MANY = 5000, SMALL = 8 };
    const int64_t axes[] = {MANY, 2, 1, SMALL}, one[] = {SMALL};
    tensor_pool pool = {0};
    random_state random = random_seeded(16);
    attn_context *context = native_context(2);
    attn_tensor *input = pool_input(&pool, ATTN_DTYPE_FLOAT32, 4, axes, LAYOUT_REPEATED_FIRST);
    attn_tensor *output = pool_output(&pool, ATTN_DTYPE_FLOAT32, 4, axes, LAYOUT_CONTIGUOUS);
    attn_tensor *length = pool_input(&pool, ATTN_DTYPE_INT64, 0, one, LAYOUT_CONTIGUOUS);
    random_fill(input, &random, -1, 1, 0);
    oracle_store_integer(length, NULL, 4097);
    const attn_rope_params params = {.struct_size = sizeof params, .lengths = length};
    assert_ok(attn_rope(context, input, &params, output));
    oracle_array expected = oracle_rope(input, &params);
    assert_close("output", output, &expected);
    for (int64_t plane = 1; plane < MANY; ++plane) {
        const int64_t index[] = {plane, 0, 0, 0};
        assert_memory_equal(oracle_address(output, index), output->data, 2 * SMALL * sizeof(float));
    }
    oracle_array_destroy(&expected);
    attn_context_destroy(context);
    pool_destroy(&pool);
}

/* Features from R on are copied, whatever their bits say. */
static void features_that_are_not_rotated_keep_their_bits(void **state) {
    (void)state;
    for (int d = 0; d < NUM_DTYPES; ++d) {
        rope_setup setup;
        setup_create(&setup, dtypes[d], 17);
        const size_t bytes = attn_dtype_size_bytes(dtypes[d]);
        unsigned char *data = setup.input->data;
        for (size_t i = 0; i < BATCHES * HEADS * ROWS * FEATURES * bytes; ++i) {
            data[i] = (unsigned char)random_bits(&setup.random);
        }
        const attn_rope_params params = {.struct_size = sizeof params, .rotary_dim = DIM};
        assert_ok(attn_rope(NULL, setup.input, &params, setup.output));
        for (size_t row = 0; row < BATCHES * HEADS * ROWS; ++row) {
            const size_t first = (row * FEATURES + DIM) * bytes;
            assert_memory_equal((char *)setup.output->data + first, data + first,
                                (FEATURES - DIM) * bytes);
        }
        pool_destroy(&setup.pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_counted_without_positions),
        cmocka_unit_test(far_positions_are_reduced_exactly),
        cmocka_unit_test(inverse_undoes_the_rotation),
        cmocka_unit_test(scores_depend_on_the_distance_alone),
        cmocka_unit_test(row_has_the_same_bits_alone),
        cmocka_unit_test(either_table_may_differ_between_batches),
        cmocka_unit_test(layout_leaves_no_bit),
        cmocka_unit_test(many_planes_are_those_of_one),
        cmocka_unit_test(features_that_are_not_rotated_keep_their_bits),
    };
    return cmocka_run_group_tests_name("properties of rope", tests, NULL, NULL);
}
