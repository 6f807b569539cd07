/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax_fixture.c: the valid call of attn_softmax, and what it must compute.
 */
#include "softmax_fixture.h"

#include <math.h>
#include <string.h>

void softmax_fixture_prepare(softmax_fixture *fixture, attn_context *context) {
    memset(fixture, 0, sizeof *fixture);
    softmax_memory *memory = &fixture->memory;
    refusal_numbers(memory->input, SOFTMAX_ROWS * SOFTMAX_COLS, 1);
    refusal_numbers(memory->mask, SOFTMAX_COLS, 2);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_fill(memory->lse, sizeof memory->lse);
    for (int row = 0; row < SOFTMAX_ROWS; ++row) {
        memory->lengths[row] = row;
    }
    const int64_t shape[] = {SOFTMAX_ROWS, SOFTMAX_COLS};
    attn_tensor *views = fixture->views;
    views[SOFTMAX_INPUT] = refusal_view(memory->input, ATTN_DTYPE_FLOAT32, 2, shape);
    views[SOFTMAX_OUTPUT] = refusal_view(memory->output, ATTN_DTYPE_FLOAT32, 2, shape);
    views[SOFTMAX_MASK] = refusal_view(memory->mask, ATTN_DTYPE_FLOAT32, 1, shape + 1);
    views[SOFTMAX_BOOL_MASK] = refusal_view(memory->bool_mask, ATTN_DTYPE_BOOL, 2, shape);
    views[SOFTMAX_LENGTHS] = refusal_view(memory->lengths, ATTN_DTYPE_INT64, 1, shape);
    views[SOFTMAX_LSE] = refusal_view(memory->lse, ATTN_DTYPE_FLOAT32, 1, shape);
    fixture->context = context;
    fixture->arguments[SOFTMAX_INPUT] = &views[SOFTMAX_INPUT];
    fixture->arguments[SOFTMAX_OUTPUT] = &views[SOFTMAX_OUTPUT];
    fixture->options.struct_size = sizeof fixture->options;
    fixture->params = &fixture->options;
}

void softmax_fixture_spread_output(softmax_fixture *fixture) {
    fixture->views[SOFTMAX_OUTPUT].strides[0] = SOFTMAX_COLS * SOFTMAX_STEP;
    fixture->views[SOFTMAX_OUTPUT].strides[1] = SOFTMAX_STEP;
}

void softmax_fixture_link(softmax_fixture *fixture, int tensor) {
    const attn_tensor **const places[SOFTMAX_TENSORS] = {
        [SOFTMAX_MASK] = &fixture->options.mask,
        [SOFTMAX_BOOL_MASK] = &fixture->options.mask,
        [SOFTMAX_LENGTHS] = &fixture->options.lengths,
        [SOFTMAX_LSE] = &fixture->options.lse,
    };
    *places[tensor] = &fixture->views[tensor];
}

attn_status softmax_fixture_run(softmax_fixture *fixture) {
    return attn_softmax(fixture->context, fixture->arguments[SOFTMAX_INPUT], fixture->params,
                        fixture->arguments[SOFTMAX_OUTPUT], fixture->workspace,
                        fixture->workspace_bytes);
}

attn_status softmax_fixture_workspace_bytes(softmax_fixture *fixture, size_t *bytes) {
    return attn_softmax_workspace_bytes(fixture->context, fixture->arguments[SOFTMAX_INPUT],
                                        fixture->params, fixture->arguments[SOFTMAX_OUTPUT], bytes);
}

void softmax_fixture_assert_values(const softmax_fixture *fixture) {
    const attn_tensor *output = &fixture->views[SOFTMAX_OUTPUT];
    for (int row = 0; row < SOFTMAX_ROWS; ++row) {
        double expected[SOFTMAX_COLS];
        float actual[SOFTMAX_COLS];
        double sum = 0;
        for (int col = 0; col < SOFTMAX_COLS; ++col) {
            expected[col] = exp((double)fixture->memory.input[row * SOFTMAX_COLS + col]);
            sum += expected[col];
            actual[col] =
                ((const float *)output->data)[row * output->strides[0] + col * output->strides[1]];
        }
        for (int col = 0; col < SOFTMAX_COLS; ++col) {
            expected[col] /= sum;
        }
        refusal_assert_close("output", actual, expected, SOFTMAX_COLS);
    }
}
