/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_sdpa_memory.c: what attn_sdpa says of outputs that overlap and of workspaces that are
 * too small.
 */
#include <stdio.h>
#include <string.h>

#include "sdpa_refusal.h"

static const sdpa_refusal overlaps[] = {
    {.name = "output_on_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps query"},
    {.name = "output_on_end_of_query_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_QUERY,
                 .value = sizeof(((sdpa_memory *)0)->query) - 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps query"},
    {.name = "output_on_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps key"},
    {.name = "output_on_end_of_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_KEY,
                 .value = sizeof(((sdpa_memory *)0)->key) - 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps key"},
    {.name = "output_on_value_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_VALUE}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps value"},
    {.name = "output_on_end_of_value_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_OUTPUT, .other = SDPA_VALUE,
                 .value = sizeof(((sdpa_memory *)0)->value) - 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps value"},
    {.name = "output_on_mask_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .spoils = {{REFUSAL_MEMORY, SDPA_MASK, .other = SDPA_OUTPUT, .value = 16}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps mask"},
    {.name = "output_on_bool_mask_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_INCLUDE},
     .spoils = {{REFUSAL_MEMORY, SDPA_BOOL_MASK, .other = SDPA_OUTPUT, .value = 3}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps mask"},
    {.name = "output_on_bias_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_BIAS, .other = SDPA_OUTPUT, .value = 8}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps bias"},
    {.name = "weights_on_bias_is_refused",
     .links = {SDPA_WEIGHTS},
     .spoils = {{REFUSAL_MEMORY, SDPA_BIAS, .other = SDPA_WEIGHTS}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "weights: expected memory of its own, got memory that overlaps bias"},
    /* 2 a + 3 b is another number for every a and b, but neither axis steps over the other. */
    {.name = "output_axes_that_do_not_nest_are_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 3, .value = 2},
                {REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 2, .value = 3},
                {REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 1, .value = 11},
                {REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 0, .value = 44}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 3 on axis 2"},
    {.name = "output_on_alibi_slopes_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_ALIBI_SLOPES, .other = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps alibi_slopes"},
    {.name = "output_on_sinks_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_SINKS, .other = SDPA_OUTPUT, .value = 8}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps sinks"},
    {.name = "output_on_mask_start_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {SDPA_MASK},
     .spoils = {{REFUSAL_MEMORY, SDPA_MASK_START, .other = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps mask_start"},
    {.name = "output_on_position_bias_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_POSITION_BIAS, .other = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps position_bias"},
    {.name = "output_on_block_mask_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_BLOCK_MASK, .other = SDPA_OUTPUT},
                {REFUSAL_RANK, SDPA_BLOCK_MASK, .value = 1},
                {REFUSAL_STRIDE, SDPA_BLOCK_MASK, .axis = 0, .value = 0},
                {REFUSAL_BYTE, SDPA_BLOCK_MASK, .value = ATTN_BLOCK_VISIBLE}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps block_mask"},
    {.name = "output_on_key_lengths_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_KEY_LENGTHS, .other = SDPA_OUTPUT},
                {REFUSAL_STRIDE, SDPA_KEY_LENGTHS, .axis = 0, .value = 0},
                {REFUSAL_ELEMENT, SDPA_KEY_LENGTHS, .value = 1}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps key_lengths"},
    {.name = "output_on_query_offset_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_QUERY_OFFSET, .other = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps query_offset"},
    {.name = "lse_on_output_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_LSE, .other = SDPA_OUTPUT, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps output"},
    {.name = "lse_on_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_LSE, .other = SDPA_KEY, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected memory of its own, got memory that overlaps key"},
    {.name = "weights_on_value_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_WEIGHTS, .other = SDPA_VALUE, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "weights: expected memory of its own, got memory that overlaps value"},
    {.name = "weights_on_output_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_WEIGHTS, .other = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "weights: expected memory of its own, got memory that overlaps output"},
    {.name = "weights_on_lse_is_refused",
     .links = {SDPA_LSE},
     .spoils = {{REFUSAL_MEMORY, SDPA_WEIGHTS, .other = SDPA_LSE}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "weights: expected memory of its own, got memory that overlaps lse"},
    {.name = "scores_on_key_is_refused",
     .spoils = {{REFUSAL_MEMORY, SDPA_SCORES, .other = SDPA_KEY, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "scores: expected memory of its own, got memory that overlaps key"},
    {.name = "scores_on_weights_is_refused",
     .links = {SDPA_WEIGHTS},
     .spoils = {{REFUSAL_MEMORY, SDPA_SCORES, .other = SDPA_WEIGHTS}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "scores: expected memory of its own, got memory that overlaps weights"},
    {.name = "scores_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_SCORES, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "scores: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "output_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 0 on axis 0"},
    {.name = "output_strides_that_meet_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_OUTPUT, .axis = 2, .value = SDPA_EV - 1}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected strides that give every element its own memory, got 2 on axis 2"},
    {.name = "lse_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_LSE, .axis = 1, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "lse: expected strides that give every element its own memory, got 0 on axis 1"},
    {.name = "weights_stride_0_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_WEIGHTS, .axis = 2, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "weights: expected strides that give every element its own memory, got 0 on axis 2"},
};

/* A workspace of the size asked for works at any alignment; one byte less is refused. */
static void workspace_one_byte_short_is_refused(void **state) {
    (void)state;
    static char memory[1 << 16];
    sdpa_fixture fixture;
    size_t bytes;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    refusal_assert_ok("attn_sdpa_workspace_bytes", sdpa_fixture_workspace_bytes(&fixture, &bytes));
    assert_in_range(bytes, 1, sizeof memory - 1);
    char line[128];
    snprintf(line, sizeof line, "workspace_bytes: expected at least %zu for this call, got %zu",
             bytes, bytes - 1);
    refusal_fill(memory, sizeof memory);
    fixture.workspace = memory + 1;
    fixture.workspace_bytes = bytes - 1;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_WORKSPACE, line);
    refusal_assert_untouched("workspace", memory, sizeof memory);
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    fixture.workspace_bytes = bytes;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
    refusal_assert_untouched("memory after the workspace", memory + 1 + bytes,
                             sizeof memory - 1 - bytes);
}

static void workspace_without_bytes_is_refused(void **state) {
    (void)state;
    sdpa_fixture fixture;
    char memory[1];
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.workspace = memory;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_WORKSPACE,
                   "workspace_bytes: expected at least ...");
    sdpa_refusal_assert_usable();
}

/* Rows of a buffer hold a query row and, right after it, the place of its output row: they
 * interleave and never touch. */
static void output_columns_beside_query_columns_are_accepted(void **state) {
    (void)state;
    enum { WIDTH = SDPA_E + SDPA_EV, ROWS = SDPA_N * SDPA_H * SDPA_L };
    float buffer[ROWS * WIDTH];
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    for (int row = 0; row < ROWS; ++row) {
        memcpy(buffer + row * WIDTH, fixture.memory.query + row * SDPA_E, SDPA_E * sizeof(float));
    }
    const int64_t strides[] = {SDPA_H * SDPA_L * WIDTH, SDPA_L * WIDTH, WIDTH, 1};
    memcpy(fixture.views[SDPA_QUERY].strides, strides, sizeof strides);
    memcpy(fixture.views[SDPA_OUTPUT].strides, strides, sizeof strides);
    fixture.views[SDPA_QUERY].data = buffer;
    fixture.views[SDPA_OUTPUT].data = buffer + SDPA_E;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    for (int row = 0; row < ROWS; ++row) {
        assert_memory_equal(buffer + row * WIDTH, fixture.memory.query + row * SDPA_E,
                            SDPA_E * sizeof(float));
        memcpy(fixture.memory.output + row * SDPA_EV, buffer + row * WIDTH + SDPA_E,
               SDPA_EV * sizeof(float));
    }
    sdpa_fixture_assert_values(&fixture);
    fixture.views[SDPA_OUTPUT].data = buffer + SDPA_E - 1;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_OVERLAP,
                   "output: expected memory of its own, got memory that overlaps query");
}

/* Two rows of one number each, whose ranges meet: within one stride of output query may lie beside
 * it; where its own stride is no multiple of output's it is refused, although no element is shared. */
static void interleaved_rows_are_accepted_within_one_stride_of_output(void **state) {
    (void)state;
    static const struct {
        int64_t query_stride;
        attn_status status;
    } cases[] = {{4, ATTN_OK}, {8, ATTN_OK}, {-4, ATTN_OK}, {6, ATTN_ERROR_OVERLAP}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        float buffer[24] = {0}, single[1] = {2};
        attn_tensor query, output;
        const int64_t shape[] = {2, 1};
        const int64_t query_strides[] = {cases[i].query_stride, 1};
        const int64_t output_strides[] = {4, 1};
        const int32_t dtype = ATTN_DTYPE_FLOAT32;
        refusal_assert_ok(
            "query", attn_tensor_init_strided(&query, buffer + 10, dtype, 2, shape, query_strides));
        refusal_assert_ok("output", attn_tensor_init_strided(&output, buffer + 8, dtype, 2, shape,
                                                             output_strides));
        const attn_tensor key = refusal_view(single, dtype, 2, (const int64_t[]){1, 1});
        const attn_status status =
            attn_sdpa(sdpa_refusal_context, &query, &key, &key, NULL, &output, NULL, 0);
        if (cases[i].status == ATTN_OK) {
            refusal_assert_ok("attn_sdpa", status);
            assert_true(buffer[8] == 2 && buffer[12] == 2 && buffer[10] == 0);
        } else {
            refusal_assert("attn_sdpa", status, cases[i].status,
                           "output: expected memory of its own, got memory that overlaps query");
            assert_true(buffer[8] == 0 && buffer[12] == 0);
        }
    }
}

/* The stride of an axis of length 1 is never used, so it may be anything; foreign tensors do carry
 * such strides. */
static void strides_of_unit_axes_are_not_used(void **state) {
    (void)state;
    const int64_t strides[] = {INT64_MAX, -INT64_MAX, INT64_MAX / 2, 0};
    for (size_t i = 0; i < sizeof strides / sizeof strides[0]; ++i) {
        float memory[] = {0.5f, -2, 3, 0};
        attn_tensor views[SDPA_ARGUMENTS];
        for (int tensor = 0; tensor < SDPA_ARGUMENTS; ++tensor) {
            const int64_t shape[] = {1, 1, 1, 1};
            views[tensor] = refusal_view(&memory[tensor], ATTN_DTYPE_FLOAT32, 4, shape);
            for (int axis = 0; axis < 4; ++axis) {
                views[tensor].strides[axis] = strides[i];
            }
        }
        refusal_assert_ok("attn_sdpa",
                          attn_sdpa(sdpa_refusal_context, &views[SDPA_QUERY], &views[SDPA_KEY],
                                    &views[SDPA_VALUE], NULL, &views[SDPA_OUTPUT], NULL, 0));
        assert_true(memory[SDPA_OUTPUT] == memory[SDPA_VALUE]);
    }
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(interleaved_rows_are_accepted_within_one_stride_of_output),
    cmocka_unit_test(strides_of_unit_axes_are_not_used),
    cmocka_unit_test(workspace_one_byte_short_is_refused),
    cmocka_unit_test(workspace_without_bytes_is_refused),
    cmocka_unit_test(output_columns_beside_query_columns_are_accepted),
};

int main(void) {
    static refusal_suite suite;
    sdpa_refusal_add(&suite, overlaps, sizeof overlaps / sizeof overlaps[0]);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return sdpa_refusal_main(&suite, "errors of sdpa's memory");
}
