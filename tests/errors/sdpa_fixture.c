/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_fixture.c: the valid call of attn_sdpa, and what it must compute.
 */
#include "sdpa_fixture.h"

#include <math.h>
#include <string.h>

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof(array)[0]))

static void fill_memory(sdpa_memory *memory) {
    memset(memory, 0, sizeof *memory);
    refusal_numbers(memory->query, COUNT_OF(memory->query), 1);
    refusal_numbers(memory->key, COUNT_OF(memory->key), 2);
    refusal_numbers(memory->value, COUNT_OF(memory->value), 3);
    refusal_numbers(memory->mask, COUNT_OF(memory->mask), 4);
    refusal_numbers(memory->sinks, COUNT_OF(memory->sinks), 5);
    for (int64_t i = 0; i < COUNT_OF(memory->bool_mask); ++i) {
        memory->bool_mask[i] = i % 3 == 0;
    }
    for (int64_t h = 0; h < SDPA_H; ++h) {
        memory->alibi_slopes[h] = 1.0f / (float)(1 << h);
    }
    for (int64_t n = 0; n < SDPA_N; ++n) {
        memory->key_lengths[n] = SDPA_S - n;
        memory->query_offset[n] = n;
    }
    refusal_numbers(memory->position_bias, COUNT_OF(memory->position_bias), 6);
    memset(memory->block_mask, ATTN_BLOCK_VISIBLE, sizeof memory->block_mask);
    refusal_fill(memory->output, sizeof memory->output);
    refusal_fill(memory->lse, sizeof memory->lse);
    refusal_fill(memory->weights, sizeof memory->weights);
    refusal_fill(memory->average_weights, sizeof memory->average_weights);
    refusal_fill(memory->scores, sizeof memory->scores);
}

static void make_views(sdpa_fixture *fixture) {
    sdpa_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const int32_t float32 = ATTN_DTYPE_FLOAT32;
    const int64_t query[] = {SDPA_N, SDPA_H, SDPA_L, SDPA_E};
    const int64_t key[] = {SDPA_N, SDPA_H, SDPA_S, SDPA_E};
    const int64_t value[] = {SDPA_N, SDPA_H, SDPA_S, SDPA_EV};
    const int64_t output[] = {SDPA_N, SDPA_H, SDPA_L, SDPA_EV};
    const int64_t weights[] = {SDPA_N, SDPA_H, SDPA_L, SDPA_S};
    const int64_t average_weights[] = {SDPA_N, SDPA_L, SDPA_S};
    const int64_t mask[] = {SDPA_L, SDPA_S};
    const int64_t heads[] = {SDPA_H};
    const int64_t batches[] = {SDPA_N};
    const int64_t distances[] = {SDPA_H, SDPA_DISTANCES};
    const int64_t blocks[] = {SDPA_H, SDPA_BLOCKS, SDPA_BLOCKS};
    views[SDPA_QUERY] = refusal_view(memory->query, float32, 4, query);
    views[SDPA_KEY] = refusal_view(memory->key, float32, 4, key);
    views[SDPA_VALUE] = refusal_view(memory->value, float32, 4, value);
    views[SDPA_OUTPUT] = refusal_view(memory->output, float32, 4, output);
    views[SDPA_MASK] = refusal_view(memory->mask, float32, 2, mask);
    views[SDPA_BOOL_MASK] = refusal_view(memory->bool_mask, ATTN_DTYPE_BOOL, 2, mask);
    views[SDPA_BIAS] = refusal_view(memory->bias, float32, 2, mask);
    views[SDPA_ALIBI_SLOPES] = refusal_view(memory->alibi_slopes, float32, 1, heads);
    views[SDPA_SINKS] = refusal_view(memory->sinks, float32, 1, heads);
    views[SDPA_KEY_LENGTHS] = refusal_view(memory->key_lengths, ATTN_DTYPE_INT64, 1, batches);
    views[SDPA_QUERY_OFFSET] = refusal_view(memory->query_offset, ATTN_DTYPE_INT64, 1, batches);
    views[SDPA_MASK_START] = refusal_view(memory->mask_start, ATTN_DTYPE_INT64, 1, batches);
    views[SDPA_POSITION_BIAS] = refusal_view(memory->position_bias, float32, 2, distances);
    views[SDPA_BLOCK_MASK] = refusal_view(memory->block_mask, ATTN_DTYPE_UINT8, 3, blocks);
    views[SDPA_LSE] = refusal_view(memory->lse, float32, 3, output);
    views[SDPA_WEIGHTS] = refusal_view(memory->weights, float32, 4, weights);
    views[SDPA_AVERAGE_WEIGHTS] =
        refusal_view(memory->average_weights, float32, 3, average_weights);
    views[SDPA_SCORES] = refusal_view(memory->scores, float32, 4, weights);
}

void sdpa_fixture_prepare(sdpa_fixture *fixture, attn_context *context) {
    memset(fixture, 0, sizeof *fixture);
    fill_memory(&fixture->memory);
    make_views(fixture);
    fixture->context = context;
    for (int i = 0; i < SDPA_ARGUMENTS; ++i) {
        fixture->arguments[i] = &fixture->views[i];
    }
    fixture->options.struct_size = sizeof fixture->options;
    fixture->params = &fixture->options;
}

void sdpa_fixture_link(sdpa_fixture *fixture, int tensor) {
    attn_sdpa_params *options = &fixture->options;
    const attn_tensor **const places[SDPA_TENSORS] = {
        [SDPA_MASK] = &options->mask,
        [SDPA_BOOL_MASK] = &options->mask,
        [SDPA_BIAS] = &options->bias,
        [SDPA_ALIBI_SLOPES] = &options->alibi_slopes,
        [SDPA_SINKS] = &options->sinks,
        [SDPA_KEY_LENGTHS] = &options->key_lengths,
        [SDPA_QUERY_OFFSET] = &options->query_offset,
        [SDPA_MASK_START] = &options->mask_start,
        [SDPA_POSITION_BIAS] = &options->position_bias,
        [SDPA_BLOCK_MASK] = &options->block_mask,
        [SDPA_LSE] = &options->lse,
        [SDPA_WEIGHTS] = &options->weights,
        [SDPA_AVERAGE_WEIGHTS] = &options->weights,
        [SDPA_SCORES] = &options->scores,
    };
    *places[tensor] = &fixture->views[tensor];
    if (tensor == SDPA_BLOCK_MASK && options->block_rows == 0 && options->block_columns == 0) {
        options->block_rows = SDPA_BLOCK_ROWS;
        options->block_columns = SDPA_BLOCK_COLUMNS;
    }
}

attn_status sdpa_fixture_run(sdpa_fixture *fixture) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_sdpa(fixture->context, arguments[SDPA_QUERY], arguments[SDPA_KEY],
                     arguments[SDPA_VALUE], fixture->params, arguments[SDPA_OUTPUT],
                     fixture->workspace, fixture->workspace_bytes);
}

attn_status sdpa_fixture_workspace_bytes(sdpa_fixture *fixture, size_t *bytes) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_sdpa_workspace_bytes(fixture->context, arguments[SDPA_QUERY], arguments[SDPA_KEY],
                                     arguments[SDPA_VALUE], fixture->params, arguments[SDPA_OUTPUT],
                                     bytes);
}

attn_status sdpa_fixture_explain(sdpa_fixture *fixture, attn_sdpa_report *report) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_sdpa_explain(fixture->context, arguments[SDPA_QUERY], arguments[SDPA_KEY],
                             arguments[SDPA_VALUE], fixture->params, arguments[SDPA_OUTPUT],
                             report);
}

attn_status sdpa_fixture_describe_outputs(sdpa_fixture *fixture, attn_sdpa_outputs *outputs) {
    const attn_tensor *const *arguments = fixture->arguments;
    return attn_sdpa_describe_outputs(arguments[SDPA_QUERY], arguments[SDPA_KEY],
                                      arguments[SDPA_VALUE], fixture->params, outputs);
}

/* output row = sum over j of exp(q . k_j / sqrt(E)) v_j, divided by the sum of the exponentials. */
static void attend_row(const float *query, const float *key, const float *value, double *output) {
    double sum = 0;
    memset(output, 0, SDPA_EV * sizeof *output);
    for (int64_t j = 0; j < SDPA_S; ++j) {
        double score = 0;
        for (int64_t d = 0; d < SDPA_E; ++d) {
            score += (double)query[d] * key[j * SDPA_E + d];
        }
        const double weight = exp(score / sqrt(SDPA_E));
        sum += weight;
        for (int64_t d = 0; d < SDPA_EV; ++d) {
            output[d] += weight * value[j * SDPA_EV + d];
        }
    }
    for (int64_t d = 0; d < SDPA_EV; ++d) {
        output[d] /= sum;
    }
}

void sdpa_fixture_assert_values(const sdpa_fixture *fixture) {
    const sdpa_memory *memory = &fixture->memory;
    double expected[SDPA_N * SDPA_H * SDPA_L * SDPA_EV];
    for (int64_t row = 0; row < SDPA_N * SDPA_H * SDPA_L; ++row) {
        const int64_t head = row / SDPA_L;
        attend_row(memory->query + row * SDPA_E, memory->key + head * SDPA_S * SDPA_E,
                   memory->value + head * SDPA_S * SDPA_EV, expected + row * SDPA_EV);
    }
    refusal_assert_close("output", memory->output, expected, COUNT_OF(expected));
}
