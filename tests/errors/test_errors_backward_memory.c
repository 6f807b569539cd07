/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_backward_memory.c: what attn_sdpa_backward says of gradients that overlap and of
 * workspaces that are too small.
 */
#include <stdio.h>
#include <string.h>

#include "backward_refusal.h"

static const backward_refusal repeats[] = {
    {.name = "query_gradient_that_repeats_is_refused",
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_QUERY, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.query: expected strides that give every element its own memory, got 0 on "
             "axis 0"},
    {.name = "key_gradient_that_repeats_is_refused",
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_KEY, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line =
         "gradients.key: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "value_gradient_that_repeats_is_refused",
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_VALUE, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.value: expected strides that give every element its own memory, got 0 on "
             "axis 0"},
    {.name = "mask_gradient_that_repeats_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {SDPA_MASK},
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_MASK, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.mask: expected strides that give every element its own memory, got 0 on "
             "axis 0"},
    {.name = "bias_gradient_that_repeats_is_refused",
     .links = {SDPA_BIAS},
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_BIAS, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.bias: expected strides that give every element its own memory, got 0 on "
             "axis 0"},
    {.name = "position_bias_gradient_that_repeats_is_refused",
     .links = {SDPA_POSITION_BIAS},
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_POSITION_BIAS, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.position_bias: expected strides that give every element its own memory, "
             "got 0 on axis 0"},
    {.name = "alibi_slopes_gradient_that_repeats_is_refused",
     .links = {SDPA_ALIBI_SLOPES},
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_ALIBI_SLOPES, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.alibi_slopes: expected strides that give every element its own memory, got "
             "0 on axis 0"},
    {.name = "sinks_gradient_that_repeats_is_refused",
     .links = {SDPA_SINKS},
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_SINKS, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "gradients.sinks: expected strides that give every element its own memory, got 0 on "
             "axis 0"},
};

/* ---- memory that is shared ---- */

/* The call with every option that there is memory to share of, and all gradients. */
static void prepare_all(backward_fixture *fixture) {
    backward_fixture_prepare(fixture, backward_refusal_context);
    fixture->call.options.mask_kind = ATTN_MASK_ADDITIVE;
    fixture->call.options.is_causal = 1;
    static const int options[] = {SDPA_MASK,         SDPA_BIAS,        SDPA_ALIBI_SLOPES,
                                  SDPA_SINKS,        SDPA_KEY_LENGTHS, SDPA_QUERY_OFFSET,
                                  SDPA_POSITION_BIAS};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        backward_fixture_link(fixture, options[i]);
    }
    for (int tensor = BACKWARD_OF_OUTPUT; tensor < BACKWARD_TENSORS; ++tensor) {
        backward_fixture_link(fixture, tensor);
    }
}

/* Names of what the call reads, then of what it writes, in the order of its list of them. */
static const struct shared_tensor {
    int tensor;
    const char *name;
} shared_tensors[] = {
    {SDPA_QUERY, "query"},
    {SDPA_KEY, "key"},
    {SDPA_VALUE, "value"},
    {SDPA_OUTPUT, "output"},
    {SDPA_LSE, "lse"},
    {SDPA_MASK, "mask"},
    {SDPA_BIAS, "bias"},
    {SDPA_ALIBI_SLOPES, "alibi_slopes"},
    {SDPA_SINKS, "sinks"},
    {SDPA_QUERY_OFFSET, "query_offset"},
    {SDPA_POSITION_BIAS, "position_bias"},
    {BACKWARD_OF_OUTPUT, "gradients.output"},
    {BACKWARD_OF_LSE, "gradients.lse"},
    {BACKWARD_OF_WEIGHTS, "gradients.weights"},
    {BACKWARD_OF_QUERY, "gradients.query"},
    {BACKWARD_OF_KEY, "gradients.key"},
    {BACKWARD_OF_VALUE, "gradients.value"},
    {BACKWARD_OF_MASK, "gradients.mask"},
    {BACKWARD_OF_BIAS, "gradients.bias"},
    {BACKWARD_OF_POSITION_BIAS, "gradients.position_bias"},
    {BACKWARD_OF_ALIBI_SLOPES, "gradients.alibi_slopes"},
    {BACKWARD_OF_SINKS, "gradients.sinks"},
};
enum { NUM_SHARED = sizeof shared_tensors / sizeof shared_tensors[0], NUM_WANTED = 8 };

static int64_t count_of(const attn_tensor *view) {
    int64_t count;
    refusal_assert_ok("attn_tensor_count", attn_tensor_count(view, &count));
    return count;
}

/* The smaller one moves, to the last elements of the other, so that it touches nothing else. */
static void put_one_on_the_other(attn_tensor *views, int first, int second) {
    const bool moves_first = count_of(&views[first]) < count_of(&views[second]);
    const int moved = moves_first ? first : second;
    const int kept = moves_first ? second : first;
    const int64_t end = count_of(&views[kept]) - count_of(&views[moved]);
    const bool is_index = views[moved].dtype == ATTN_DTYPE_INT64;
    views[moved].data = (float *)views[kept].data + (is_index ? 0 : end);
}

/* Each of the wanted ones, on each other tensor. */
static void gradients_on_any_tensor_are_refused(void **state) {
    (void)state;
    static backward_fixture fixture;
    for (int which = NUM_SHARED - NUM_WANTED; which < NUM_SHARED; ++which) {
        for (int other = 0; other < which; ++other) {
            const struct shared_tensor *gradient = &shared_tensors[which];
            const struct shared_tensor *on = &shared_tensors[other];
            char line[160];
            prepare_all(&fixture);
            put_one_on_the_other(fixture.views, gradient->tensor, on->tensor);
            snprintf(line, sizeof line,
                     "%s: expected memory of its own, got memory that overlaps %s", gradient->name,
                     on->name);
            const sdpa_memory call_before = fixture.call.memory;
            const backward_memory before = fixture.memory;
            refusal_assert("attn_sdpa_backward", backward_fixture_run(&fixture), ATTN_ERROR_OVERLAP,
                           line);
            assert_memory_equal(&fixture.call.memory, &call_before, sizeof call_before);
            assert_memory_equal(&fixture.memory, &before, sizeof before);
        }
    }
    backward_refusal_assert_usable();
}

/* What is only read may share memory: dO on O, dP on P. */
static void inputs_that_share_memory_are_accepted(void **state) {
    (void)state;
    static backward_fixture apart, shared;
    backward_fixture_prepare(&apart, backward_refusal_context);
    memcpy(apart.memory.of_output, apart.call.memory.output, sizeof apart.memory.of_output);
    refusal_assert_ok("attn_sdpa_backward", backward_fixture_run(&apart));
    backward_fixture_prepare(&shared, backward_refusal_context);
    shared.views[BACKWARD_OF_OUTPUT].data = shared.call.memory.output;
    refusal_assert_ok("attn_sdpa_backward", backward_fixture_run(&shared));
    assert_memory_equal(shared.memory.of_query, apart.memory.of_query,
                        sizeof apart.memory.of_query);
    assert_memory_equal(shared.memory.of_value, apart.memory.of_value,
                        sizeof apart.memory.of_value);
}

/* ---- workspaces ---- */

static void workspace_is_refused_if_small_and_used_if_exact(void **state) {
    (void)state;
    static backward_fixture fixture;
    static char memory[1 << 19];
    size_t needed;
    char line[120];
    backward_fixture_prepare(&fixture, backward_refusal_context);
    refusal_assert_ok("attn_sdpa_backward_workspace_bytes",
                      backward_fixture_workspace_bytes(&fixture, &needed));
    assert_in_range(needed, 1, sizeof memory - 64);
    snprintf(line, sizeof line, "workspace_bytes: expected at least %zu for this call, got %zu",
             needed, needed - 1);
    fixture.workspace = memory;
    fixture.workspace_bytes = needed - 1;
    refusal_assert("attn_sdpa_backward", backward_fixture_run(&fixture), ATTN_ERROR_WORKSPACE,
                   line);
    refusal_assert_untouched("gradients.query", fixture.memory.of_query,
                             sizeof fixture.memory.of_query);
    /* At every alignment, and nothing is written beside it. */
    for (size_t skip = 0; skip < 64; skip += 7) {
        backward_fixture_prepare(&fixture, backward_refusal_context);
        refusal_fill(memory, sizeof memory);
        fixture.workspace = memory + skip;
        fixture.workspace_bytes = needed;
        refusal_assert_ok("attn_sdpa_backward", backward_fixture_run(&fixture));
        backward_fixture_assert_values(&fixture);
        refusal_assert_untouched("workspace", memory, skip);
        refusal_assert_untouched("workspace", memory + skip + needed,
                                 sizeof memory - skip - needed);
    }
}

static void workspace_on_a_tensor_is_refused(void **state) {
    (void)state;
    static backward_fixture fixture;
    size_t needed;
    for (int i = 0; i < NUM_SHARED; ++i) {
        char line[160];
        prepare_all(&fixture);
        refusal_assert_ok("attn_sdpa_backward_workspace_bytes",
                          backward_fixture_workspace_bytes(&fixture, &needed));
        fixture.workspace = fixture.views[shared_tensors[i].tensor].data;
        fixture.workspace_bytes = needed;
        const sdpa_memory call_before = fixture.call.memory;
        const backward_memory before = fixture.memory;
        snprintf(line, sizeof line, "workspace: ...");
        refusal_assert("attn_sdpa_backward", backward_fixture_run(&fixture), ATTN_ERROR_OVERLAP,
                       line);
        assert_memory_equal(&fixture.call.memory, &call_before, sizeof call_before);
        assert_memory_equal(&fixture.memory, &before, sizeof before);
    }
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(gradients_on_any_tensor_are_refused),
    cmocka_unit_test(inputs_that_share_memory_are_accepted),
    cmocka_unit_test(workspace_is_refused_if_small_and_used_if_exact),
    cmocka_unit_test(workspace_on_a_tensor_is_refused),
};

int main(void) {
    static refusal_suite suite;
    backward_refusal_add(&suite, repeats, sizeof repeats / sizeof repeats[0]);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return backward_refusal_main(&suite, "memory of backward");
}
