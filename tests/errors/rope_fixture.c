/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_fixture.c: the valid calls of attn_rope and attn_rms_norm, and what they must compute.
 */
#include "rope_fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void make_views(rope_fixture *fixture) {
    const int64_t shape[] = {ROPE_BATCHES, ROPE_HEADS, ROPE_ROWS, ROPE_FEATURES};
    const int64_t table_shape[] = {ROPE_PLACES, ROPE_DIM / 2};
    const int64_t position_shape[] = {ROPE_BATCHES, ROPE_ROWS};
    rope_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    views[ROPE_INPUT] = refusal_view(memory->input, ATTN_DTYPE_FLOAT32, 4, shape);
    views[ROPE_OUTPUT] = refusal_view(memory->output, ATTN_DTYPE_FLOAT32, 4, shape);
    views[ROPE_FREQUENCIES] =
        refusal_view(memory->frequencies, ATTN_DTYPE_FLOAT32, 1, table_shape + 1);
    views[ROPE_COS] = refusal_view(memory->cosines, ATTN_DTYPE_FLOAT32, 2, table_shape);
    views[ROPE_SIN] = refusal_view(memory->sines, ATTN_DTYPE_FLOAT32, 2, table_shape);
    views[ROPE_POSITIONS] = refusal_view(memory->positions, ATTN_DTYPE_INT64, 2, position_shape);
    views[ROPE_LENGTHS] = refusal_view(memory->lengths, ATTN_DTYPE_INT64, 1, position_shape);
    views[ROPE_WEIGHT] = refusal_view(memory->weight, ATTN_DTYPE_FLOAT32, 1, shape + 3);
}

void rope_fixture_prepare(rope_fixture *fixture, attn_context *context) {
    memset(fixture, 0, sizeof *fixture);
    rope_memory *memory = &fixture->memory;
    refusal_numbers(memory->input, ROPE_ELEMENTS, 1);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_numbers(memory->frequencies, ROPE_DIM / 2, 2);
    refusal_numbers(memory->cosines, ROPE_PLACES * ROPE_DIM / 2, 3);
    refusal_numbers(memory->sines, ROPE_PLACES * ROPE_DIM / 2, 4);
    refusal_numbers(memory->weight, ROPE_FEATURES, 5);
    for (int i = 0; i < ROPE_BATCHES * ROPE_ROWS; ++i) {
        memory->positions[i] = i % ROPE_ROWS;
    }
    for (int batch = 0; batch < ROPE_BATCHES; ++batch) {
        memory->lengths[batch] = ROPE_ROWS;
    }
    make_views(fixture);
    fixture->context = context;
    fixture->arguments[ROPE_INPUT] = &fixture->views[ROPE_INPUT];
    fixture->arguments[ROPE_OUTPUT] = &fixture->views[ROPE_OUTPUT];
    fixture->options =
        (attn_rope_params){.struct_size = sizeof fixture->options, .rotary_dim = ROPE_DIM};
    fixture->params = &fixture->options;
    fixture->norm_options.struct_size = sizeof fixture->norm_options;
    fixture->norm_params = &fixture->norm_options;
}

void rope_fixture_link(rope_fixture *fixture, int tensor) {
    const attn_tensor **const places[ROPE_TENSORS] = {
        [ROPE_FREQUENCIES] = &fixture->options.frequencies,
        [ROPE_COS] = &fixture->options.cos,
        [ROPE_SIN] = &fixture->options.sin,
        [ROPE_POSITIONS] = &fixture->options.positions,
        [ROPE_LENGTHS] = &fixture->options.lengths,
        [ROPE_WEIGHT] = &fixture->norm_options.weight,
    };
    *places[tensor] = &fixture->views[tensor];
}

attn_status rope_fixture_run(rope_fixture *fixture) {
    return attn_rope(fixture->context, fixture->arguments[ROPE_INPUT], fixture->params,
                     fixture->arguments[ROPE_OUTPUT]);
}

attn_status rope_fixture_normalize(rope_fixture *fixture) {
    return attn_rms_norm(fixture->context, fixture->arguments[ROPE_INPUT], fixture->norm_params,
                         fixture->arguments[ROPE_OUTPUT]);
}

static void rotate(const float *input, int position, int rotary_dim, double *expected) {
    const int half = rotary_dim / 2;
    for (int e = 0; e < ROPE_FEATURES; ++e) {
        expected[e] = (double)input[e];
    }
    for (int i = 0; i < half; ++i) {
        const double angle = position * pow(10000, -2.0 * i / rotary_dim);
        const double x = (double)input[i], y = (double)input[i + half];
        expected[i] = x * cos(angle) - y * sin(angle);
        expected[i + half] = y * cos(angle) + x * sin(angle);
    }
}

void rope_fixture_assert_values(const rope_fixture *fixture) {
    /* No struct, or one of zeros, rotates all features. */
    const int64_t given = fixture->params == NULL ? 0 : fixture->params->rotary_dim;
    for (int row = 0; row < ROPE_ELEMENTS / ROPE_FEATURES; ++row) {
        double expected[ROPE_FEATURES];
        rotate(fixture->memory.input + row * ROPE_FEATURES, row % ROPE_ROWS,
               given == 0 ? ROPE_FEATURES : (int)given, expected);
        refusal_assert_close("output", fixture->memory.output + row * ROPE_FEATURES, expected,
                             ROPE_FEATURES);
    }
}

void rope_fixture_assert_normalized(const rope_fixture *fixture) {
    for (int row = 0; row < ROPE_ELEMENTS / ROPE_FEATURES; ++row) {
        const float *input = fixture->memory.input + row * ROPE_FEATURES;
        double expected[ROPE_FEATURES];
        double sum = 0;
        for (int e = 0; e < ROPE_FEATURES; ++e) {
            sum += (double)input[e] * (double)input[e];
        }
        for (int e = 0; e < ROPE_FEATURES; ++e) {
            expected[e] = (double)input[e] / sqrt(sum / ROPE_FEATURES + (double)FLT_EPSILON);
        }
        refusal_assert_close("output", fixture->memory.output + row * ROPE_FEATURES, expected,
                             ROPE_FEATURES);
    }
}
