/* SPDX-License-Identifier: BSD-3-Clause
 *
 * struct_cases.c: every function that takes a struct with struct_size.
 */
#include "struct_cases.h"

#include "backward_struct_calls.h"
#include "mha_backward_struct_calls.h"
#include "errors/merge_fixture.h"
#include "errors/mha_fixture.h"
#include "errors/rope_fixture.h"
#include "errors/sdpa_fixture.h"
#include "errors/softmax_fixture.h"

static mha_layer layer;
static sdpa_fixture sources; /* of valid_kv */
static mha_fixture cached;   /* of valid_mha_cache and valid_mha_rope */

/* A cache of 2 heads, 3 rows and 4 features, and a new row for it. */
static float append_cached[2][3][4], append_values[2][3][4], append_rows[2][1][4];
static int64_t append_lengths[1];
static const attn_tensor append_views[] = {
    {append_cached, ATTN_DTYPE_FLOAT32, 3, {2, 3, 4}, {12, 4, 1}},
    {append_values, ATTN_DTYPE_FLOAT32, 3, {2, 3, 4}, {12, 4, 1}},
    {append_lengths, ATTN_DTYPE_INT64, 0, {0}, {0}},
};
static const attn_kv valid_cache = {.struct_size = sizeof valid_cache,
                                    .key = &append_views[0],
                                    .value = &append_views[1],
                                    .lengths = &append_views[2]};

/* ---- the calls; a success has the right numbers ---- */

static attn_status call_context_create(void *params) {
    attn_context *context = NULL;
    const attn_status status = attn_context_create(params, &context);
    attn_context_destroy(context);
    return status;
}

static attn_status call_context_describe(void *info) {
    return attn_context_describe(NULL, info);
}

static attn_status call_rope(void *params) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = rope_fixture_run(&fixture);
    if (status == ATTN_OK) {
        rope_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_rms_norm(void *params) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, NULL);
    fixture.norm_params = params;
    const attn_status status = rope_fixture_normalize(&fixture);
    if (status == ATTN_OK) {
        rope_fixture_assert_normalized(&fixture);
    }
    return status;
}

static attn_status call_softmax(void *params) {
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = softmax_fixture_run(&fixture);
    if (status == ATTN_OK) {
        softmax_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_softmax_workspace_bytes(void *params) {
    softmax_fixture fixture;
    size_t bytes;
    softmax_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return softmax_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status run_sdpa(const attn_sdpa_params *params) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = sdpa_fixture_run(&fixture);
    if (status == ATTN_OK) {
        sdpa_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_sdpa(void *params) {
    return run_sdpa(params);
}

static attn_status call_sdpa_workspace_bytes(void *params) {
    sdpa_fixture fixture;
    size_t bytes;
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_explain(void *params) {
    sdpa_fixture fixture;
    attn_sdpa_report report = {.struct_size = sizeof report};
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_explain(&fixture, &report);
}

static attn_status call_sdpa_dropout(void *dropout) {
    const attn_sdpa_params params = {.struct_size = sizeof params, .dropout = dropout};
    return run_sdpa(&params);
}

static attn_status call_sdpa_report(void *report) {
    const attn_sdpa_params params = {.struct_size = sizeof params, .report = report};
    return run_sdpa(&params);
}

static attn_status call_sdpa_explain_report(void *report) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    return sdpa_fixture_explain(&fixture, report);
}

static attn_status call_sdpa_merge(void *params) {
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = merge_fixture_run(&fixture);
    if (status == ATTN_OK) {
        merge_fixture_assert_values(&fixture);
    }
    return status;
}

/* The fixture's call with its key and value in a kv. */
static void prepare_kv(sdpa_fixture *fixture, void *kv) {
    sdpa_fixture_prepare(fixture, NULL);
    fixture->arguments[SDPA_KEY] = NULL;
    fixture->arguments[SDPA_VALUE] = NULL;
    fixture->options.kv = kv;
}

static attn_status call_sdpa_kv(void *kv) {
    sdpa_fixture fixture;
    prepare_kv(&fixture, kv);
    const attn_status status = sdpa_fixture_run(&fixture);
    if (status == ATTN_OK) {
        sdpa_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_sdpa_workspace_bytes_kv(void *kv) {
    sdpa_fixture fixture;
    size_t bytes;
    prepare_kv(&fixture, kv);
    return sdpa_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_explain_kv(void *kv) {
    sdpa_fixture fixture;
    attn_sdpa_report report = {.struct_size = sizeof report};
    prepare_kv(&fixture, kv);
    return sdpa_fixture_explain(&fixture, &report);
}

static attn_status call_sdpa_describe_outputs_kv(void *kv) {
    sdpa_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    prepare_kv(&fixture, kv);
    return sdpa_fixture_describe_outputs(&fixture, &outputs);
}

/* A row at the end of a cache that is full with it. */
static attn_status append_to(const attn_kv *kv, const attn_kv_append_params *params) {
    const int64_t shape[] = {2, 1, 4};
    append_lengths[0] = 3;
    const attn_tensor rows = refusal_view(append_rows, ATTN_DTYPE_FLOAT32, 3, shape);
    append_cached[0][2][0] = 0;
    append_rows[0][0][0] = 5;
    const attn_status status = attn_kv_append(NULL, kv, &rows, &rows, params);
    if (status == ATTN_OK) {
        assert_true(append_cached[0][2][0] == 5);
    }
    return status;
}

static attn_status call_kv_append_kv(void *kv) {
    return append_to(kv, NULL);
}

static attn_status call_kv_append(void *params) {
    return append_to(&valid_cache, params);
}

static attn_status call_mha_create(void *config) {
    attn_mha *made = NULL;
    const attn_status status = attn_mha_create(NULL, config, &made);
    attn_mha_destroy(made);
    return status;
}

static attn_status run_mha(const attn_mha_params *params) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    const attn_status status = mha_fixture_run(&fixture);
    if (status == ATTN_OK) {
        mha_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_mha_forward(void *params) {
    return run_mha(params);
}

static attn_status call_mha_workspace_bytes(void *params) {
    mha_fixture fixture;
    size_t bytes;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_describe_outputs(void *params) {
    sdpa_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_describe_outputs(&fixture, &outputs);
}

static attn_status call_sdpa_describe_outputs_into(void *outputs) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    return sdpa_fixture_describe_outputs(&fixture, outputs);
}

static attn_status explain_mha(const attn_mha_params *params, attn_mha_report *report) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_explain(&fixture, report);
}

static attn_status call_mha_explain(void *params) {
    attn_mha_report report = {.struct_size = sizeof report};
    return explain_mha(params, &report);
}

static attn_status call_mha_explain_attention(void *attention) {
    const attn_mha_params params = {.struct_size = sizeof params, .attention = attention};
    attn_mha_report report = {.struct_size = sizeof report};
    return explain_mha(&params, &report);
}

/* The report of the attention stays where it was. */
static attn_status call_mha_explain_report(void *report) {
    attn_sdpa_report attention = {.struct_size = sizeof attention};
    ((attn_mha_report *)report)->attention = &attention;
    const attn_status status = explain_mha(NULL, report);
    if (status == ATTN_OK) {
        assert_ptr_equal(((attn_mha_report *)report)->attention, &attention);
        assert_non_null(attention.reason);
    } else {
        refusal_fill(&((attn_mha_report *)report)->attention, sizeof(attn_sdpa_report *));
    }
    return status;
}

static attn_status call_mha_explain_attention_report(void *attention) {
    attn_mha_report report = {.struct_size = sizeof report, .attention = attention};
    return explain_mha(NULL, &report);
}

static attn_status call_mha_describe(void *config) {
    return attn_mha_describe(layer.layer, config);
}

static attn_status call_mha_describe_outputs(void *params) {
    mha_fixture fixture;
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_describe_outputs(&fixture, &outputs);
}

static attn_status call_mha_describe_outputs_into(void *outputs) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    return mha_fixture_describe_outputs(&fixture, outputs);
}

static attn_status call_mha_load_parameter(void *params) {
    const attn_tensor values = mha_parameters_view(&layer.parameters, "q_proj_weight");
    return attn_mha_load_parameter(NULL, layer.layer, "q_proj_weight", &values, params);
}

static attn_status call_mha_init_parameters(void *params) {
    const attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 2, .num_heads = 1};
    attn_mha *made;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &made));
    const attn_status status = attn_mha_init_parameters(NULL, made, params);
    attn_mha_destroy(made);
    return status;
}

static attn_status call_mha_attention(void *attention) {
    const attn_mha_params params = {.struct_size = sizeof params, .attention = attention};
    return run_mha(&params);
}

static attn_status call_mha_attention_dropout(void *dropout) {
    const attn_sdpa_params attention = {.struct_size = sizeof attention, .dropout = dropout};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    return run_mha(&params);
}

static attn_status call_mha_attention_report(void *report) {
    const attn_sdpa_params attention = {.struct_size = sizeof attention, .report = report};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    return run_mha(&params);
}

static attn_status call_mha_cache(void *cache) {
    const attn_mha_params params = {.struct_size = sizeof params, .cache = cache};
    return run_mha(&params);
}

static attn_status call_mha_rope(void *rope) {
    const attn_mha_params params = {.struct_size = sizeof params, .rope = rope};
    return run_mha(&params);
}

/* ---- what a struct may be ---- */

static const attn_mha_config valid_config = {
    .struct_size = sizeof valid_config, .embed_dim = 8, .num_heads = 2};

static const attn_kv valid_kv = {.struct_size = sizeof valid_kv,
                                 .key = &sources.views[SDPA_KEY],
                                 .value = &sources.views[SDPA_VALUE]};

static const attn_kv valid_mha_cache = {.struct_size = sizeof valid_mha_cache,
                                        .key = &cached.views[MHA_KV_KEY],
                                        .value = &cached.views[MHA_KV_VALUE],
                                        .lengths = &cached.views[MHA_KV_LENGTHS]};

/* Positions 0, which leave everything where it is. */
static const attn_rope_params valid_mha_rope = {.struct_size = sizeof valid_mha_rope,
                                                .positions = &cached.views[MHA_ROPE_POSITIONS]};

#define STRUCT(type, release_0_1) .first_bytes = (release_0_1), .known_bytes = sizeof(type)

/* Read by the library. */
const tail_case tail_options[] = {
    {"attn_context_create", "config", STRUCT(attn_context_config, 72), .call = call_context_create},
    {"attn_rope", "params", STRUCT(attn_rope_params, 80), .call = call_rope},
    {"attn_rms_norm", "params", STRUCT(attn_rms_norm_params, 32), .call = call_rms_norm},
    {"attn_softmax", "params", STRUCT(attn_softmax_params, 40), .call = call_softmax},
    {"attn_softmax_workspace_bytes", "params", STRUCT(attn_softmax_params, 40),
     .call = call_softmax_workspace_bytes},
    {"attn_sdpa", "params", STRUCT(attn_sdpa_params, 136), .call = call_sdpa},
    {"attn_sdpa", "dropout", STRUCT(attn_dropout, 64), .call = call_sdpa_dropout},
    {"attn_sdpa_workspace_bytes", "params", STRUCT(attn_sdpa_params, 136),
     .call = call_sdpa_workspace_bytes},
    {"attn_sdpa_explain", "params", STRUCT(attn_sdpa_params, 136), .call = call_sdpa_explain},
    {"attn_sdpa_merge", "params", STRUCT(attn_merge_params, 16), .call = call_sdpa_merge},
    {"attn_sdpa_backward", "gradients", STRUCT(attn_sdpa_gradients, 104), .valid = &valid_gradients,
     .call = call_backward_gradients},
    {"attn_sdpa_backward_workspace_bytes", "gradients", STRUCT(attn_sdpa_gradients, 104),
     .valid = &valid_gradients, .call = call_backward_workspace_bytes_gradients},
    {"attn_sdpa_backward_explain", "gradients", STRUCT(attn_sdpa_gradients, 104),
     .valid = &valid_gradients, .call = call_backward_explain_gradients},
    {"attn_sdpa_backward", "params", STRUCT(attn_sdpa_params, 136), .valid = &valid_backward_params,
     .call = call_backward_params},
    {"attn_sdpa_backward_workspace_bytes", "params", STRUCT(attn_sdpa_params, 136),
     .valid = &valid_backward_params, .call = call_backward_workspace_bytes_params},
    {"attn_sdpa_backward_explain", "params", STRUCT(attn_sdpa_params, 136),
     .valid = &valid_backward_params, .call = call_backward_explain_params},
    {"attn_sdpa_backward", "kv", STRUCT(attn_kv, 56), .valid = &valid_backward_kv,
     .call = call_backward_kv},
    {"attn_sdpa", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv, .call = call_sdpa_kv},
    {"attn_sdpa_workspace_bytes", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_workspace_bytes_kv},
    {"attn_sdpa_explain", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_explain_kv},
    {"attn_sdpa_describe_outputs", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_describe_outputs_kv},
    {"attn_kv_append", "kv", STRUCT(attn_kv, 56), .valid = &valid_cache, .call = call_kv_append_kv},
    {"attn_kv_append", "params", STRUCT(attn_kv_append_params, 24), .call = call_kv_append},
    {"attn_mha_create", "config", STRUCT(attn_mha_config, 96), .valid = &valid_config,
     .call = call_mha_create},
    {"attn_mha_forward", "params", STRUCT(attn_mha_params, 32), .call = call_mha_forward},
    {"attn_mha_backward", "gradients", STRUCT(attn_mha_gradients, 72),
     .valid = &valid_layer_gradients, .call = call_mha_backward_gradients},
    {"attn_mha_backward_workspace_bytes", "gradients", STRUCT(attn_mha_gradients, 72),
     .valid = &valid_layer_gradients, .call = call_mha_backward_workspace_bytes_gradients},
    {"attn_mha_backward", "gradients.attention", STRUCT(attn_sdpa_gradients, 104),
     .valid = &valid_layer_attention_gradients, .call = call_mha_backward_attention},
    {"attn_mha_workspace_bytes", "params", STRUCT(attn_mha_params, 32),
     .call = call_mha_workspace_bytes},
    {"attn_mha_forward", "attention", STRUCT(attn_sdpa_params, 136), .call = call_mha_attention},
    {"attn_mha_forward", "attention.dropout", STRUCT(attn_dropout, 64),
     .call = call_mha_attention_dropout},
    {"attn_mha_forward", "cache", STRUCT(attn_kv, 56), .valid = &valid_mha_cache,
     .call = call_mha_cache},
    {"attn_mha_forward", "rope", STRUCT(attn_rope_params, 80), .valid = &valid_mha_rope,
     .call = call_mha_rope},
    {"attn_sdpa_describe_outputs", "params", STRUCT(attn_sdpa_params, 136),
     .call = call_sdpa_describe_outputs},
    {"attn_mha_explain", "params", STRUCT(attn_mha_params, 32), .call = call_mha_explain},
    {"attn_mha_explain", "attention", STRUCT(attn_sdpa_params, 136),
     .call = call_mha_explain_attention},
    {"attn_mha_describe_outputs", "params", STRUCT(attn_mha_params, 32),
     .call = call_mha_describe_outputs},
    {"attn_mha_load_parameter", "params", STRUCT(attn_mha_load_params, 8),
     .call = call_mha_load_parameter},
    {"attn_mha_init_parameters", "params", STRUCT(attn_mha_init_params, 16),
     .call = call_mha_init_parameters},
};

/* Filled by the library. */
const tail_case tail_results[] = {
    {"attn_context_describe", "info", STRUCT(attn_context_info, 48), .call = call_context_describe},
    {"attn_sdpa", "report", STRUCT(attn_sdpa_report, 64), .call = call_sdpa_report},
    {"attn_sdpa_explain", "report", STRUCT(attn_sdpa_report, 64), .call = call_sdpa_explain_report},
    {"attn_sdpa_backward_explain", "report", STRUCT(attn_sdpa_backward_report, 64),
     .call = call_backward_report},
    {"attn_mha_forward", "attention.report", STRUCT(attn_sdpa_report, 64),
     .call = call_mha_attention_report},
    {"attn_mha_explain", "report", STRUCT(attn_mha_report, 40), .call = call_mha_explain_report},
    {"attn_mha_explain", "report.attention", STRUCT(attn_sdpa_report, 64),
     .call = call_mha_explain_attention_report},
    {"attn_mha_describe", "config", STRUCT(attn_mha_config, 96), .call = call_mha_describe},
    {"attn_sdpa_describe_outputs", "outputs", STRUCT(attn_sdpa_outputs, 584),
     .call = call_sdpa_describe_outputs_into},
    {"attn_mha_describe_outputs", "outputs", STRUCT(attn_mha_outputs, 584),
     .call = call_mha_describe_outputs_into},
};

const size_t num_tail_options = sizeof tail_options / sizeof tail_options[0];
const size_t num_tail_results = sizeof tail_results / sizeof tail_results[0];

void struct_cases_create(void) {
    mha_layer_create(&layer, NULL);
    sdpa_fixture_prepare(&sources, NULL);
    mha_fixture_prepare(&cached, NULL, &layer);
    mha_fixture_cache(&cached, MHA_CACHE_OWN);
    backward_struct_calls_create();
    mha_backward_struct_calls_create();
}

void struct_cases_destroy(void) {
    mha_backward_struct_calls_destroy();
    attn_mha_destroy(layer.layer);
}
