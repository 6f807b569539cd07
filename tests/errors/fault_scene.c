/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault_scene.c: every public function that allocates.
 */
#include "fault_scene.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void nothing(fault_scene *scene) {
    (void)scene;
}

/* Making a context, whose allocator it is from the first byte. */
static attn_status run_context_create(fault_scene *scene) {
    attn_context_config params = {.struct_size = sizeof params, .num_threads = 1};
    counting_allocator_use(&scene->allocator, &params);
    return attn_context_create(&params, &scene->made_context);
}

static void assert_no_context(fault_scene *scene) {
    assert_null(scene->made_context);
}

static void assert_context_computes(fault_scene *scene) {
    sdpa_fixture_prepare(&scene->sdpa, scene->made_context);
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&scene->sdpa));
    sdpa_fixture_assert_values(&scene->sdpa);
}

static void destroy_made_context(fault_scene *scene) {
    attn_context_destroy(scene->made_context);
    scene->made_context = NULL;
}

static attn_status run_mha_create(fault_scene *scene) {
    const attn_mha_config config = mha_fixture_config();
    return attn_mha_create(scene->context, &config, &scene->made_layer);
}

static void assert_no_layer(fault_scene *scene) {
    assert_null(scene->made_layer);
}

static void assert_layer(fault_scene *scene) {
    assert_non_null(scene->made_layer);
}

static void destroy_made_layer(fault_scene *scene) {
    attn_mha_destroy(scene->made_layer);
    scene->made_layer = NULL;
}

void fault_prepare_layer(fault_scene *scene) {
    mha_layer_create(&scene->layer, scene->context);
    mha_fixture_prepare(&scene->mha, scene->context, &scene->layer);
}

void fault_destroy_layer(fault_scene *scene) {
    attn_mha_destroy(scene->layer.layer);
}

/* Loads values that differ from those in place, so that a half-done load would show. */
static attn_status load_other_values(fault_scene *scene, const char *name) {
    mha_parameters other;
    memset(&other, 0, sizeof other);
    const attn_tensor values = mha_parameters_view(&other, name);
    return attn_mha_load_parameter(NULL, scene->layer.layer, name, &values, NULL);
}

attn_status fault_run_load_weight(fault_scene *scene) {
    return load_other_values(scene, "v_proj_weight");
}

static attn_status run_load_stacked_bias(fault_scene *scene) {
    return load_other_values(scene, "in_proj_bias");
}

static void assert_layer_computes(fault_scene *scene) {
    mha_fixture_prepare(&scene->mha, scene->context, &scene->layer);
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&scene->mha));
    mha_fixture_assert_values(&scene->mha);
}

void fault_assert_weight_loaded(fault_scene *scene) {
    memset(scene->layer.parameters.v_weight, 0, sizeof scene->layer.parameters.v_weight);
    assert_layer_computes(scene);
}

static void assert_bias_loaded(fault_scene *scene) {
    memset(scene->layer.parameters.in_bias, 0, sizeof scene->layer.parameters.in_bias);
    assert_layer_computes(scene);
}

static attn_status run_init_parameters(fault_scene *scene) {
    const attn_mha_init_params params = {.struct_size = sizeof params, .seed = 7};
    return attn_mha_init_parameters(scene->context, scene->layer.layer, &params);
}

/* Fresh biases are 0; the bound weight is replaced, its memory not written. */
static void assert_initialised(fault_scene *scene) {
    mha_parameters read;
    mha_parameters bound;
    mha_parameters_fill(&bound);
    refusal_fill(&read, sizeof read);
    for (const char *const *name = mha_parameter_names; *name != NULL; ++name) {
        const attn_tensor values = mha_parameters_view(&read, *name);
        refusal_assert_ok("attn_mha_read_parameter",
                          attn_mha_read_parameter(NULL, scene->layer.layer, *name, &values));
    }
    const double zeros[3 * MHA_E] = {0};
    refusal_assert_close("in_proj_bias", read.in_bias, zeros, 3 * MHA_E);
    refusal_assert_close("out_proj.bias", read.out_bias, zeros, MHA_E);
    assert_memory_equal(scene->layer.parameters.out_weight, bound.out_weight,
                        sizeof bound.out_weight);
    assert_memory_not_equal(read.out_weight, bound.out_weight, sizeof bound.out_weight);
}

attn_status fault_run_forward(fault_scene *scene) {
    return mha_fixture_run(&scene->mha);
}

static void assert_forward_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->mha.memory.output, sizeof scene->mha.memory.output);
}

static void assert_forward_done(fault_scene *scene) {
    mha_fixture_assert_values(&scene->mha);
}

void fault_prepare_sdpa(fault_scene *scene) {
    sdpa_fixture_prepare(&scene->sdpa, scene->context);
}

attn_status fault_run_sdpa(fault_scene *scene) {
    return sdpa_fixture_run(&scene->sdpa);
}

static void assert_sdpa_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->sdpa.memory.output, sizeof scene->sdpa.memory.output);
}

static void assert_sdpa_done(fault_scene *scene) {
    sdpa_fixture_assert_values(&scene->sdpa);
}

void fault_prepare_backward(fault_scene *scene) {
    backward_fixture_prepare(&scene->backward, scene->context);
}

attn_status fault_run_backward(fault_scene *scene) {
    return backward_fixture_run(&scene->backward);
}

static void assert_backward_unchanged(fault_scene *scene) {
    const backward_memory *memory = &scene->backward.memory;
    refusal_assert_untouched("gradients.query", memory->of_query, sizeof memory->of_query);
    refusal_assert_untouched("gradients.key", memory->of_key, sizeof memory->of_key);
    refusal_assert_untouched("gradients.value", memory->of_value, sizeof memory->of_value);
}

static void assert_backward_done(fault_scene *scene) {
    backward_fixture_assert_values(&scene->backward);
}

/* Two runs of ragged queries, whose memory is what the larger one needs. */
void fault_prepare_kv(fault_scene *scene) {
    kv_fixture_prepare(&scene->kv, scene->context, KV_LISTED, true);
}

attn_status fault_run_kv(fault_scene *scene) {
    return kv_fixture_run(&scene->kv);
}

static void assert_kv_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->kv.memory.output, sizeof scene->kv.memory.output);
}

static void assert_kv_done(fault_scene *scene) {
    kv_fixture_assert_values(&scene->kv);
}

void fault_prepare_softmax(fault_scene *scene) {
    softmax_fixture_prepare(&scene->softmax, scene->context);
    softmax_fixture_spread_output(&scene->softmax);
}

attn_status fault_run_softmax(fault_scene *scene) {
    return softmax_fixture_run(&scene->softmax);
}

static void assert_softmax_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->softmax.memory.output,
                             sizeof scene->softmax.memory.output);
}

static void assert_softmax_done(fault_scene *scene) {
    softmax_fixture_assert_values(&scene->softmax);
}

/*
 * A first call that starts the context's threads, though not at once: causality gives its first
 * rows few keys, too few to share. Keys are all 0, so each row is the mean of values that are all
 * 0.25.
 */
static void prepare_large_sdpa(fault_scene *scene) {
    refusal_fill(scene->large_output, sizeof scene->large_output);
}

static attn_status run_large_sdpa_in(fault_scene *scene, void *workspace, size_t bytes) {
    static float query[MANY_ROWS], key[MANY_KEYS], value[MANY_KEYS];
    const int64_t rows[] = {MANY_ROWS, 1};
    const int64_t keys[] = {MANY_KEYS, 1};
    for (int64_t j = 0; j < MANY_KEYS; ++j) {
        value[j] = 0.25f;
    }
    const attn_tensor views[] = {refusal_view(query, ATTN_DTYPE_FLOAT32, 2, rows),
                                 refusal_view(key, ATTN_DTYPE_FLOAT32, 2, keys),
                                 refusal_view(value, ATTN_DTYPE_FLOAT32, 2, keys),
                                 refusal_view(scene->large_output, ATTN_DTYPE_FLOAT32, 2, rows)};
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    return attn_sdpa(scene->context, &views[0], &views[1], &views[2], &params, &views[3], workspace,
                     bytes);
}

attn_status fault_run_large_sdpa(fault_scene *scene) {
    return run_large_sdpa_in(scene, NULL, 0);
}

static void assert_large_sdpa_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->large_output, sizeof scene->large_output);
}

static void assert_large_sdpa_done(fault_scene *scene) {
    double expected[MANY_ROWS];
    for (int64_t i = 0; i < MANY_ROWS; ++i) {
        expected[i] = 0.25;
    }
    refusal_assert_close("output", scene->large_output, expected, MANY_ROWS);
}

/*
 * The gradient of value in a first call: queries of 0 weigh every key alike, so that it is the mean
 * of output's, which are all 0.25. lse is that of scores of 0.
 */
static attn_status run_large_backward(fault_scene *scene) {
    static float query[MANY_ROWS], key[MANY_KEYS], value[MANY_KEYS], output[MANY_ROWS],
        lse[MANY_ROWS], of_output[MANY_ROWS];
    const int64_t rows[] = {MANY_ROWS, 1};
    const int64_t keys[] = {MANY_KEYS, 1};
    for (int64_t i = 0; i < MANY_ROWS; ++i) {
        lse[i] = logf(MANY_KEYS);
        of_output[i] = 0.25f;
    }
    const attn_tensor views[] = {refusal_view(query, ATTN_DTYPE_FLOAT32, 2, rows),
                                 refusal_view(key, ATTN_DTYPE_FLOAT32, 2, keys),
                                 refusal_view(value, ATTN_DTYPE_FLOAT32, 2, keys),
                                 refusal_view(output, ATTN_DTYPE_FLOAT32, 2, rows),
                                 refusal_view(lse, ATTN_DTYPE_FLOAT32, 1, rows),
                                 refusal_view(of_output, ATTN_DTYPE_FLOAT32, 2, rows),
                                 refusal_view(scene->large_output, ATTN_DTYPE_FLOAT32, 2, keys)};
    const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &views[4]};
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients, .output = &views[5], .value = &views[6]};
    return attn_sdpa_backward(scene->context, &views[0], &views[1], &views[2], &params, &views[3],
                              &gradients, NULL, 0);
}

/* Zeros stay zeros, whatever their positions and size. */
void fault_prepare_large_features(fault_scene *scene) {
    refusal_fill(scene->forward_output, sizeof scene->forward_output);
}

static attn_tensor large_features(float *data) {
    const int64_t shape[] = {MANY_ROWS, MANY_FEATURES};
    return refusal_view(data, ATTN_DTYPE_FLOAT32, 2, shape);
}

attn_status fault_run_large_rope(fault_scene *scene) {
    static float input[MANY_ROWS * MANY_FEATURES];
    const attn_tensor from = large_features(input), to = large_features(scene->forward_output);
    return attn_rope(scene->context, &from, NULL, &to);
}

attn_status fault_run_large_rms_norm(fault_scene *scene) {
    static float input[MANY_ROWS * MANY_FEATURES];
    const attn_tensor from = large_features(input), to = large_features(scene->forward_output);
    return attn_rms_norm(scene->context, &from, NULL, &to);
}

/*
 * A first call whose projections start the context's threads: one key makes the attention itself
 * too little to share. Fresh biases are 0, so output is 0 where query, key and value are.
 */
static void prepare_large_forward(fault_scene *scene) {
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = MANY_FEATURES, .num_heads = 1};
    refusal_assert_ok("attn_mha_create",
                      attn_mha_create(scene->context, &config, &scene->made_layer));
    refusal_assert_ok("attn_mha_init_parameters",
                      attn_mha_init_parameters(NULL, scene->made_layer, NULL));
    refusal_fill(scene->forward_output, sizeof scene->forward_output);
}

static attn_status run_large_forward(fault_scene *scene) {
    static float input[MANY_ROWS * MANY_FEATURES];
    const int64_t rows[] = {MANY_ROWS, MANY_FEATURES};
    const int64_t keys[] = {1, MANY_FEATURES};
    const attn_tensor query = refusal_view(input, ATTN_DTYPE_FLOAT32, 2, rows);
    const attn_tensor key = refusal_view(input, ATTN_DTYPE_FLOAT32, 2, keys);
    const attn_tensor output = refusal_view(scene->forward_output, ATTN_DTYPE_FLOAT32, 2, rows);
    return attn_mha_forward(scene->context, scene->made_layer, &query, &key, &key, NULL, &output,
                            NULL, 0);
}

static void assert_large_forward_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->forward_output, sizeof scene->forward_output);
}

void fault_assert_large_forward_done(fault_scene *scene) {
    for (int64_t i = 0; i < MANY_ROWS * MANY_FEATURES; ++i) {
        assert_true(scene->forward_output[i] == 0);
    }
}

/*
 * A first call that starts the context's threads and allocates nothing else. The parts are all
 * alike, so that the merged output is too.
 */
static void prepare_large_merge(fault_scene *scene) {
    for (int64_t i = 0; i < MANY_ROWS * MANY_FEATURES; ++i) {
        scene->forward_output[i] = 0.25f;
    }
    refusal_fill(scene->large_output, sizeof scene->large_output);
}

static attn_status run_large_merge(fault_scene *scene) {
    enum { PARTS = 128, COLS = 32, ROWS = MANY_ROWS / COLS };
    static float logits[ROWS];
    const int64_t shape[] = {ROWS, COLS};
    attn_tensor outputs[PARTS], lses[PARTS];
    for (int part = 0; part < PARTS; ++part) {
        outputs[part] = refusal_view(scene->forward_output, ATTN_DTYPE_FLOAT32, 2, shape);
        lses[part] = refusal_view(logits, ATTN_DTYPE_FLOAT32, 1, shape);
    }
    const attn_tensor output = refusal_view(scene->large_output, ATTN_DTYPE_FLOAT32, 2, shape);
    return attn_sdpa_merge(scene->context, PARTS, outputs, lses, NULL, &output, NULL);
}

static attn_status run_context_start(fault_scene *scene) {
    return attn_context_start(scene->context);
}

/* With the threads there is nothing left to allocate for, not even in a call that needs them. */
static void assert_threads_started(fault_scene *scene) {
    static char workspace[1 << 21];
    const int64_t before = scene->allocator.requests;
    prepare_large_sdpa(scene);
    refusal_assert_ok("attn_sdpa", run_large_sdpa_in(scene, workspace, sizeof workspace));
    assert_large_sdpa_done(scene);
    prepare_large_merge(scene);
    refusal_assert_ok("attn_sdpa_merge", run_large_merge(scene));
    assert_large_sdpa_done(scene);
    refusal_assert_ok("attn_context_start", attn_context_start(scene->context));
    assert_int_equal(scene->allocator.requests, before);
}

/* The gradient of query of the fixture's call, whose forward call saved what it needs. */
static void prepare_layer_gradients(fault_scene *scene) {
    fault_prepare_layer(scene);
    scene->mha.options.saved = scene->saved;
    scene->mha.options.saved_bytes = sizeof scene->saved;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&scene->mha));
    refusal_fill(scene->forward_output, sizeof scene->forward_output);
}

static attn_status run_layer_gradients(fault_scene *scene) {
    attn_tensor of_query = scene->mha.views[MHA_QUERY];
    of_query.data = scene->forward_output;
    const attn_mha_gradients gradients = {.struct_size = sizeof gradients,
                                          .output = &scene->mha.views[MHA_OUTPUT],
                                          .query = &of_query};
    return attn_mha_backward(scene->context, scene->layer.layer, scene->mha.arguments[MHA_QUERY],
                             scene->mha.arguments[MHA_KEY], scene->mha.arguments[MHA_VALUE],
                             scene->mha.params, &gradients, NULL, 0);
}

static void assert_no_layer_gradients(fault_scene *scene) {
    refusal_assert_untouched("gradients.query", scene->forward_output,
                             sizeof scene->mha.memory.query);
}

/* They are what a call that allocates nothing finds. */
static void assert_layer_gradients(fault_scene *scene) {
    float found[MHA_N * MHA_L * MHA_E];
    memcpy(found, scene->forward_output, sizeof found);
    refusal_assert_ok("attn_mha_backward", run_layer_gradients(scene));
    assert_memory_equal(found, scene->forward_output, sizeof found);
    bool has_some = false;
    for (size_t i = 0; i < sizeof found / sizeof found[0]; ++i) {
        has_some = has_some || (found[i] != 0 && isfinite(found[i]));
    }
    assert_true(has_some);
}

const fault_scenario fault_scenarios[] = {
    {"context_create", 1, nothing, run_context_create, assert_no_context, assert_context_computes,
     destroy_made_context, "context: allocation of ..."},
    {"context_start", 3, nothing, run_context_start, nothing, assert_threads_started, nothing,
     "num_threads: 3 threads could not be started: out of memory"},
    {"mha_create", 1, nothing, run_mha_create, assert_no_layer, assert_layer, destroy_made_layer,
     "layer: allocation of ..."},
    {"mha_load_parameter", 1, fault_prepare_layer, fault_run_load_weight, assert_layer_computes,
     fault_assert_weight_loaded, fault_destroy_layer, "v_proj_weight: allocation of ..."},
    {"mha_load_stacked_parameter", 1, fault_prepare_layer, run_load_stacked_bias,
     assert_layer_computes, assert_bias_loaded, fault_destroy_layer,
     "in_proj_bias: allocation of ..."},
    {"mha_init_parameters", 1, fault_prepare_layer, run_init_parameters, assert_layer_computes,
     assert_initialised, fault_destroy_layer, "..."},
    {"mha_forward", 1, fault_prepare_layer, fault_run_forward, assert_forward_unchanged,
     assert_forward_done, fault_destroy_layer, "workspace: allocation of ..."},
    {"mha_backward", 1, prepare_layer_gradients, run_layer_gradients, assert_no_layer_gradients,
     assert_layer_gradients, fault_destroy_layer, "workspace: allocation of ..."},
    {"sdpa", 1, fault_prepare_sdpa, fault_run_sdpa, assert_sdpa_unchanged, assert_sdpa_done,
     nothing, "workspace: allocation of ..."},
    {"sdpa_backward", 1, fault_prepare_backward, fault_run_backward, assert_backward_unchanged,
     assert_backward_done, nothing, "workspace: allocation of ..."},
    {"sdpa_with_kv", 1, fault_prepare_kv, fault_run_kv, assert_kv_unchanged, assert_kv_done,
     nothing, "workspace: allocation of ..."},
    {"softmax", 1, fault_prepare_softmax, fault_run_softmax, assert_softmax_unchanged,
     assert_softmax_done, nothing, "workspace: allocation of ..."},
    {"sdpa_that_starts_threads", 3, prepare_large_sdpa, fault_run_large_sdpa,
     assert_large_sdpa_unchanged, assert_large_sdpa_done, nothing, "..."},
    {"sdpa_backward_that_starts_threads", 3, prepare_large_sdpa, run_large_backward,
     assert_large_sdpa_unchanged, assert_large_sdpa_done, nothing, "..."},
    {"rope_that_starts_threads", 3, fault_prepare_large_features, fault_run_large_rope,
     assert_large_forward_unchanged, fault_assert_large_forward_done, nothing, "..."},
    {"rms_norm_that_starts_threads", 3, fault_prepare_large_features, fault_run_large_rms_norm,
     assert_large_forward_unchanged, fault_assert_large_forward_done, nothing, "..."},
    {"sdpa_merge_that_starts_threads", 3, prepare_large_merge, run_large_merge,
     assert_large_sdpa_unchanged, assert_large_sdpa_done, nothing, "..."},
    {"mha_forward_that_starts_threads", 3, prepare_large_forward, run_large_forward,
     assert_large_forward_unchanged, fault_assert_large_forward_done, destroy_made_layer, "..."},
};

const size_t num_fault_scenarios = sizeof fault_scenarios / sizeof fault_scenarios[0];
