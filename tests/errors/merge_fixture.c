/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_fixture.c: the valid call of attn_sdpa_merge, and what it must compute.
 */
#include "merge_fixture.h"

#include <math.h>
#include <string.h>

void merge_fixture_prepare(merge_fixture *fixture, attn_context *context) {
    memset(fixture, 0, sizeof *fixture);
    merge_memory *memory = &fixture->memory;
    const int64_t shape[] = {MERGE_H, MERGE_L, MERGE_EV};
    attn_tensor *views = fixture->views;
    for (int part = 0; part < MERGE_PARTS; ++part) {
        refusal_numbers(memory->outputs[part], MERGE_H * MERGE_L * MERGE_EV, part + 1);
        refusal_numbers(memory->lses[part], MERGE_H * MERGE_L, part + 3);
        views[MERGE_FIRST + part] =
            refusal_view(memory->outputs[part], ATTN_DTYPE_FLOAT32, 3, shape);
        views[MERGE_FIRST_LSE + part] =
            refusal_view(memory->lses[part], ATTN_DTYPE_FLOAT32, 2, shape);
    }
    refusal_numbers(memory->sinks, MERGE_H, 5);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_fill(memory->lse, sizeof memory->lse);
    views[MERGE_OUTPUT] = refusal_view(memory->output, ATTN_DTYPE_FLOAT32, 3, shape);
    views[MERGE_LSE] = refusal_view(memory->lse, ATTN_DTYPE_FLOAT32, 2, shape);
    views[MERGE_SINKS] = refusal_view(memory->sinks, ATTN_DTYPE_FLOAT32, 1, shape);
    fixture->context = context;
    fixture->count = MERGE_PARTS;
    fixture->has_outputs = fixture->has_lses = fixture->has_output = fixture->has_lse = true;
    fixture->options.struct_size = sizeof fixture->options;
    fixture->params = &fixture->options;
}

attn_status merge_fixture_run(merge_fixture *fixture) {
    const attn_tensor *views = fixture->views;
    return attn_sdpa_merge(fixture->context, fixture->count,
                           fixture->has_outputs ? &views[MERGE_FIRST] : NULL,
                           fixture->has_lses ? &views[MERGE_FIRST_LSE] : NULL, fixture->params,
                           fixture->has_output ? &views[MERGE_OUTPUT] : NULL,
                           fixture->has_lse ? &views[MERGE_LSE] : NULL);
}

void merge_fixture_assert_values(const merge_fixture *fixture) {
    const merge_memory *memory = &fixture->memory;
    double lse[MERGE_H * MERGE_L], output[MERGE_H * MERGE_L * MERGE_EV];
    for (int row = 0; row < MERGE_H * MERGE_L; ++row) {
        const double first = exp((double)memory->lses[0][row]);
        const double second = exp((double)memory->lses[1][row]);
        lse[row] = log(first + second);
        for (int col = 0; col < MERGE_EV; ++col) {
            const int at = row * MERGE_EV + col;
            output[at] =
                (first * (double)memory->outputs[0][at] + second * (double)memory->outputs[1][at]) /
                (first + second);
        }
    }
    refusal_assert_close("lse", memory->lse, lse, MERGE_H * MERGE_L);
    refusal_assert_close("output", memory->output, output, MERGE_H * MERGE_L * MERGE_EV);
}
