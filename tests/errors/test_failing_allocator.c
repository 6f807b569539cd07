/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_failing_allocator.c: every public function that allocates, with the n-th allocation failing
 * for n = 1, 2, ... until it succeeds, once alone and once with all that follow. Each failure must
 * be ATTN_ERROR_MEMORY, leak nothing, write nothing and leave every object as it was; the same call
 * then succeeds with the right numbers. And with the caller's workspace no call allocates at all.
 */
#include <stdio.h>
#include <string.h>

#include "counting_allocator.h"
#include "kv_fixture.h"
#include "mha_fixture.h"
#include "sdpa_fixture.h"
#include "softmax_fixture.h"

/* Calls large enough to be shared among threads. */
enum { MANY_ROWS = 1024, MANY_KEYS = MANY_ROWS, MANY_FEATURES = 64 };

/* Everything a scenario may need; the context is made before its `prepare`. */
typedef struct fault_scene {
    counting_allocator allocator;
    attn_context *context;
    attn_context *made_context;
    mha_layer layer;
    attn_mha *made_layer;
    sdpa_fixture sdpa;
    kv_fixture kv;
    softmax_fixture softmax;
    mha_fixture mha;
    float large_output[MANY_ROWS];
    float forward_output[MANY_ROWS * MANY_FEATURES];
} fault_scene;

/* One call under test. assert_unchanged looks for effects of a failed call, assert_done for those
 * of a successful one. */
typedef struct fault_scenario {
    const char *name;
    int32_t num_threads;
    void (*prepare)(fault_scene *scene);
    attn_status (*run)(fault_scene *scene);
    void (*assert_unchanged)(fault_scene *scene);
    void (*assert_done)(fault_scene *scene);
    void (*clean_up)(fault_scene *scene);
    const char *line;
} fault_scenario;

static int64_t injected_faults;

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

static void prepare_layer(fault_scene *scene) {
    mha_layer_create(&scene->layer, scene->context);
    mha_fixture_prepare(&scene->mha, scene->context, &scene->layer);
}

static void destroy_layer(fault_scene *scene) {
    attn_mha_destroy(scene->layer.layer);
}

/* Loads values that differ from those in place, so that a half-done load would show. */
static attn_status load_other_values(fault_scene *scene, const char *name) {
    mha_parameters other;
    memset(&other, 0, sizeof other);
    const attn_tensor values = mha_parameters_view(&other, name);
    return attn_mha_load_parameter(NULL, scene->layer.layer, name, &values, NULL);
}

static attn_status run_load_weight(fault_scene *scene) {
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

static void assert_weight_loaded(fault_scene *scene) {
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

static attn_status run_forward(fault_scene *scene) {
    return mha_fixture_run(&scene->mha);
}

static void assert_forward_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->mha.memory.output, sizeof scene->mha.memory.output);
}

static void assert_forward_done(fault_scene *scene) {
    mha_fixture_assert_values(&scene->mha);
}

static void prepare_sdpa(fault_scene *scene) {
    sdpa_fixture_prepare(&scene->sdpa, scene->context);
}

static attn_status run_sdpa(fault_scene *scene) {
    return sdpa_fixture_run(&scene->sdpa);
}

static void assert_sdpa_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->sdpa.memory.output, sizeof scene->sdpa.memory.output);
}

static void assert_sdpa_done(fault_scene *scene) {
    sdpa_fixture_assert_values(&scene->sdpa);
}

/* Two runs of ragged queries, whose memory is what the larger one needs. */
static void prepare_kv(fault_scene *scene) {
    kv_fixture_prepare(&scene->kv, scene->context, KV_LISTED, true);
}

static attn_status run_kv(fault_scene *scene) {
    return kv_fixture_run(&scene->kv);
}

static void assert_kv_unchanged(fault_scene *scene) {
    refusal_assert_untouched("output", scene->kv.memory.output, sizeof scene->kv.memory.output);
}

static void assert_kv_done(fault_scene *scene) {
    kv_fixture_assert_values(&scene->kv);
}

static void prepare_softmax(fault_scene *scene) {
    softmax_fixture_prepare(&scene->softmax, scene->context);
    softmax_fixture_spread_output(&scene->softmax);
}

static attn_status run_softmax(fault_scene *scene) {
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

static attn_status run_large_sdpa(fault_scene *scene) {
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

/* Zeros stay zeros, whatever their positions and size. */
static void prepare_large_features(fault_scene *scene) {
    refusal_fill(scene->forward_output, sizeof scene->forward_output);
}

static attn_tensor large_features(float *data) {
    const int64_t shape[] = {MANY_ROWS, MANY_FEATURES};
    return refusal_view(data, ATTN_DTYPE_FLOAT32, 2, shape);
}

static attn_status run_large_rope(fault_scene *scene) {
    static float input[MANY_ROWS * MANY_FEATURES];
    const attn_tensor from = large_features(input), to = large_features(scene->forward_output);
    return attn_rope(scene->context, &from, NULL, &to);
}

static attn_status run_large_rms_norm(fault_scene *scene) {
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

static void assert_large_forward_done(fault_scene *scene) {
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

static const fault_scenario scenarios[] = {
    {"context_create", 1, nothing, run_context_create, assert_no_context, assert_context_computes,
     destroy_made_context, "context: allocation of ..."},
    {"context_start", 3, nothing, run_context_start, nothing, assert_threads_started, nothing,
     "num_threads: 3 threads could not be started: out of memory"},
    {"mha_create", 1, nothing, run_mha_create, assert_no_layer, assert_layer, destroy_made_layer,
     "layer: allocation of ..."},
    {"mha_load_parameter", 1, prepare_layer, run_load_weight, assert_layer_computes,
     assert_weight_loaded, destroy_layer, "v_proj_weight: allocation of ..."},
    {"mha_load_stacked_parameter", 1, prepare_layer, run_load_stacked_bias, assert_layer_computes,
     assert_bias_loaded, destroy_layer, "in_proj_bias: allocation of ..."},
    {"mha_init_parameters", 1, prepare_layer, run_init_parameters, assert_layer_computes,
     assert_initialised, destroy_layer, "..."},
    {"mha_forward", 1, prepare_layer, run_forward, assert_forward_unchanged, assert_forward_done,
     destroy_layer, "workspace: allocation of ..."},
    {"sdpa", 1, prepare_sdpa, run_sdpa, assert_sdpa_unchanged, assert_sdpa_done, nothing,
     "workspace: allocation of ..."},
    {"sdpa_with_kv", 1, prepare_kv, run_kv, assert_kv_unchanged, assert_kv_done, nothing,
     "workspace: allocation of ..."},
    {"softmax", 1, prepare_softmax, run_softmax, assert_softmax_unchanged, assert_softmax_done,
     nothing, "workspace: allocation of ..."},
    {"sdpa_that_starts_threads", 3, prepare_large_sdpa, run_large_sdpa, assert_large_sdpa_unchanged,
     assert_large_sdpa_done, nothing, "..."},
    {"rope_that_starts_threads", 3, prepare_large_features, run_large_rope,
     assert_large_forward_unchanged, assert_large_forward_done, nothing, "..."},
    {"rms_norm_that_starts_threads", 3, prepare_large_features, run_large_rms_norm,
     assert_large_forward_unchanged, assert_large_forward_done, nothing, "..."},
    {"sdpa_merge_that_starts_threads", 3, prepare_large_merge, run_large_merge,
     assert_large_sdpa_unchanged, assert_large_sdpa_done, nothing, "..."},
    {"mha_forward_that_starts_threads", 3, prepare_large_forward, run_large_forward,
     assert_large_forward_unchanged, assert_large_forward_done, destroy_made_layer, "..."},
};

/* Runs a scenario with its n-th allocation failing. Returns whether there was an n-th one. */
static bool run_with_fault(const fault_scenario *scenario, int64_t n, bool keeps_failing) {
    static fault_scene scene;
    memset(&scene, 0, sizeof scene);
    counting_allocator *allocator = &scene.allocator;
    counting_allocator_init(allocator);
    attn_context_config params = {.struct_size = sizeof params,
                                  .num_threads = scenario->num_threads};
    counting_allocator_use(allocator, &params);
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &scene.context));
    scenario->prepare(&scene);
    const int blocks_before = allocator->live_blocks;
    const size_t bytes_before = allocator->live_bytes;
    counting_allocator_fail(allocator, n, keeps_failing);
    const attn_status status = scenario->run(&scene);
    counting_allocator_fail(allocator, 0, false);
    const bool was_hit = allocator->failures > 0;
    if (was_hit) {
        refusal_assert(scenario->name, status, ATTN_ERROR_MEMORY, scenario->line);
        assert_true(attn_last_error()[0] != '\0');
        assert_int_equal(allocator->live_blocks, blocks_before);
        assert_int_equal(allocator->live_bytes, bytes_before);
        scenario->assert_unchanged(&scene);
        refusal_assert_ok(scenario->name, scenario->run(&scene));
    } else {
        refusal_assert_ok(scenario->name, status);
    }
    scenario->assert_done(&scene);
    scenario->clean_up(&scene);
    attn_context_destroy(scene.context);
    assert_int_equal(allocator->live_blocks, 0);
    assert_int_equal(allocator->live_bytes, 0);
    assert_int_equal(allocator->mistakes, 0);
    injected_faults += allocator->failures;
    return was_hit;
}

static void test_scenario(void **state) {
    const fault_scenario *scenario = *state;
    for (int keeps_failing = 0; keeps_failing <= 1; ++keeps_failing) {
        int64_t n = 1;
        while (run_with_fault(scenario, n, keeps_failing)) {
            ++n;
        }
        /* A scenario that never allocates would test nothing. */
        assert_true(n > 1);
    }
}

/* Runs a call with and without a workspace of the caller's and counts the allocations of each. */
static void count_allocations(fault_scene *scene, attn_status (*run)(fault_scene *scene),
                              void **workspace, size_t *workspace_bytes, size_t needed) {
    static char memory[1 << 16];
    assert_in_range(needed, 1, sizeof memory);
    int64_t before = scene->allocator.requests;
    refusal_assert_ok("call without workspace", run(scene));
    assert_int_equal(scene->allocator.requests - before, 1);
    *workspace = memory;
    *workspace_bytes = needed;
    before = scene->allocator.requests;
    refusal_assert_ok("call with workspace", run(scene));
    assert_int_equal(scene->allocator.requests - before, 0);
}

/* Rotation and normalisation have no workspace to be given. */
static void assert_features_need_no_memory(fault_scene *scene) {
    const int64_t before = scene->allocator.requests;
    prepare_large_features(scene);
    refusal_assert_ok("attn_rope", run_large_rope(scene));
    assert_large_forward_done(scene);
    refusal_assert_ok("attn_rms_norm", run_large_rms_norm(scene));
    assert_large_forward_done(scene);
    assert_int_equal(scene->allocator.requests - before, 0);
}

/* Once the threads run, which either a large call or attn_context_start has started. */
static void calls_with_workspace_never_allocate(void **state) {
    (void)state;
    static fault_scene scene;
    for (int32_t i = 0; i < 4; ++i) {
        const int32_t num_threads = 1 + i / 2;
        const int starter = i % 2;
        memset(&scene, 0, sizeof scene);
        counting_allocator_init(&scene.allocator);
        attn_context_config params = {.struct_size = sizeof params, .num_threads = num_threads};
        counting_allocator_use(&scene.allocator, &params);
        refusal_assert_ok("attn_context_create", attn_context_create(&params, &scene.context));
        if (starter == 0) {
            refusal_assert_ok("attn_sdpa", run_large_sdpa(&scene));
        } else {
            refusal_assert_ok("attn_context_start", attn_context_start(scene.context));
        }
        prepare_layer(&scene);
        prepare_sdpa(&scene);
        prepare_kv(&scene);
        prepare_softmax(&scene);
        size_t bytes;
        refusal_assert_ok("attn_sdpa_workspace_bytes",
                          sdpa_fixture_workspace_bytes(&scene.sdpa, &bytes));
        count_allocations(&scene, run_sdpa, &scene.sdpa.workspace, &scene.sdpa.workspace_bytes,
                          bytes);
        refusal_assert_ok("attn_sdpa_workspace_bytes",
                          kv_fixture_workspace_bytes(&scene.kv, &bytes));
        count_allocations(&scene, run_kv, &scene.kv.workspace, &scene.kv.workspace_bytes, bytes);
        refusal_assert_ok("attn_softmax_workspace_bytes",
                          softmax_fixture_workspace_bytes(&scene.softmax, &bytes));
        count_allocations(&scene, run_softmax, &scene.softmax.workspace,
                          &scene.softmax.workspace_bytes, bytes);
        refusal_assert_ok("attn_mha_workspace_bytes",
                          mha_fixture_workspace_bytes(&scene.mha, &bytes));
        count_allocations(&scene, run_forward, &scene.mha.workspace, &scene.mha.workspace_bytes,
                          bytes);
        assert_features_need_no_memory(&scene);
        destroy_layer(&scene);
        attn_context_destroy(scene.context);
        assert_int_equal(scene.allocator.live_blocks, 0);
        assert_int_equal(scene.allocator.mistakes, 0);
    }
}

/* The layer keeps the allocator, not the context. */
static void layer_outlives_its_context(void **state) {
    (void)state;
    static fault_scene scene;
    memset(&scene, 0, sizeof scene);
    counting_allocator_init(&scene.allocator);
    attn_context_config params = {.struct_size = sizeof params, .num_threads = 1};
    counting_allocator_use(&scene.allocator, &params);
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &scene.context));
    prepare_layer(&scene);
    attn_context_destroy(scene.context);
    const int64_t before = scene.allocator.requests;
    refusal_assert_ok("attn_mha_load_parameter", run_load_weight(&scene));
    assert_true(scene.allocator.requests > before);
    scene.context = NULL;
    assert_weight_loaded(&scene);
    destroy_layer(&scene);
    assert_int_equal(scene.allocator.live_blocks, 0);
    assert_int_equal(scene.allocator.mistakes, 0);
}

static void faults_were_injected(void **state) {
    (void)state;
    print_message("%lld allocation faults injected\n", (long long)injected_faults);
    assert_true(injected_faults > 0);
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; ++i) {
        refusal_suite_add(&suite, scenarios[i].name, test_scenario, &scenarios[i]);
    }
    refusal_suite_add(&suite, "calls_with_workspace_never_allocate",
                      calls_with_workspace_never_allocate, NULL);
    refusal_suite_add(&suite, "layer_outlives_its_context", layer_outlives_its_context, NULL);
    refusal_suite_add(&suite, "faults_were_injected", faults_were_injected, NULL);
    return refusal_suite_run(&suite, "allocations that fail");
}
