/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_nan.c: a NaN or infinity reaches the gradients of whoever sees it and of nobody
 * else: where causality hides a key from a row, neither enters the other's gradient. Everything it
 * does not reach has the bits of the same call with an ordinary number in its place.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { SIZE = 300, POISONED = 150 }; /* rows and keys: a few blocks of either */
enum operand { QUERY, KEY, VALUE, GIVEN, NUM_OPERANDS };
static const char *const operand_names[] = {"query", "key", "value", "gradients.output"};

typedef struct gradients_of {
    tensor_pool pool;
    attn_tensor *query, *key, *value;
} gradients_of;

static void run(const sdpa_setup *setup, const attn_tensor *given, gradients_of *to) {
    to->pool = (tensor_pool){.count = 0};
    to->query = copied(&to->pool, setup->query);
    to->key = copied(&to->pool, setup->key);
    to->value = copied(&to->pool, setup->value);
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = given,
                                           .query = to->query,
                                           .key = to->key,
                                           .value = to->value};
    attn_context *context = native_context(2);
    sdpa_setup_run(context, setup);
    assert_ok(attn_sdpa_backward(context, setup->query, setup->key, setup->value, &setup->params,
                                 setup->output, &gradients, NULL, 0));
    attn_context_destroy(context);
}

/* Whether a poisoned element of an operand's row POISONED reaches row `row` of a gradient. Row i
 * sees keys 0 to i. */
static int is_reached(enum operand poisoned, enum operand gradient, int64_t row) {
    const int is_of_rows = poisoned == QUERY || poisoned == GIVEN;
    if (gradient == QUERY) {
        return is_of_rows ? row == POISONED : row >= POISONED;
    }
    /* A row that sees a poisoned key has no number left in its weights or their gradients, and sees
     * all keys before it. */
    return is_of_rows ? row <= POISONED : 1;
}

/* The gradient of a value has no part in values, nor that of a score in one that is 0. */
static int may_be_ordinary(enum operand poisoned, enum operand gradient) {
    return (poisoned == VALUE && gradient == VALUE) || (poisoned == GIVEN && gradient == VALUE);
}

static void compare(enum operand poisoned, enum operand gradient, const attn_tensor *found,
                    const attn_tensor *ordinary) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        const double number = oracle_element(found, index);
        const int is_same = number == oracle_element(ordinary, index);
        const int reached = is_reached(poisoned, gradient, index[2]);
        if (!reached ? !is_same : isfinite(number) && !may_be_ordinary(poisoned, gradient)) {
            fail_msg("%s poisoned: gradient of %s, row %d: %g, ordinarily %g",
                     operand_names[poisoned], operand_names[gradient], (int)index[2], number,
                     oracle_element(ordinary, index));
        }
    } while (oracle_next_index(found->rank, found->shape, index));
}

static void poison_one(int32_t dtype, enum operand poisoned, double poison) {
    const sdpa_sizes sizes = {dtype, 1, 1, 1, SIZE, SIZE, 5, 3};
    sdpa_setup setup;
    sdpa_setup_create(&setup, &sizes, 7);
    setup.params.is_causal = 1;
    setup.params.weights = NULL;
    attn_tensor *given = copied(&setup.pool, setup.output);
    random_fill(given, &setup.random, -1, 1, 0);
    const attn_tensor *const operands[] = {setup.query, setup.key, setup.value, given};
    const int64_t at[] = {0, 0, POISONED, 1};
    gradients_of ordinary, found;
    run(&setup, given, &ordinary);
    oracle_store(operands[poisoned], at, poison);
    run(&setup, given, &found);
    compare(poisoned, QUERY, found.query, ordinary.query);
    compare(poisoned, KEY, found.key, ordinary.key);
    compare(poisoned, VALUE, found.value, ordinary.value);
    pool_destroy(&ordinary.pool);
    pool_destroy(&found.pool);
    sdpa_setup_destroy(&setup);
}

static void what_is_not_finite_reaches_those_who_see_it(void **state) {
    (void)state;
    for (int poisoned = 0; poisoned < NUM_OPERANDS; ++poisoned) {
        poison_one(ATTN_DTYPE_FLOAT32, poisoned, NAN);
        poison_one(ATTN_DTYPE_FLOAT64, poisoned, NAN);
        poison_one(ATTN_DTYPE_BFLOAT16, poisoned, NAN);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_finite_reaches_those_who_see_it),
    };
    return cmocka_run_group_tests_name("backward and NaN", tests, NULL, NULL);
}
