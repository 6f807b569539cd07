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
#include "support/oracle_tensor.h"

/* Copies without data: those who ask about a call must not look at any. */
typedef struct bare_call {
    attn_tensor query, output, keys[2];
    const attn_tensor *key, *value; /* NULL beside kv */
} bare_call;

static void make_bare(const sdpa_call *call, bare_call *bare) {
    *bare = (bare_call){.query = *call->query, .output = *call->output};
    bare->query.data = bare->output.data = NULL;
    if (call->key != NULL) {
        bare->keys[0] = *call->key;
        bare->keys[1] = *call->value;
        bare->keys[0].data = bare->keys[1].data = NULL;
        bare->key = &bare->keys[0];
        bare->value = &bare->keys[1];
    }
}

static attn_status workspace_bytes(attn_context *context, const sdpa_call *call, size_t *bytes) {
    bare_call bare;
    make_bare(call, &bare);
    return attn_sdpa_workspace_bytes(context, &bare.query, bare.key, bare.value, call->given_params,
                                     &bare.output, bytes);
}

static int check_report(const sdpa_call *call, size_t bytes, call_outcome *outcome) {
    if (call->given_params == NULL) {
        return 0;
    }
    /* What the library took for ragged queries is what their numbers need. */
    const int is_less = call->params.query_starts != NULL && call->report.workspace_bytes <= bytes;
    if ((call->report.workspace_bytes != bytes && !is_less) || call->report.kernels == NULL ||
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

/* Columns of the weights that are described. Where sequences have rooms of their own only mask and
 * bias tell them, and else there is room for all. */
static int64_t described_columns(const sdpa_call *call) {
    const attn_sdpa_params *params = &call->params;
    const attn_kv *kv = params->kv;
    if (kv == NULL) {
        return call->key->shape[call->key->rank - 2];
    }
    const attn_tensor *options[] = {params->mask_start == NULL ? params->mask : NULL, params->bias};
    const int64_t rows = kv->key->shape[kv->key->rank - 2];
    for (int i = 0; i < 2 && (kv->starts != NULL || kv->page_starts != NULL); ++i) {
        if (options[i] != NULL && options[i]->shape[options[i]->rank - 1] != 1) {
            return options[i]->shape[options[i]->rank - 1];
        }
    }
    return kv->page_table != NULL ? kv->page_table->shape[kv->page_table->rank - 1] * rows : rows;
}

/* What is described from the inputs alone is what the call is given and accepts. */
static int check_description(const sdpa_call *call, call_outcome *outcome) {
    bare_call bare;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    make_bare(call, &bare);
    if (call_failed("attn_sdpa_describe_outputs",
                    attn_sdpa_describe_outputs(&bare.query, bare.key, bare.value,
                                               call->given_params, &outputs),
                    outcome)) {
        return 1;
    }
    const attn_tensor *output = call->output;
    const described_outputs described = {outputs.output, outputs.lse, outputs.weights,
                                         outputs.averaged_weights, outputs.scores};
    described_sizes sizes = {.dtype = bare.query.dtype,
                             .score_dtype = score_dtype(bare.query.dtype),
                             .lead_rank = output->rank - 2,
                             .rows = output->shape[output->rank - 2],
                             .columns = described_columns(call),
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

double sdpa_case_weight_unit(const factor_set *set, const factor_case *chosen,
                             const sdpa_call *call) {
    const int level = chosen->level[FACTOR_KERNELS];
    const char *kernels =
        level == 0 ? attn_kernels_name(0) : set->factors[FACTOR_KERNELS].level_names[level];
    return chosen->level[FACTOR_FLOAT32_WEIGHTS]
               ? 0
               : oracle_weight_unit(kernels, call->query,
                                    call->key != NULL ? call->key : call->kv.key,
                                    call->value != NULL ? call->value : call->kv.value);
}

/* Columns of keys that no sequence has room for weigh 0. */
static int check_empty_columns(const sdpa_call *call, call_outcome *outcome) {
    const attn_tensor *weights = call->params.weights;
    int64_t index[ATTN_MAX_RANK] = {0};
    if (weights == NULL || oracle_count(weights->rank, weights->shape) == 0) {
        return 0;
    }
    const int64_t keys = call->seen.weights.shape[call->seen.weights.rank - 1];
    do {
        const int64_t column = index[weights->rank - 1];
        if (column >= keys && oracle_element(weights, index) != 0) {
            snprintf(outcome->message, sizeof outcome->message,
                     "weights: expected 0 in column %lld of %lld keys, got %g", (long long)column,
                     (long long)keys, oracle_element(weights, index));
            return 1;
        }
    } while (oracle_next_index(weights->rank, weights->shape, index));
    return 0;
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
    const seen_call *seen = &call->seen;
    attn_sdpa_params others = seen->params;
    others.scores = NULL;
    const attn_sdpa_params *params = &others;
    const int is_averaged = params->weights != NULL && seen->weights.rank < seen->output.rank;
    oracle_result expected = oracle_sdpa(&seen->query, &seen->key, &seen->value,
                                         seen->given_params != NULL ? &others : NULL, weight_unit);
    char *message = outcome->message;
    const size_t bytes = sizeof outcome->message;
    int failed =
        compare_tensor("output", &seen->output, &expected.output, &outcome->output, message, bytes);
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
           check_empty_columns(call, outcome) ||
           compare_outputs(sdpa_case_weight_unit(set, chosen, call), call, outcome) ||
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
