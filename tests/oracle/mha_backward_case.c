/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward_case.c: a layer's forward call with and without what it saves, then its gradients,
 * each compared with the oracle.
 */
#include "mha_backward_case.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/multihead_backward.h>

#include "attention_options.h"
#include "mha_case.h"
#include "support/oracle_mha_gradients.h"
#include "support/oracle_tensor.h"

enum { MOST_LISTED = 12, NUM_INPUTS = 3 };

/* A tensor that is wanted, and what it held before. */
typedef struct wanted_tensor {
    attn_tensor *tensor; /* or NULL */
    double *before;
} wanted_tensor;

/* A call with its gradients. */
typedef struct backward_call {
    mha_call forward;
    tensor_pool pool; /* of the gradients */
    wanted_tensor inputs[NUM_INPUTS], parameters[MOST_LISTED], mask;
    attn_tensor listed[MOST_LISTED];
    const char *names[MOST_LISTED];
    int64_t num_listed;
    attn_sdpa_gradients attention;
    attn_mha_gradients gradients;
    unsigned char *saved, *saved_before;
    size_t saved_bytes;
} backward_call;

/* ---- factors ---- */

static void keep(factor_set *set, int number, int levels) {
    set->factors[number].num_levels = levels;
}

static int backward_rule(int factor_a, int level_a, int factor_b, int level_b) {
    static factor_set forward;
    if (forward.count == 0) {
        forward = mha_factor_set();
    }
    return forward.is_allowed(factor_a, level_a, factor_b, level_b);
}

factor_set mha_backward_factor_set(void) {
    factor_set set = mha_factor_set();
    set.is_allowed = backward_rule;
    keep(&set, FACTOR_POISON, 1);
    keep(&set, FACTOR_SCORES, 1);
    keep(&set, FACTOR_SCORES_LAYOUT, 1);
    keep(&set, MHA_PARAMETER_TYPE, PARAMETERS_INT8); /* which has no gradients */
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

static void want(const attn_tensor *like, random_state *random, tensor_pool *pool,
                 wanted_tensor *wanted) {
    if (flip(random, 8)) {
        return;
    }
    const int32_t dtype = flip(random, 3) ? score_dtype(like->dtype) : like->dtype;
    wanted->tensor = pool_output(pool, dtype, like->rank, like->shape,
                                 (int)random_between(random, 0, LAYOUT_NUM_OUTPUT - 1));
    random_fill(wanted->tensor, random, -2, 2, 0);
    wanted->before = oracle_expand(wanted->tensor, like->rank, like->shape);
}

/* Whether the call has an additive mask with a column for each key. */
static int has_mask(const mha_call *call) {
    return call->given_params != NULL && call->params.attention != NULL &&
           call->attention.mask != NULL && call->attention.mask_start == NULL &&
           call->attention.mask_kind == ATTN_MASK_ADDITIVE;
}

static void build_attention(random_state *random, backward_call *call) {
    const mha_call *forward = &call->forward;
    const attn_sdpa_params *params = &forward->attention;
    const int has_attention = forward->given_params != NULL && forward->params.attention != NULL;
    call->attention = (attn_sdpa_gradients){.struct_size = sizeof call->attention};
    if (has_mask(forward)) {
        want(params->mask, random, &call->pool, &call->mask);
        call->attention.mask = call->mask.tensor;
    }
    if (has_attention && params->lse != NULL && flip(random, 2)) {
        call->attention.lse = give(params->lse, random, &call->pool);
    }
    if (has_attention && params->weights != NULL && flip(random, 2)) {
        call->attention.weights = give(params->weights, random, &call->pool);
    }
}

static int build_parameters(const attn_mha *layer, random_state *random, backward_call *call,
                            call_outcome *outcome) {
    if (call_failed("attn_mha_parameter_count", attn_mha_parameter_count(layer, &call->num_listed),
                    outcome)) {
        return 1;
    }
    for (int64_t i = 0; i < call->num_listed; ++i) {
        attn_tensor shape;
        if (call_failed("attn_mha_parameter_describe",
                        attn_mha_parameter_describe(layer, i, &call->names[i], &shape), outcome)) {
            return 1;
        }
        want(&shape, random, &call->pool, &call->parameters[i]);
        call->listed[i] =
            call->parameters[i].tensor != NULL ? *call->parameters[i].tensor : (attn_tensor){0};
    }
    return 0;
}

static int build(const attn_mha *layer, uint64_t seed, backward_call *call, call_outcome *outcome) {
    random_state random = random_seeded(seed + 1);
    const mha_call *forward = &call->forward;
    const attn_tensor *const inputs[] = {forward->query, forward->key, forward->value};
    for (int i = 0; i < NUM_INPUTS; ++i) {
        want(inputs[i], &random, &call->pool, &call->inputs[i]);
    }
    build_attention(&random, call);
    if (build_parameters(layer, &random, call, outcome)) {
        return 1;
    }
    const int has_parameters = !flip(&random, 8);
    call->gradients = (attn_mha_gradients){
        .struct_size = sizeof call->gradients,
        .accumulate = flip(&random, 3),
        .output = give(forward->output, &random, &call->pool),
        .query = call->inputs[0].tensor,
        .key = call->inputs[1].tensor,
        .value = call->inputs[2].tensor,
        .parameters = has_parameters ? call->listed : NULL,
        .num_parameters = has_parameters ? call->num_listed : 0,
        .attention = &call->attention,
    };
    return 0;
}

static void destroy(backward_call *call) {
    for (int i = 0; i < NUM_INPUTS; ++i) {
        free(call->inputs[i].before);
    }
    for (int i = 0; i < MOST_LISTED; ++i) {
        free(call->parameters[i].before);
    }
    free(call->mask.before);
    free(call->saved);
    free(call->saved_before);
    pool_destroy(&call->pool);
    mha_call_destroy(&call->forward);
}

/* ---- the calls ---- */

static int take_saved(attn_context *context, const attn_mha *layer, backward_call *call,
                      call_outcome *outcome) {
    mha_call *forward = &call->forward;
    attn_tensor query = *forward->query, key = *forward->key, value = *forward->value;
    query.data = key.data = value.data = NULL;
    if (call_failed("attn_mha_saved_bytes",
                    attn_mha_saved_bytes(context, layer, &query, &key, &value,
                                         forward->given_params, &call->saved_bytes),
                    outcome)) {
        return 1;
    }
    call->saved = malloc(call->saved_bytes + 8);
    call->saved_before = malloc(call->saved_bytes + 8);
    if (call->saved == NULL || call->saved_before == NULL) {
        abort();
    }
    memset(call->saved, 0xa5, call->saved_bytes + 8);
    forward->params.saved = call->saved;
    forward->params.saved_bytes = call->saved_bytes;
    return 0;
}

static int run_forward(attn_context *context, const attn_mha *layer, const mha_call *forward,
                       const attn_mha_params *params, call_outcome *outcome) {
    return call_failed("attn_mha_forward",
                       attn_mha_forward(context, layer, forward->query, forward->key,
                                        forward->value, params, forward->output, NULL, 0),
                       outcome);
}

/* The output and lse are the same bits with what is saved as without. */
static int run_both(attn_context *context, const attn_mha *layer, backward_call *call,
                    call_outcome *outcome) {
    const mha_call *forward = &call->forward;
    const attn_tensor *const results[] = {forward->output, forward->attention.lse,
                                          forward->attention.weights};
    double *before[3] = {NULL, NULL, NULL};
    int failed = run_forward(context, layer, forward, forward->given_params, outcome);
    for (int i = 0; i < 3 && !failed; ++i) {
        before[i] = results[i] != NULL
                        ? oracle_expand(results[i], results[i]->rank, results[i]->shape)
                        : NULL;
    }
    failed = failed || take_saved(context, layer, call, outcome) ||
             run_forward(context, layer, forward, &forward->params, outcome);
    for (int i = 0; i < 3; ++i) {
        if (!failed && before[i] != NULL) {
            double *after = oracle_expand(results[i], results[i]->rank, results[i]->shape);
            const int64_t count = oracle_count(results[i]->rank, results[i]->shape);
            failed = memcmp(before[i], after, (size_t)count * sizeof *after) != 0;
            if (failed) {
                snprintf(outcome->message, sizeof outcome->message,
                         "result %d has other bits beside what is saved", i);
            }
            free(after);
        }
        free(before[i]);
    }
    return failed;
}

static int check_saved(const backward_call *call, call_outcome *outcome) {
    if (memcmp(call->saved, call->saved_before, call->saved_bytes + 8) == 0) {
        return 0;
    }
    snprintf(outcome->message, sizeof outcome->message, "attn_mha_backward wrote what was saved");
    return 1;
}

/* attn_mha_forward may not write behind what it was given. */
static int check_saved_end(const backward_call *call, call_outcome *outcome) {
    for (size_t i = 0; i < 8; ++i) {
        if (call->saved[call->saved_bytes + i] != 0xa5) {
            snprintf(outcome->message, sizeof outcome->message,
                     "attn_mha_forward wrote behind what is saved");
            return 1;
        }
    }
    return 0;
}

static int run_backward(attn_context *context, const attn_mha *layer, const factor_case *chosen,
                        backward_call *call, call_outcome *outcome) {
    mha_call *forward = &call->forward;
    size_t bytes = 0;
    if (call_failed("attn_mha_backward_workspace_bytes",
                    attn_mha_backward_workspace_bytes(context, layer, forward->query, forward->key,
                                                      forward->value, &forward->params,
                                                      &call->gradients, &bytes),
                    outcome)) {
        return 1;
    }
    watched_workspace workspace = workspace_create(chosen, bytes);
    pool_begin(&call->pool);
    pool_begin(&forward->pool);
    memcpy(call->saved_before, call->saved, call->saved_bytes + 8);
    const attn_status status =
        attn_mha_backward(context, layer, forward->query, forward->key, forward->value,
                          &forward->params, &call->gradients, workspace.start, workspace.bytes);
    const int failed =
        call_failed("attn_mha_backward", status, outcome) ||
        workspace_check(&workspace, outcome->message, sizeof outcome->message) ||
        pool_check(&call->pool, outcome->message, sizeof outcome->message) ||
        pool_check_untouched(&forward->pool, outcome->message, sizeof outcome->message) ||
        check_saved(call, outcome);
    workspace_destroy(&workspace);
    return failed;
}

/* ---- comparing ---- */

/* What was there is added, in the score type; what may be infinite is not compared. */
static void finish(const backward_call *call, const wanted_tensor *wanted, bound_rounding rounding,
                   oracle_array *expected) {
    const double largest = wanted->tensor->dtype == ATTN_DTYPE_FLOAT16 ? 65504 : rounding.largest;
    for (int64_t at = 0; at < expected->count; ++at) {
        if (call->gradients.accumulate) {
            expected->value[at] += wanted->before[at];
            expected->error[at] += rounding.unit * (fabs(expected->value[at]) +
                                                    expected->error[at] + fabs(wanted->before[at]));
        }
        if (wanted->tensor->dtype == ATTN_DTYPE_FLOAT32 && rounding.unit < 0x1p-24) {
            /* A mask's, beside float64. */
            expected->error[at] +=
                0x1p-24 * (fabs(expected->value[at]) + expected->error[at]) + FLT_MIN;
        }
        if (fabs(expected->value[at]) + expected->error[at] > largest) {
            expected->error[at] = NAN;
        }
    }
}

static int compare(const char *name, const backward_call *call, const wanted_tensor *wanted,
                   const attn_tensor *view, oracle_array *expected, compare_stats *stats,
                   call_outcome *outcome) {
    const oracle_mha_sizes sizes = oracle_mha_resolve(&call->forward.config);
    finish(call, wanted, bound_rounding_of(sizes.dtype), expected);
    return compare_tensor(name, view, expected, stats, outcome->message, sizeof outcome->message);
}

/* `before` is in the order of the tensor's axes, expected in that of the oracle's. */
static attn_tensor batch_first(const mha_call *call, const attn_tensor *tensor) {
    attn_tensor view = *tensor;
    if (view.rank == 3 && !call->config.batch_first) {
        view.shape[0] = tensor->shape[1];
        view.strides[0] = tensor->strides[1];
        view.shape[1] = tensor->shape[0];
        view.strides[1] = tensor->strides[0];
    }
    return view;
}

static void to_batch_first(const mha_call *call, wanted_tensor *wanted) {
    const attn_tensor *tensor = wanted->tensor;
    const int64_t count = oracle_count(tensor->rank, tensor->shape);
    if (tensor->rank != 3 || call->config.batch_first) {
        return;
    }
    double *turned = oracle_allocate(count, sizeof *turned);
    const int64_t rows = tensor->shape[0], batches = tensor->shape[1], width = tensor->shape[2];
    for (int64_t at = 0; at < count; ++at) {
        const int64_t row = at / width % rows, batch = at / width / rows;
        turned[at] = wanted->before[(row * batches + batch) * width + at % width];
    }
    free(wanted->before);
    wanted->before = turned;
}

/* Parts one behind the other, as packed parameters have them. */
static oracle_array join(const oracle_mha_gradients *all, int first, int count) {
    int64_t total = 0;
    for (int i = first; i < first + count; ++i) {
        total += all->parts[i].count;
    }
    oracle_array joined = oracle_array_create(total);
    int64_t at = 0;
    for (int i = first; i < first + count; ++i) {
        const oracle_array *part = &all->parts[i];
        for (int64_t j = 0; j < part->count; ++j) {
            joined.value[at] = part->value[j];
            joined.error[at++] = part->error[j];
        }
    }
    return joined;
}

static oracle_array expected_parameter(const oracle_mha_gradients *all, const char *name) {
    static const struct {
        const char *name;
        int first, count;
    } parts[] = {{"in_proj_weight", ORACLE_Q_WEIGHT, 3}, {"q_proj_weight", ORACLE_Q_WEIGHT, 1},
                 {"k_proj_weight", ORACLE_K_WEIGHT, 1},  {"v_proj_weight", ORACLE_V_WEIGHT, 1},
                 {"in_proj_bias", ORACLE_Q_BIAS, 3},     {"bias_k", ORACLE_BIAS_K, 1},
                 {"bias_v", ORACLE_BIAS_V, 1},           {"out_proj.weight", ORACLE_O_WEIGHT, 1},
                 {"out_proj.bias", ORACLE_O_BIAS, 1},    {"q_norm.weight", ORACLE_Q_NORM, 1},
                 {"k_norm.weight", ORACLE_K_NORM, 1}};
    size_t i = 0;
    while (strcmp(parts[i].name, name) != 0) {
        ++i;
    }
    return join(all, parts[i].first, parts[i].count);
}

/* Sums of scores' gradients over what shares an element of the mask, where blocks ask it. */
static oracle_array expected_mask(const backward_call *call, const oracle_mha_gradients *all,
                                  int64_t batches, int64_t heads, int64_t rows, int64_t keys) {
    const attn_tensor *mask = call->mask.tensor;
    const bound_rounding rounding =
        bound_rounding_of(oracle_mha_resolve(&call->forward.config).dtype);
    const int64_t all_rows = batches * heads * rows;
    const int64_t all_keys = all_rows > 0 ? all->inner.scores.count / all_rows : 0;
    oracle_array sums = oracle_array_create(oracle_count(mask->rank, mask->shape));
    for (int64_t at = 0; at < all_rows * keys; ++at) {
        const int64_t key = at % keys, row = at / keys % rows, pair = at / keys / rows;
        int64_t matrix = 0;
        if (all->blocks != NULL && all->blocks[at] != ATTN_BLOCK_MASKED) {
            continue;
        }
        if (mask->rank == 3) {
            matrix = pair;
        } else if (mask->rank == 4) {
            const int64_t batch = mask->shape[0] == 1 ? 0 : pair / heads;
            const int64_t head = mask->shape[1] == 1 ? 0 : pair % heads;
            matrix = batch * mask->shape[1] + head;
        }
        const int64_t from = (pair * rows + row) * all_keys + key;
        const int64_t to = (matrix * rows + row) * keys + key;
        const double value = all->inner.scores.value[from], error = all->inner.scores.error[from];
        sums.value[to] += value;
        sums.error[to] +=
            error + (double)(batches * heads + 2) * rounding.unit * (fabs(value) + error);
    }
    return sums;
}

/* The gradient of weights for every head, or NULL. */
static double *given_weights(const backward_call *call, int64_t batches, int64_t heads) {
    const attn_tensor *weights = call->attention.weights;
    if (weights == NULL) {
        return NULL;
    }
    double *own = oracle_expand(weights, weights->rank, weights->shape);
    if (weights->rank == 3 + (call->forward.query->rank == 3)) {
        return own;
    }
    const int64_t matrix = weights->shape[weights->rank - 2] * weights->shape[weights->rank - 1];
    double *all = oracle_allocate(batches * heads * matrix, sizeof *all);
    for (int64_t at = 0; at < batches * heads * matrix; ++at) {
        all[at] = own[at / matrix / heads * matrix + at % matrix] / (double)heads;
    }
    free(own);
    return all;
}

static int compare_all(backward_call *call, const oracle_mha_gradients *all, int64_t batches,
                       call_outcome *outcome) {
    static const char *const names[] = {"gradients.query", "gradients.key", "gradients.value"};
    const mha_call *forward = &call->forward;
    int failed = 0;
    for (int i = 0; i < NUM_INPUTS && !failed; ++i) {
        if (call->inputs[i].tensor != NULL) {
            oracle_array expected = all->inputs[i];
            const attn_tensor view = batch_first(forward, call->inputs[i].tensor);
            to_batch_first(forward, &call->inputs[i]);
            failed = compare(names[i], call, &call->inputs[i], &view, &expected, &outcome->output,
                             outcome);
        }
    }
    for (int64_t i = 0; i < call->gradients.num_parameters && !failed; ++i) {
        if (call->parameters[i].tensor != NULL) {
            oracle_array expected = expected_parameter(all, call->names[i]);
            failed = compare(call->names[i], call, &call->parameters[i], call->parameters[i].tensor,
                             &expected, &outcome->weights, outcome);
            oracle_array_destroy(&expected);
        }
    }
    if (!failed && call->mask.tensor != NULL) {
        const int rows_axis = forward->query->rank == 3 && forward->config.batch_first;
        oracle_array expected =
            expected_mask(call, all, batches, forward->config.num_heads,
                          forward->query->shape[rows_axis], forward->key->shape[rows_axis]);
        failed = compare("gradients.attention.mask", call, &call->mask, call->mask.tensor,
                         &expected, &outcome->scores, outcome);
        oracle_array_destroy(&expected);
    }
    return failed;
}

static int compare_gradients(backward_call *call, call_outcome *outcome) {
    const mha_call *forward = &call->forward;
    const attn_tensor *lse = call->attention.lse;
    const int64_t heads = forward->config.num_heads;
    const int64_t batches =
        forward->query->rank == 3 ? forward->query->shape[forward->config.batch_first ? 0 : 1] : 1;
    double *given_lse = lse != NULL ? oracle_expand(lse, lse->rank, lse->shape) : NULL;
    double *weights = given_weights(call, batches, heads);
    oracle_mha_gradients all =
        oracle_mha_backward(&forward->config, forward->parameters, forward->num_parameters,
                            forward->query, &forward->seen_key, &forward->seen_value,
                            forward->given_params, call->gradients.output, given_lse, weights);
    const int failed = compare_all(call, &all, batches, outcome);
    outcome->num_visible += all.num_visible;
    outcome->num_seeing += all.num_visible > 0;
    oracle_mha_gradients_destroy(&all);
    free(given_lse);
    free(weights);
    return failed;
}

int mha_backward_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                          int free_lengths, call_outcome *outcome) {
    backward_call call = {0};
    mha_case_build(chosen, seed, free_lengths, &call.forward);
    attn_mha *layer = mha_call_layer(&call.forward, outcome);
    attn_context *context = case_context(set, chosen);
    const int failed =
        layer == NULL || build(layer, seed, &call, outcome) ||
        run_both(context, layer, &call, outcome) || check_saved_end(&call, outcome) ||
        run_backward(context, layer, chosen, &call, outcome) || compare_gradients(&call, outcome);
    ++outcome->num_calls;
    attn_mha_destroy(layer);
    destroy(&call);
    return failed;
}
