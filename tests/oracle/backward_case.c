/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_case.c: builds a forward call, runs it, and compares every gradient with the oracle.
 */
#include "backward_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/backward.h>

#include "attention_options.h"
#include "sdpa_case.h"
#include "support/oracle_input_gradients.h"
#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

static const char *const names[ORACLE_NUM_GRADIENTS] = {
    "gradients.query", "gradients.key",           "gradients.value",        "gradients.mask",
    "gradients.bias",  "gradients.position_bias", "gradients.alibi_slopes", "gradients.sinks"};

/* A call with its gradients. */
typedef struct backward_call {
    sdpa_call forward;
    attn_tensor *output, *lse, *weights;       /* given; the latter two may be NULL */
    attn_tensor *wanted[ORACLE_NUM_GRADIENTS]; /* or NULL */
    oracle_array before[ORACLE_NUM_GRADIENTS]; /* what accumulating adds to */
    attn_sdpa_gradients gradients;
} backward_call;

/* ---- factors ---- */

/* Where there are options, and no gradient needs more than the batched form: test_backward_bits.c
 * has sequences behind each other. */
static int backward_rule(int factor_a, int level_a, int factor_b, int level_b) {
    static factor_set forward;
    if (forward.count == 0) {
        forward = sdpa_factor_set();
    }
    return forward.is_allowed(factor_a, level_a, factor_b, level_b);
}

/* Keeps the first levels of a factor. */
static void keep(factor_set *set, int number, int levels) {
    set->factors[number].num_levels = levels;
}

factor_set backward_factor_set(void) {
    factor_set set = sdpa_factor_set();
    set.is_allowed = backward_rule;
    keep(&set, FACTOR_OPTIONS, 1);
    keep(&set, FACTOR_POISON, 1);
    keep(&set, FACTOR_SCORES, 1);
    keep(&set, FACTOR_SCORES_LAYOUT, 1);
    keep(&set, SDPA_KEYS_IN, 1);
    keep(&set, SDPA_QUERIES, 1);
    return set;
}

/* ---- tensors ---- */

static int flip(random_state *random, int one_in) {
    return random_between(random, 0, one_in - 1) == 0;
}

static attn_tensor *give(const attn_tensor *like, random_state *random, tensor_pool *pool) {
    const int layout = (int)random_between(random, 0, LAYOUT_NUM_INPUT - 1);
    attn_tensor *given = pool_input(pool, like->dtype, like->rank, like->shape, layout);
    random_fill(given, random, -1, 1, 0);
    return given;
}

/* The gradient of an input, which holds something. */
static attn_tensor *want(const attn_tensor *input, random_state *random, tensor_pool *pool) {
    if (input == NULL || flip(random, 8)) {
        return NULL;
    }
    const int32_t dtype = flip(random, 3) ? score_dtype(input->dtype) : input->dtype;
    attn_tensor *wanted = pool_output(pool, dtype, input->rank, input->shape,
                                      (int)random_between(random, 0, LAYOUT_NUM_OUTPUT - 1));
    random_fill(wanted, random, -2, 2, 0);
    return wanted;
}

static void build_wanted(random_state *random, backward_call *call) {
    const sdpa_call *forward = &call->forward;
    const attn_sdpa_params *params = &forward->params;
    const int has_mask = params->mask != NULL && params->mask_kind == ATTN_MASK_ADDITIVE;
    const attn_tensor *inputs[ORACLE_NUM_GRADIENTS] = {
        forward->query, forward->key,          forward->value,       has_mask ? params->mask : NULL,
        params->bias,   params->position_bias, params->alibi_slopes, params->sinks};
    attn_sdpa_gradients *gradients = &call->gradients;
    const attn_tensor **const fields[ORACLE_NUM_GRADIENTS] = {
        &gradients->query, &gradients->key,           &gradients->value,        &gradients->mask,
        &gradients->bias,  &gradients->position_bias, &gradients->alibi_slopes, &gradients->sinks};
    for (int i = 0; i < ORACLE_NUM_GRADIENTS; ++i) {
        call->wanted[i] = want(inputs[i], random, &call->forward.pool);
        *fields[i] = call->wanted[i];
        if (call->wanted[i] != NULL) {
            const attn_tensor *wanted = call->wanted[i];
            call->before[i].count = oracle_count(wanted->rank, wanted->shape);
            call->before[i].value = oracle_expand(wanted, wanted->rank, wanted->shape);
        }
    }
}

static void build(const factor_case *chosen, uint64_t seed, int free_lengths, backward_call *call) {
    random_state random = random_seeded(seed + 1);
    *call = (backward_call){.gradients = {.struct_size = sizeof call->gradients}};
    sdpa_case_build(chosen, seed, free_lengths, &call->forward);
    sdpa_call *forward = &call->forward;
    tensor_pool *pool = &forward->pool;
    call->output = give(forward->output, &random, pool);
    if (forward->params.lse != NULL && flip(&random, 2)) {
        call->lse = give(forward->params.lse, &random, pool);
    }
    if (forward->params.weights != NULL && flip(&random, 2)) {
        call->weights = give(forward->params.weights, &random, pool);
    }
    call->gradients.output = call->output;
    call->gradients.lse = call->lse;
    call->gradients.weights = call->weights;
    call->gradients.accumulate = flip(&random, 3);
    build_wanted(&random, call);
}

static void destroy(backward_call *call) {
    for (int i = 0; i < ORACLE_NUM_GRADIENTS; ++i) {
        free(call->before[i].value);
    }
    sdpa_call_destroy(&call->forward);
}

/* ---- the call ---- */

static int run_backward(const factor_set *set, const factor_case *chosen, backward_call *call,
                        call_outcome *outcome) {
    attn_context *context = case_context(set, chosen);
    sdpa_call *forward = &call->forward;
    size_t bytes = 0;
    if (call_failed("attn_sdpa_backward_workspace_bytes",
                    attn_sdpa_backward_workspace_bytes(context, forward->query, forward->key,
                                                       forward->value, &forward->params,
                                                       forward->output, &call->gradients, &bytes),
                    outcome)) {
        return 1;
    }
    watched_workspace workspace = workspace_create(chosen, bytes);
    pool_begin(&forward->pool);
    const attn_status status =
        attn_sdpa_backward(context, forward->query, forward->key, forward->value, &forward->params,
                           forward->output, &call->gradients, workspace.start, workspace.bytes);
    const int failed = call_failed("attn_sdpa_backward", status, outcome) ||
                       workspace_check(&workspace, outcome->message, sizeof outcome->message) ||
                       pool_check(&forward->pool, outcome->message, sizeof outcome->message);
    workspace_destroy(&workspace);
    return failed;
}

/* ---- comparing ---- */

/* The gradient of weights, per head. */
static double *given_weights(const backward_call *call, const oracle_problem *problem) {
    const attn_tensor *weights = call->weights;
    if (weights == NULL) {
        return NULL;
    }
    double *own = oracle_expand(weights, weights->rank, weights->shape);
    if (weights->rank == call->forward.output->rank) {
        return own;
    }
    const int64_t matrix = problem->rows * problem->keys;
    const int64_t count = problem->batches * problem->heads * matrix;
    double *all = oracle_allocate(count, sizeof(double));
    for (int64_t at = 0; at < count; ++at) {
        const int64_t batch = at / matrix / problem->heads;
        all[at] = own[batch * matrix + at % matrix] / (double)problem->heads;
    }
    free(own);
    return all;
}

static double output_unit(const attn_tensor *output) {
    switch (output->dtype) {
    case ATTN_DTYPE_BFLOAT16:
        return 0x1p-8;
    case ATTN_DTYPE_FLOAT16:
        return 0x1p-10;
    default:
        return bound_rounding_of(output->dtype).unit;
    }
}

static int compare_gradients(const backward_call *call, double weight_unit, call_outcome *outcome) {
    const sdpa_call *forward = &call->forward;
    oracle_problem problem =
        oracle_sdpa_problem(&forward->seen.query, &forward->seen.key, &forward->seen.value,
                            forward->seen.given_params, weight_unit);
    const attn_tensor *output = call->output;
    double *weights = given_weights(call, &problem);
    double *given_output = oracle_expand(output, output->rank, output->shape);
    double *lse =
        call->lse != NULL ? oracle_expand(call->lse, call->lse->rank, call->lse->shape) : NULL;
    const oracle_given given = {.output = given_output,
                                .lse = lse,
                                .weights = weights,
                                .output_unit = output_unit(forward->output),
                                .output_step =
                                    forward->output->dtype == ATTN_DTYPE_FLOAT16 ? 0x1p-25 : 0};
    oracle_gradients all = oracle_attention_gradients(&problem, &given);
    int failed = 0;
    for (int i = 0; i < ORACLE_NUM_GRADIENTS && !failed; ++i) {
        compare_stats *const stats = i <= ORACLE_OF_VALUE           ? &outcome->output
                                     : i <= ORACLE_OF_POSITION_BIAS ? &outcome->weights
                                                                    : &outcome->lse;
        if (call->wanted[i] != NULL) {
            const oracle_wanted wanted = {
                (enum oracle_gradient_of)i, call->wanted[i], forward->output,
                call->gradients.accumulate ? call->before[i].value : NULL};
            oracle_array expected = oracle_input_gradient(&wanted, &problem, &all);
            failed = compare_tensor(names[i], call->wanted[i], &expected, stats, outcome->message,
                                    sizeof outcome->message);
            oracle_array_destroy(&expected);
        }
    }
    oracle_gradients_destroy(&all);
    oracle_problem_destroy(&problem);
    free(weights);
    free(given_output);
    free(lse);
    return failed;
}

int backward_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                      int free_lengths, call_outcome *outcome) {
    factor_case forward = *chosen;
    if (chosen->level[FACTOR_NORMALIZER] == ATTN_NORMALIZER_SOFTMAX &&
        chosen->level[FACTOR_LSE] == LSE_NONE) {
        forward.level[FACTOR_LSE] = LSE_CONTIGUOUS;
    }
    backward_call call;
    call_outcome of_forward = {0};
    build(&forward, seed, free_lengths, &call);
    int failed = sdpa_call_run(set, &forward, &call.forward, &of_forward);
    outcome->num_visible += of_forward.num_visible;
    outcome->num_seeing += of_forward.num_seeing;
    ++outcome->num_calls;
    if (failed) {
        memcpy(outcome->message, of_forward.message, sizeof outcome->message);
    }
    failed = failed || run_backward(set, &forward, &call, outcome) ||
             compare_gradients(&call, sdpa_case_weight_unit(set, &forward, &call.forward), outcome);
    destroy(&call);
    return failed;
}
