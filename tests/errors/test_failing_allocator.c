/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_failing_allocator.c: every public function that allocates, with the n-th allocation failing
 * for n = 1, 2, ... until it succeeds, once alone and once with all that follow. Each failure must
 * be ATTN_ERROR_MEMORY, leak nothing, write nothing and leave every object as it was; the same call
 * then succeeds with the right numbers. And with the caller's workspace no call allocates at all.
 */
#include <stdio.h>
#include <string.h>

#include "fault_scene.h"

static int64_t injected_faults;

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
    static char memory[1 << 18];
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
    fault_prepare_large_features(scene);
    refusal_assert_ok("attn_rope", fault_run_large_rope(scene));
    fault_assert_large_forward_done(scene);
    refusal_assert_ok("attn_rms_norm", fault_run_large_rms_norm(scene));
    fault_assert_large_forward_done(scene);
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
            refusal_assert_ok("attn_sdpa", fault_run_large_sdpa(&scene));
        } else {
            refusal_assert_ok("attn_context_start", attn_context_start(scene.context));
        }
        fault_prepare_layer(&scene);
        fault_prepare_sdpa(&scene);
        fault_prepare_backward(&scene);
        fault_prepare_kv(&scene);
        fault_prepare_softmax(&scene);
        size_t bytes;
        refusal_assert_ok("attn_sdpa_workspace_bytes",
                          sdpa_fixture_workspace_bytes(&scene.sdpa, &bytes));
        count_allocations(&scene, fault_run_sdpa, &scene.sdpa.workspace,
                          &scene.sdpa.workspace_bytes, bytes);
        refusal_assert_ok("attn_sdpa_workspace_bytes",
                          kv_fixture_workspace_bytes(&scene.kv, &bytes));
        count_allocations(&scene, fault_run_kv, &scene.kv.workspace, &scene.kv.workspace_bytes,
                          bytes);
        refusal_assert_ok("attn_sdpa_backward_workspace_bytes",
                          backward_fixture_workspace_bytes(&scene.backward, &bytes));
        count_allocations(&scene, fault_run_backward, &scene.backward.workspace,
                          &scene.backward.workspace_bytes, bytes);
        refusal_assert_ok("attn_softmax_workspace_bytes",
                          softmax_fixture_workspace_bytes(&scene.softmax, &bytes));
        count_allocations(&scene, fault_run_softmax, &scene.softmax.workspace,
                          &scene.softmax.workspace_bytes, bytes);
        refusal_assert_ok("attn_mha_workspace_bytes",
                          mha_fixture_workspace_bytes(&scene.mha, &bytes));
        count_allocations(&scene, fault_run_forward, &scene.mha.workspace,
                          &scene.mha.workspace_bytes, bytes);
        assert_features_need_no_memory(&scene);
        fault_destroy_layer(&scene);
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
    fault_prepare_layer(&scene);
    attn_context_destroy(scene.context);
    const int64_t before = scene.allocator.requests;
    refusal_assert_ok("attn_mha_load_parameter", fault_run_load_weight(&scene));
    assert_true(scene.allocator.requests > before);
    scene.context = NULL;
    fault_assert_weight_loaded(&scene);
    fault_destroy_layer(&scene);
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
    for (size_t i = 0; i < num_fault_scenarios; ++i) {
        refusal_suite_add(&suite, fault_scenarios[i].name, test_scenario, &fault_scenarios[i]);
    }
    refusal_suite_add(&suite, "calls_with_workspace_never_allocate",
                      calls_with_workspace_never_allocate, NULL);
    refusal_suite_add(&suite, "layer_outlives_its_context", layer_outlives_its_context, NULL);
    refusal_suite_add(&suite, "faults_were_injected", faults_were_injected, NULL);
    return refusal_suite_run(&suite, "allocations that fail");
}
