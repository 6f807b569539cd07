/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_softmax.c: what holds for every softmax, and that attn_softmax is the softmax
 * inside attention.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_softmax.h"
#include "support/oracle_tensor.h"

static const int64_t shape[] = {5, 7, 67};
static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
enum { NUM_DTYPES = 2 };

static attn_tensor *random_rows(tensor_pool *pool, int32_t dtype, random_state *random,
                                double range) {
    attn_tensor *rows = pool_input(pool, dtype, 3, shape, LAYOUT_CONTIGUOUS);
    random_fill(rows, random, -range, range, 0);
    return rows;
}

static void softmax_rows_sum_to_one(void **state) {
    (void)state;
    for (int d = 0; d < NUM_DTYPES; ++d) {
        random_state random = random_seeded(101);
        tensor_pool pool = {0};
        attn_tensor *input = random_rows(&pool, dtypes[d], &random, 50);
        attn_tensor *output = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        assert_ok(attn_softmax(NULL, input, NULL, output, NULL, 0));
        double *weights = oracle_expand(output, 3, shape);
        for (int64_t row = 0; row < shape[0] * shape[1]; ++row) {
            double sum = 0;
            for (int64_t j = 0; j < shape[2]; ++j) {
                sum += weights[row * shape[2] + j];
            }
            assert_true(fabs(sum - 1) <=
                        (double)(shape[2] + 8) * bound_rounding_of(dtypes[d]).unit);
        }
        free(weights);
        pool_destroy(&pool);
    }
}

/* softmax(x + c) = softmax(x); x and x + c are integers, so that nothing but the softmax rounds. */
static void softmax_of_shifted_rows_has_the_same_bits(void **state) {
    (void)state;
    for (int d = 0; d < NUM_DTYPES; ++d) {
        random_state random = random_seeded(103);
        tensor_pool pool = {0};
        attn_tensor *input = pool_input(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *shifted = pool_input(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *output = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *shifted_output = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        int64_t index[3] = {0};
        do {
            const double number = (double)random_between(&random, -12, 12);
            oracle_store(input, index, number);
            oracle_store(shifted, index, number + 1000);
        } while (oracle_next_index(3, shape, index));
        assert_ok(attn_softmax(NULL, input, NULL, output, NULL, 0));
        assert_ok(attn_softmax(NULL, shifted, NULL, shifted_output, NULL, 0));
        assert_same_bits("output", shifted_output, output);
        pool_destroy(&pool);
    }
}

static void softmax_in_place_has_the_bits_of_out_of_place(void **state) {
    (void)state;
    const enum tensor_layout layouts[] = {LAYOUT_CONTIGUOUS, LAYOUT_TRANSPOSED, LAYOUT_STEP_TWO,
                                          LAYOUT_REVERSED, LAYOUT_UNALIGNED};
    for (int i = 0; i < 5 * NUM_DTYPES; ++i) {
        random_state random = random_seeded(107);
        tensor_pool pool = {0};
        attn_tensor *both =
            pool_output(&pool, dtypes[i % NUM_DTYPES], 3, shape, layouts[i / NUM_DTYPES]);
        random_fill(both, &random, -4, 4, 0);
        attn_tensor *input = copied(&pool, both);
        attn_tensor *output =
            pool_output(&pool, dtypes[i % NUM_DTYPES], 3, shape, LAYOUT_CONTIGUOUS);
        assert_ok(attn_softmax(NULL, input, NULL, output, NULL, 0));
        assert_ok(attn_softmax(NULL, both, NULL, both, NULL, 0));
        assert_same_bits("output", both, output);
        pool_destroy(&pool);
    }
}

/* With key the identity matrix and scale 1 the scores are the queries, exactly; with value the
 * identity the output is the weights. */
static void sdpa_with_identity_keys_is_softmax_of_queries(void **state) {
    (void)state;
    for (int d = 0; d < NUM_DTYPES; ++d) {
        random_state random = random_seeded(109);
        tensor_pool pool = {0};
        const int64_t square[] = {shape[2], shape[2]};
        attn_tensor *input = random_rows(&pool, dtypes[d], &random, 6);
        attn_tensor *identity = pool_input(&pool, dtypes[d], 2, square, LAYOUT_CONTIGUOUS);
        int64_t index[2] = {0};
        do {
            oracle_store(identity, index, index[0] == index[1]);
        } while (oracle_next_index(2, square, index));
        attn_tensor *output = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *weights = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *softmax = pool_output(&pool, dtypes[d], 3, shape, LAYOUT_CONTIGUOUS);
        const attn_sdpa_params params = {.struct_size = sizeof params,
                                         .set = ATTN_SDPA_SET_SCALE,
                                         .scale = 1,
                                         .weights = weights};
        assert_ok(attn_sdpa(NULL, input, identity, identity, &params, output, NULL, 0));
        assert_ok(attn_softmax(NULL, input, NULL, softmax, NULL, 0));
        oracle_softmax_result expected = oracle_softmax(input, NULL);
        assert_close("softmax", softmax, &expected.output);
        assert_close("weights", weights, &expected.output);
        assert_close("output", output, &expected.output);
        oracle_softmax_result_destroy(&expected);
        pool_destroy(&pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_rows_sum_to_one),
        cmocka_unit_test(softmax_of_shifted_rows_has_the_same_bits),
        cmocka_unit_test(softmax_in_place_has_the_bits_of_out_of_place),
        cmocka_unit_test(sdpa_with_identity_keys_is_softmax_of_queries),
    };
    return cmocka_run_group_tests_name("properties of softmax", tests, NULL, NULL);
}
