/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_case.c: runs one attn_mha_forward case and compares all of its outputs with the oracle.
 */
#include "mha_case.h"

#include <stdio.h>

#include "attention_options.h"
#include "described_outputs.h"

static attn_status workspace_bytes(attn_context *context, const attn_mha *layer,
                                   const mha_call *call, size_t *bytes) {
    attn_tensor query = *call->query, key = *call->key, value = *call->value,
                output = *call->output;
    query.data = key.data = value.data = output.data = NULL;
    return attn_mha_workspace_bytes(context, layer, &query, &key, &value, call->given_params,
                                    &output, bytes);
}

/* What is described from the inputs alone is what the call is given and accepts. */
static int check_description(const attn_mha *layer, const mha_call *call, call_outcome *outcome) {
    attn_tensor query = *call->query, key = *call->key, value = *call->value;
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    query.data = key.data = value.data = NULL;
    if (call_failed(
            "attn_mha_describe_outputs",
            attn_mha_describe_outputs(layer, &query, &key, &value, call->given_params, &outputs),
            outcome)) {
        return 1;
    }
    const oracle_mha_sizes layer_sizes = oracle_mha_resolve(&call->config);
    const described_outputs described = {outputs.output, outputs.lse, outputs.weights,
                                         outputs.averaged_weights, outputs.scores};
    const int has_batch = query.rank == 3, rows_axis = has_batch && call->config.batch_first;
    described_sizes sizes = {.dtype = layer_sizes.dtype,
                             .score_dtype = score_dtype(layer_sizes.dtype),
                             .rows = query.shape[rows_axis],
                             .columns = key.shape[rows_axis] + layer_sizes.extra_keys,
                             .has_lse = call->attention.normalizer == ATTN_NORMALIZER_SOFTMAX};
    if (has_batch) {
        sizes.lead[sizes.lead_rank++] = query.shape[1 - rows_axis];
    }
    sizes.lead[sizes.lead_rank++] = layer_sizes.num_heads;
    return described_wrongly(&described, call->output, &sizes, outcome);
}

/* The report of the layer and of its attention agree with the context and the workspace. */
static int check_explanation(attn_context *context, const attn_mha *layer, const mha_call *call,
                             size_t bytes, call_outcome *outcome) {
    attn_context_info info = {.struct_size = sizeof info};
    attn_sdpa_report inner = {.struct_size = sizeof inner};
    attn_mha_report report = {.struct_size = sizeof report, .attention = &inner};
    if (call_failed("attn_context_describe", attn_context_describe(context, &info), outcome) ||
        call_failed("attn_mha_explain",
                    attn_mha_explain(context, layer, call->query, call->key, call->value,
                                     call->given_params, call->output, &report),
                    outcome)) {
        return 1;
    }
    const int by_blas = info.projection_gemm == ATTN_GEMM_BLAS;
    const int depends = report.depends_on_blas_threads;
    const int is_told =
        report.projection_gemm == info.projection_gemm && (!by_blas || depends == 1) &&
        (by_blas || depends == inner.depends_on_blas_threads) && report.workspace_bytes == bytes &&
        report.kernels != NULL && inner.reason != NULL && inner.engine != ATTN_ENGINE_AUTO;
    if (!is_told) {
        snprintf(outcome->message, sizeof outcome->message,
                 "attn_mha_explain: expected projections by %d and %zu workspace bytes, got %d and "
                 "%llu, depends_on_blas_threads %d, attention %s",
                 (int)info.projection_gemm, bytes, (int)report.projection_gemm,
                 (unsigned long long)report.workspace_bytes, (int)report.depends_on_blas_threads,
                 inner.reason != NULL ? inner.reason : "not told");
    }
    return !is_told;
}

static int run_forward(attn_context *context, const attn_mha *layer, const factor_case *chosen,
                       mha_call *call, call_outcome *outcome) {
    size_t bytes = 0;
    if (call_failed("attn_mha_workspace_bytes", workspace_bytes(context, layer, call, &bytes),
                    outcome)) {
        return 1;
    }
    if (check_explanation(context, layer, call, bytes, outcome)) {
        return 1;
    }
    watched_workspace workspace = workspace_create(chosen, bytes);
    pool_begin(&call->pool);
    const attn_status status =
        attn_mha_forward(context, layer, call->query, call->key, call->value, call->given_params,
                         call->output, workspace.start, workspace.bytes);
    const int failed = call_failed("attn_mha_forward", status, outcome) ||
                       workspace_check(&workspace, outcome->message, sizeof outcome->message) ||
                       pool_check(&call->pool, outcome->message, sizeof outcome->message);
    workspace_destroy(&workspace);
    return failed;
}

static int call_library(const factor_set *set, const factor_case *chosen, mha_call *call,
                        call_outcome *outcome) {
    attn_mha *layer = mha_call_layer(call, outcome);
    if (layer == NULL) {
        return 1;
    }
    attn_context *context = case_context(set, chosen);
    const int failed = check_description(layer, call, outcome) ||
                       run_forward(context, layer, chosen, call, outcome);
    attn_mha_destroy(layer);
    return failed;
}

/* The output with its batch axis first, as the oracle gives it. */
static attn_tensor batch_first_view(const mha_call *call) {
    attn_tensor view = *call->output;
    if (view.rank == 3 && !call->config.batch_first) {
        view.shape[0] = call->output->shape[1];
        view.strides[0] = call->output->strides[1];
        view.shape[1] = call->output->shape[0];
        view.strides[1] = call->output->strides[0];
    }
    return view;
}

static int compare_outputs(const mha_call *call, call_outcome *outcome) {
    const attn_sdpa_params *inner = &call->attention;
    const attn_tensor *weights = inner->weights;
    const int has_batch = call->query->rank == 3;
    const int is_per_head = weights != NULL && weights->rank == 3 + has_batch;
    const attn_tensor output = batch_first_view(call);
    oracle_mha_result expected =
        oracle_mha(&call->config, call->parameters, call->num_parameters, call->query,
                   &call->seen_key, &call->seen_value, call->given_params);
    char *message = outcome->message;
    const size_t bytes = sizeof outcome->message;
    int failed =
        compare_tensor("output", &output, &expected.output, &outcome->output, message, bytes);
    if (!failed && inner->lse != NULL) {
        failed =
            compare_tensor("lse", inner->lse, &expected.inner.lse, &outcome->lse, message, bytes);
    }
    if (!failed && weights != NULL) {
        const oracle_array *values =
            is_per_head ? &expected.inner.weights : &expected.inner.average_weights;
        failed = compare_tensor("weights", weights, values, &outcome->weights, message, bytes);
    }
    outcome->num_visible += expected.inner.num_visible;
    outcome->num_seeing += expected.inner.num_visible > 0;
    oracle_mha_result_destroy(&expected);
    return failed;
}

/* Before the mask scores are of all keys, so that the oracle gets them as they are. */
static int compare_scores(const mha_call *call, call_outcome *outcome) {
    if (call->given_params == NULL || call->params.attention == NULL ||
        call->attention.scores == NULL) {
        return 0;
    }
    oracle_mha_result expected =
        oracle_mha(&call->config, call->parameters, call->num_parameters, call->query, call->key,
                   call->value, call->given_params);
    const int failed = compare_tensor("scores", call->attention.scores, &expected.inner.scores,
                                      &outcome->scores, outcome->message, sizeof outcome->message);
    oracle_mha_result_destroy(&expected);
    return failed;
}

int mha_call_run(const factor_set *set, const factor_case *chosen, mha_call *call,
                 call_outcome *outcome) {
    ++outcome->num_calls;
    return call_library(set, chosen, call, outcome) || compare_outputs(call, outcome) ||
           compare_scores(call, outcome);
}

int mha_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                 call_outcome *outcome) {
    mha_call call;
    mha_case_build(chosen, seed, free_lengths, &call);
    const int failed = mha_call_run(set, chosen, &call, outcome);
    mha_call_destroy(&call);
    return failed;
}
