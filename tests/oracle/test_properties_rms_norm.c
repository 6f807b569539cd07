/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_rms_norm.c: what holds for every RMS normalisation: powers of 2 do not show,
 * an offset is an addition, and a row's bits depend on nothing but the row.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { ROWS = 300, FEATURES = 1101 }; /* enough for threads; more features than one copy takes */
static const int64_t shape[] = {ROWS, FEATURES};
static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                 ATTN_DTYPE_FLOAT16};
enum { NUM_DTYPES = 4 };

typedef struct norm_setup {
    tensor_pool pool;
    attn_tensor *input, *output, *other;
    random_state random;
} norm_setup;

static void setup_create(norm_setup *setup, int32_t dtype, uint64_t seed) {
    *setup = (norm_setup){.random = random_seeded(seed)};
    setup->input = pool_input(&setup->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    setup->output = pool_output(&setup->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    setup->other = pool_output(&setup->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    random_fill(setup->input, &setup->random, -1, 1, 0x1p-7);
}

/* output(2^k x, 4^k epsilon) = output(x, epsilon): no rounding differs, though squares would
 * overflow or vanish. */
static void powers_of_two_leave_no_bit(void **state) {
    (void)state;
    static const int ranges[NUM_DTYPES] = {120, 530, 120, 8};
    static const double epsilon = 0x1p-20;
    for (int d = 0; d < NUM_DTYPES; ++d) {
        norm_setup setup;
        setup_create(&setup, dtypes[d], 21);
        attn_tensor *scaled = pool_input(&setup.pool, dtypes[d], 2, shape, LAYOUT_STEP_TWO);
        attn_rms_norm_params params = {.struct_size = sizeof params, .epsilon = epsilon};
        assert_ok(attn_rms_norm(NULL, setup.input, &params, setup.output));
        for (int k = -ranges[d]; k <= ranges[d]; k += ranges[d]) {
            int64_t index[2] = {0};
            do {
                oracle_store(scaled, index, ldexp(oracle_element(setup.input, index), k));
            } while (oracle_next_index(2, shape, index));
            params.epsilon = ldexp(epsilon, 2 * k);
            if (params.epsilon > 0 && isfinite(params.epsilon)) {
                assert_ok(attn_rms_norm(NULL, scaled, &params, setup.other));
                assert_same_bits("scaled", setup.other, setup.output);
            }
        }
        pool_destroy(&setup.pool);
    }
}

/* weight and 1 + weight, both of which the type holds. */
static void offset_is_added_to_the_weight(void **state) {
    (void)state;
    static const int64_t features[] = {FEATURES};
    for (int d = 0; d < NUM_DTYPES; ++d) {
        norm_setup setup;
        setup_create(&setup, dtypes[d], 22);
        attn_tensor *weight = pool_input(&setup.pool, dtypes[d], 1, features, LAYOUT_CONTIGUOUS);
        attn_tensor *whole = pool_input(&setup.pool, dtypes[d], 1, features, LAYOUT_CONTIGUOUS);
        random_fill(weight, &setup.random, -0.5, 0.5, 0x1p-6);
        for (int64_t e = 0; e < FEATURES; ++e) {
            oracle_store(whole, &e, 1 + oracle_element(weight, &e));
        }
        attn_rms_norm_params params = {
            .struct_size = sizeof params, .weight = weight, .weight_offset = 1};
        assert_ok(attn_rms_norm(NULL, setup.input, &params, setup.output));
        params.weight = whole;
        params.weight_offset = 0;
        assert_ok(attn_rms_norm(NULL, setup.input, &params, setup.other));
        assert_same_bits("1 + weight", setup.other, setup.output);
        pool_destroy(&setup.pool);
    }
}

/* All at once on three threads, and each alone on one. */
static void row_has_the_same_bits_alone(void **state) {
    (void)state;
    attn_context *three = native_context(3), *one = native_context(1);
    for (int d = 0; d < NUM_DTYPES; ++d) {
        norm_setup setup;
        setup_create(&setup, dtypes[d], 23);
        attn_tensor *weight = pool_input(&setup.pool, dtypes[d], 2, shape, LAYOUT_TRANSPOSED);
        random_fill(weight, &setup.random, -2, 2, 0);
        attn_rms_norm_params params = {.struct_size = sizeof params, .weight = weight};
        assert_ok(attn_rms_norm(three, setup.input, &params, setup.output));
        for (int64_t row = 0; row < ROWS; ++row) {
            attn_tensor from, to, own_weight;
            assert_ok(attn_tensor_select(setup.input, 0, row, &from));
            assert_ok(attn_tensor_select(setup.other, 0, row, &to));
            assert_ok(attn_tensor_select(weight, 0, row, &own_weight));
            params.weight = &own_weight;
            assert_ok(attn_rms_norm(one, &from, &params, &to));
        }
        assert_same_bits("rows alone", setup.other, setup.output);
        pool_destroy(&setup.pool);
    }
    attn_context_destroy(three);
    attn_context_destroy(one);
}

static void layout_leaves_no_bit(void **state) {
    (void)state;
    static const int64_t few[] = {5, FEATURES};
    for (int which = 0; which < NUM_DTYPES * LAYOUT_NUM_OUTPUT; ++which) {
        const int32_t dtype = dtypes[which % NUM_DTYPES];
        const enum tensor_layout layout = (enum tensor_layout)(which / NUM_DTYPES);
        tensor_pool pool = {0};
        random_state random = random_seeded(25);
        attn_tensor *dense = pool_input(&pool, dtype, 2, few, LAYOUT_CONTIGUOUS);
        attn_tensor *expected = pool_output(&pool, dtype, 2, few, LAYOUT_CONTIGUOUS);
        attn_tensor *input = pool_input(&pool, dtype, 2, few, layout);
        attn_tensor *output = pool_output(&pool, dtype, 2, few, layout);
        random_fill(dense, &random, -1, 1, 0);
        int64_t index[2] = {0};
        do {
            oracle_store(input, index, oracle_element(dense, index));
        } while (oracle_next_index(2, few, index));
        assert_ok(attn_rms_norm(NULL, dense, NULL, expected));
        assert_ok(attn_rms_norm(NULL, input, NULL, output));
        assert_same_bits(tensor_layout_names[layout], output, expected);
        pool_destroy(&pool);
    }
}

/* The mean of the squares of a row is 1 afterwards, but for epsilon. */
static void rows_have_a_mean_square_of_one(void **state) {
    (void)state;
    for (int d = 0; d < 2; ++d) {
        norm_setup setup;
        setup_create(&setup, dtypes[d], 24);
        const attn_rms_norm_params params = {.struct_size = sizeof params, .epsilon = 0x1p-1074};
        assert_ok(attn_rms_norm(NULL, setup.input, &params, setup.output));
        const double unit = bound_rounding_of(dtypes[d]).unit + (FEATURES + 8) * 0x1p-53;
        for (int64_t row = 0; row < ROWS; ++row) {
            double sum = 0;
            for (int64_t e = 0; e < FEATURES; ++e) {
                const int64_t index[] = {row, e};
                const double y = oracle_element(setup.output, index);
                sum += y * y;
            }
            assert_true(fabs(sum / FEATURES - 1) <= 3 * unit + (FEATURES + 2) * 0x1p-53);
        }
        pool_destroy(&setup.pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(powers_of_two_leave_no_bit),
        cmocka_unit_test(offset_is_added_to_the_weight),
        cmocka_unit_test(row_has_the_same_bits_alone),
        cmocka_unit_test(layout_leaves_no_bit),
        cmocka_unit_test(rows_have_a_mean_square_of_one),
    };
    return cmocka_run_group_tests_name("properties of RMS norm", tests, NULL, NULL);
}
