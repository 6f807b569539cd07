/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault_scene.h: every public function that allocates, as a call whose effects, and their absence,
 * can be looked for.
 */
#ifndef FAULT_SCENE_H
#define FAULT_SCENE_H

#include <stddef.h>

#include "backward_fixture.h"
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
    backward_fixture backward;
    kv_fixture kv;
    softmax_fixture softmax;
    mha_fixture mha;
    _Alignas(64) unsigned char saved[1 << 14];
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

extern const fault_scenario fault_scenarios[];
extern const size_t num_fault_scenarios;

/* Steps of scenarios, for scenes of other tests. */
void fault_prepare_layer(fault_scene *scene);
void fault_prepare_sdpa(fault_scene *scene);
void fault_prepare_backward(fault_scene *scene);
void fault_prepare_kv(fault_scene *scene);
void fault_prepare_softmax(fault_scene *scene);
void fault_prepare_large_features(fault_scene *scene);
attn_status fault_run_sdpa(fault_scene *scene);
attn_status fault_run_backward(fault_scene *scene);
attn_status fault_run_kv(fault_scene *scene);
attn_status fault_run_softmax(fault_scene *scene);
attn_status fault_run_forward(fault_scene *scene);
attn_status fault_run_load_weight(fault_scene *scene);
attn_status fault_run_large_sdpa(fault_scene *scene);
attn_status fault_run_large_rope(fault_scene *scene);
attn_status fault_run_large_rms_norm(fault_scene *scene);
void fault_assert_weight_loaded(fault_scene *scene);
void fault_assert_large_forward_done(fault_scene *scene);
void fault_destroy_layer(fault_scene *scene);

#endif
