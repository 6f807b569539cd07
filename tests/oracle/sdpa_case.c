/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_case.c: runs one attn_sdpa case and compares all of its outputs with the oracle.
 */
#include "sdpa_case.h"

#include <stdio.h>
#include <string.h>

#include "attention_options.h"
#include "described_outputs.h"
#include "support/oracle_sdpa.h"

/* The query must not look at data, so it gets none. */
static attn_status workspace_bytes(attn_context *context, const sdpa_call *call, size_t *bytes) {
    attn_tensor query = *call->query, key = *call->key, value = *call->value,
                output = *call->output;
    query.data = key.data = value.data = output.data = NULL;
    return attn_sdpa_workspace_bytes(context, &query, &key, &value, call->given_params, &output,
                                     bytes);
}

static int check_report(const sdpa_call *call, size_t bytes, call_outcome *outcome) {
    if (call->given_params == NULL) {
        return 0;
    }
    if (call->report.workspace_bytes != bytes || call->report.kernels == NULL ||
        call->report.reason == NULL) {
        snprintf(outcome->message, sizeof outcome->message,
                 "report: expected %zu workspace bytes, kernels and a reason, got %llu, %s, %s",
                 bytes, (unsigned long long)call->report.workspace_bytes,
                 call->report.kernels != NULL ? call->report.kernels : "NULL",
                 call->report.reason != NULL ? call->report.reason : "NULL");
        return 1;
    }
    return 0;
}

/* What is described from the inputs alone is what the call is given and accepts. */
static int check_description(const sdpa_call *call, call_outcome *outcome) {
    attn_tensor query = *call->query, key = *call->key, value = *call->value;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    query.data = key.data = value.data = NULL;
    if (call_failed("attn_sdpa_describe_outputs",
                    attn_sdpa_describe_outputs(&query, &key, &value, call->given_params, &outputs),
                    outcome)) {
        return 1;
    }
    const attn_tensor *output = call->output;
    const described_outputs described = {outputs.output, outputs.lse, outputs.weights,
                                         outputs.averaged_weights, outputs.scores};
    described_sizes sizes = {.dtype = query.dtype,
                             .score_dtype = score_dtype(query.dtype),
                             .lead_rank = output->rank - 2,
                             .rows = output->shape[output->rank - 2],
                             .columns = key.shape[key.rank - 2],
                             .has_lse = call->params.normalizer == ATTN_NORMALIZER_SOFTMAX};
    memcpy(sizes.lead, output->shape, sizeof sizes.lead);
    return described_wrongly(&described, output, &sizes, outcome);
}

/* Query, call, and what must be true of memory afterwards. */
static int call_library(const factor_set *set, const factor_case *chosen, sdpa_call *call,
                        call_outcome *outcome) {
    attn_context *context = case_context(set, chosen);
    size_t bytes = 0;
    int failed =
        call_failed("attn_sdpa_workspace_bytes", workspace_bytes(context, call, &bytes), outcome);
    if (!failed) {
        watched_workspace workspace = workspace_create(chosen, bytes);
        pool_begin(&call->pool);
        const attn_status status =
            attn_sdpa(context, call->query, call->key, call->value, call->given_params,
                      call->output, workspace.start, workspace.bytes);
        failed = call_failed("attn_sdpa", status, outcome) ||
                 workspace_check(&workspace, outcome->message, sizeof outcome->message) ||
                 pool_check(&call->pool, outcome->message, sizeof outcome->message) ||
                 check_report(call, bytes, outcome);
        workspace_destroy(&workspace);
    }
    return failed;
}

/* How far the case's kernels may round weights. */
static double weight_unit_of(const factor_set *set, const factor_case *chosen,
                             const sdpa_call *call) {
    const int level = chosen->level[FACTOR_KERNELS];
    const char *kernels =
        level == 0 ? attn_kernels_name(0) : set->factors[FACTOR_KERNELS].level_names[level];
    return chosen->level[FACTOR_FLOAT32_WEIGHTS]
               ? 0
               : oracle_weight_unit(kernels, call->query, call->key, call->value);
}

/* Before the mask scores are of all keys, so that the oracle gets them as they are. */
static int compare_scores(const sdpa_call *call, call_outcome *outcome) {
    if (call->given_params == NULL || call->params.scores == NULL) {
        return 0;
    }
    attn_tensor no_value = *call->value;
    no_value.shape[no_value.rank - 1] = 0;
    oracle_result expected = oracle_sdpa(call->query, call->key, &no_value, call->given_params, 0);
    const int failed = compare_tensor("scores", call->params.scores, &expected.scores,
                                      &outcome->scores, outcome->message, sizeof outcome->message);
    oracle_result_destroy(&expected);
    return failed;
}

static int compare_outputs(double weight_unit, const sdpa_call *call, call_outcome *outcome) {
    const attn_sdpa_params *params = &call->params;
    const int is_averaged = params->weights != NULL && params->weights->rank < call->output->rank;
    attn_sdpa_params others = *params;
    others.scores = NULL;
    oracle_result expected = oracle_sdpa(call->query, &call->seen_key, &call->seen_value,
                                         call->given_params != NULL ? &others : NULL, weight_unit);
    char *message = outcome->message;
    const size_t bytes = sizeof outcome->message;
    int failed =
        compare_tensor("output", call->output, &expected.output, &outcome->output, message, bytes);
    if (!failed && params->lse != NULL) {
        failed = compare_tensor("lse", params->lse, &expected.lse, &outcome->lse, message, bytes);
    }
    if (!failed && params->weights != NULL) {
        const oracle_array *weights = is_averaged ? &expected.average_weights : &expected.weights;
        failed =
            compare_tensor("weights", params->weights, weights, &outcome->weights, message, bytes);
    }
    outcome->num_visible += expected.num_visible;
    outcome->num_seeing += expected.num_visible > 0;
    oracle_result_destroy(&expected);
    return failed;
}

int sdpa_call_run(const factor_set *set, const factor_case *chosen, sdpa_call *call,
                  call_outcome *outcome) {
    ++outcome->num_calls;
    return check_description(call, outcome) || call_library(set, chosen, call, outcome) ||
           compare_outputs(weight_unit_of(set, chosen, call), call, outcome) ||
           compare_scores(call, outcome);
}

int sdpa_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                  call_outcome *outcome) {
    sdpa_call call;
    sdpa_case_build(chosen, seed, free_lengths, &call);
    const int failed = sdpa_call_run(set, chosen, &call, outcome);
    sdpa_call_destroy(&call);
    return failed;
}
