/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_memory.c: what attn_mha_forward says of outputs that overlap, parameters that are
 * not set, and workspaces that are too small.
 */
#include <stdio.h>

#include "mha_refusal.h"
#include "support/guard_pages.h"

static const mha_refusal overlaps[] = {
    {.name = "output_on_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps query"},
    {.name = "output_on_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps key"},
    {.name = "output_on_value_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_VALUE}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps value"},
    {.name = "output_on_end_of_value_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_VALUE,
                 .value = sizeof(((mha_memory *)0)->value) - 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps value"},
    {.name = "output_on_bound_parameter_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_OUT_WEIGHT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps out_proj.weight"},
    {.name = "output_on_key_padding_mask_is_refused",
     .params = {.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .spoils = {{REFUSAL_MEMORY, MHA_KEY_PADDING_MASK, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps key_padding_mask"},
    {.name = "output_on_attention_mask_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_MASK, .other = MHA_OUTPUT, .value = 8}},
     .attention = {.mask_kind = ATTN_MASK_ADDITIVE},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps attention.mask"},
    {.name = "output_on_attention_bias_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_BIAS, .other = MHA_OUTPUT, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps attention.bias"},
    {.name = "attention_average_weights_on_output_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_AVERAGE_WEIGHTS, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.weights: expected memory of its own, got memory that overlaps output"},
    {.name = "attention_average_weights_on_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_AVERAGE_WEIGHTS, .other = MHA_KEY, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.weights: expected memory of its own, got memory that overlaps key"},
    {.name = "attention_average_weights_on_bound_parameter_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_AVERAGE_WEIGHTS, .other = MHA_OUT_WEIGHT, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line =
         "attention.weights: expected memory of its own, got memory that overlaps out_proj.weight"},
    {.name = "attention_lse_on_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_LSE, .other = MHA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.lse: expected memory of its own, got memory that overlaps query"},
    {.name = "attention_lse_on_output_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_LSE, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.lse: expected memory of its own, got memory that overlaps output"},
    {.name = "attention_weights_on_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_WEIGHTS, .other = MHA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.weights: expected memory of its own, got memory that overlaps query"},
    {.name = "attention_scores_on_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_SCORES, .other = MHA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.scores: expected memory of its own, got memory that overlaps query"},
    {.name = "output_on_attention_sinks_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_SINKS, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps attention.sinks"},
    {.name = "attention_lse_on_bound_parameter_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_LSE, .other = MHA_OUT_WEIGHT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.lse: expected memory of its own, got memory that overlaps out_proj.weight"},
    {.name = "output_on_attention_lengths_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_LENGTHS, .other = MHA_OUTPUT},
                {REFUSAL_STRIDE, MHA_ATTENTION_LENGTHS, .axis = 0, .value = 0},
                {REFUSAL_ELEMENT, MHA_ATTENTION_LENGTHS, .value = 1}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps attention.key_lengths"},
    /* An option's own fault comes first. */
    {.name = "attention_lse_on_query_of_other_dtype_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ATTENTION_LSE, .other = MHA_QUERY},
                {REFUSAL_DTYPE, MHA_ATTENTION_LSE, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "attention.lse: expected dtype float32, got float64"},
    {.name = "output_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, MHA_OUTPUT, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "attention_average_weights_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, MHA_AVERAGE_WEIGHTS, .axis = 1, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "attention.weights: expected strides that give every element its own memory, got 0 on "
             "axis 1"},
    {.name = "attention_lse_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, MHA_ATTENTION_LSE, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line =
         "attention.lse: expected strides that give every element its own memory, got 0 on axis 0"},
};

/* Each parameter in turn is the one that is missing; the layer is usable as soon as it is set. */
static void parameter_not_set_is_refused_by_name(void **state) {
    (void)state;
    for (const char *const *missing = mha_parameter_names; *missing != NULL; ++missing) {
        mha_layer layer;
        const attn_mha_config config = mha_fixture_config();
        mha_parameters_fill(&layer.parameters);
        refusal_assert_ok("attn_mha_create",
                          attn_mha_create(mha_refusal_context, &config, &layer.layer));
        for (const char *const *name = mha_parameter_names; *name != NULL; ++name) {
            const attn_tensor values = mha_parameters_view(&layer.parameters, *name);
            if (name != missing) {
                refusal_assert_ok("attn_mha_load_parameter",
                                  attn_mha_load_parameter(NULL, layer.layer, *name, &values, NULL));
            }
        }
        mha_fixture fixture;
        size_t bytes;
        mha_fixture_prepare(&fixture, mha_refusal_context, &layer);
        char line[128];
        snprintf(line, sizeof line,
                 "%s: expected a parameter that has been loaded or bound, got none", *missing);
        refusal_assert_ok("attn_mha_workspace_bytes",
                          mha_fixture_workspace_bytes(&fixture, &bytes));
        refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_PARAMETER, line);
        refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        const attn_tensor values = mha_parameters_view(&layer.parameters, *missing);
        refusal_assert_ok("attn_mha_load_parameter",
                          attn_mha_load_parameter(NULL, layer.layer, *missing, &values, NULL));
        refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
        mha_fixture_assert_values(&fixture);
        attn_mha_destroy(layer.layer);
    }
}

/* Whoever asked about overlap first would read the shape as far as the rank goes. */
static void attention_lse_of_huge_rank_is_not_read_past_its_end(void **state) {
    (void)state;
    const guard_pages pages = guard_pages_map(sizeof(attn_tensor));
    attn_tensor *lse = (attn_tensor *)guard_pages_last(&pages, sizeof *lse);
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    *lse = fixture.views[MHA_ATTENTION_LSE];
    lse->rank = INT32_MAX;
    for (int axis = 0; axis < ATTN_MAX_RANK; ++axis) {
        lse->shape[axis] = 1;
        lse->strides[axis] = 1;
    }
    fixture.attention.lse = lse;
    fixture.options.attention = &fixture.attention;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   "attention.lse: expected rank 0 to 8, got 2147483647");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    guard_pages_unmap(&pages);
}

static void workspace_one_byte_short_is_refused(void **state) {
    (void)state;
    static char memory[1 << 16];
    mha_fixture fixture;
    size_t bytes;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    refusal_assert_ok("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes));
    assert_in_range(bytes, 1, sizeof memory - 1);
    char line[128];
    snprintf(line, sizeof line, "workspace_bytes: expected at least %zu for this call, got %zu",
             bytes, bytes - 1);
    refusal_fill(memory, sizeof memory);
    fixture.workspace = memory + 1;
    fixture.workspace_bytes = bytes - 1;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_WORKSPACE, line);
    refusal_assert_untouched("workspace", memory, sizeof memory);
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    fixture.workspace_bytes = bytes;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
    refusal_assert_untouched("memory after the workspace", memory + 1 + bytes,
                             sizeof memory - 1 - bytes);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(parameter_not_set_is_refused_by_name),
    cmocka_unit_test(attention_lse_of_huge_rank_is_not_read_past_its_end),
    cmocka_unit_test(workspace_one_byte_short_is_refused),
};

int main(void) {
    static refusal_suite suite;
    mha_refusal_add(&suite, overlaps, sizeof overlaps / sizeof overlaps[0]);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return mha_refusal_main(&suite, "errors of multi-head attention's memory");
}
