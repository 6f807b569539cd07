/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_fixture.c: the valid call of attn_sdpa_backward, and what it must compute.
 */
#include "backward_fixture.h"

#include <math.h>
#include <string.h>

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof(array)[0]))

/* Shapes are those of what a gradient is of. */
static void make_views(backward_fixture *fixture) {
    backward_memory *memory = &fixture->memory;
    attn_tensor *views = fixture->views;
    const struct {
        int gradient, of;
        float *data;
    } places[] = {
        {BACKWARD_OF_OUTPUT, SDPA_OUTPUT, memory->of_output},
        {BACKWARD_OF_LSE, SDPA_LSE, memory->of_lse},
        {BACKWARD_OF_WEIGHTS, SDPA_WEIGHTS, memory->of_weights},
        {BACKWARD_OF_QUERY, SDPA_QUERY, memory->of_query},
        {BACKWARD_OF_KEY, SDPA_KEY, memory->of_key},
        {BACKWARD_OF_VALUE, SDPA_VALUE, memory->of_value},
        {BACKWARD_OF_MASK, SDPA_MASK, memory->of_mask},
        {BACKWARD_OF_BIAS, SDPA_BIAS, memory->of_bias},
        {BACKWARD_OF_POSITION_BIAS, SDPA_POSITION_BIAS, memory->of_position_bias},
        {BACKWARD_OF_ALIBI_SLOPES, SDPA_ALIBI_SLOPES, memory->of_alibi_slopes},
        {BACKWARD_OF_SINKS, SDPA_SINKS, memory->of_sinks},
    };
    memcpy(views, fixture->call.views, sizeof fixture->call.views);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
        const attn_tensor *of = &views[places[i].of];
        views[places[i].gradient] =
            refusal_view(places[i].data, ATTN_DTYPE_FLOAT32, of->rank, of->shape);
    }
}

void backward_fixture_prepare(backward_fixture *fixture, attn_context *context) {
    memset(fixture, 0, sizeof *fixture);
    sdpa_fixture_prepare(&fixture->call, context);
    sdpa_fixture_link(&fixture->call, SDPA_LSE);
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture->call));
    backward_memory *memory = &fixture->memory;
    refusal_fill(memory, sizeof *memory);
    refusal_numbers(memory->of_output, COUNT_OF(memory->of_output), 7);
    refusal_numbers(memory->of_lse, COUNT_OF(memory->of_lse), 8);
    refusal_numbers(memory->of_weights, COUNT_OF(memory->of_weights), 9);
    make_views(fixture);
    fixture->options.struct_size = sizeof fixture->options;
    fixture->gradients = &fixture->options;
    backward_fixture_link(fixture, BACKWARD_OF_OUTPUT);
    backward_fixture_link(fixture, BACKWARD_OF_QUERY);
    backward_fixture_link(fixture, BACKWARD_OF_KEY);
    backward_fixture_link(fixture, BACKWARD_OF_VALUE);
}

static const attn_tensor **place_of(backward_fixture *fixture, int tensor) {
    attn_sdpa_gradients *options = &fixture->options;
    const attn_tensor **const places[BACKWARD_TENSORS] = {
        [BACKWARD_OF_OUTPUT] = &options->output,
        [BACKWARD_OF_LSE] = &options->lse,
        [BACKWARD_OF_WEIGHTS] = &options->weights,
        [BACKWARD_OF_QUERY] = &options->query,
        [BACKWARD_OF_KEY] = &options->key,
        [BACKWARD_OF_VALUE] = &options->value,
        [BACKWARD_OF_MASK] = &options->mask,
        [BACKWARD_OF_BIAS] = &options->bias,
        [BACKWARD_OF_POSITION_BIAS] = &options->position_bias,
        [BACKWARD_OF_ALIBI_SLOPES] = &options->alibi_slopes,
        [BACKWARD_OF_SINKS] = &options->sinks,
    };
    return places[tensor];
}

void backward_fixture_link(backward_fixture *fixture, int tensor) {
    if (tensor < SDPA_TENSORS) {
        sdpa_fixture_link(&fixture->call, tensor);
    } else {
        *place_of(fixture, tensor) = &fixture->views[tensor];
    }
}

void backward_fixture_drop(backward_fixture *fixture, int tensor) {
    if (tensor < SDPA_ARGUMENTS) {
        fixture->call.arguments[tensor] = NULL;
    } else if (tensor == SDPA_LSE) {
        fixture->call.options.lse = NULL;
    } else {
        *place_of(fixture, tensor) = NULL;
    }
}

/* The call's views as the test has them now. */
static const attn_tensor *const *arguments_of(backward_fixture *fixture) {
    memcpy(fixture->call.views, fixture->views, sizeof fixture->call.views);
    return fixture->call.arguments;
}

attn_status backward_fixture_run(backward_fixture *fixture) {
    const attn_tensor *const *arguments = arguments_of(fixture);
    return attn_sdpa_backward(fixture->call.context, arguments[SDPA_QUERY], arguments[SDPA_KEY],
                              arguments[SDPA_VALUE], fixture->call.params, arguments[SDPA_OUTPUT],
                              fixture->gradients, fixture->workspace, fixture->workspace_bytes);
}

attn_status backward_fixture_workspace_bytes(backward_fixture *fixture, size_t *bytes) {
    const attn_tensor *const *arguments = arguments_of(fixture);
    return attn_sdpa_backward_workspace_bytes(
        fixture->call.context, arguments[SDPA_QUERY], arguments[SDPA_KEY], arguments[SDPA_VALUE],
        fixture->call.params, arguments[SDPA_OUTPUT], fixture->gradients, bytes);
}

attn_status backward_fixture_explain(backward_fixture *fixture, attn_sdpa_backward_report *report) {
    const attn_tensor *const *arguments = arguments_of(fixture);
    return attn_sdpa_backward_explain(
        fixture->call.context, arguments[SDPA_QUERY], arguments[SDPA_KEY], arguments[SDPA_VALUE],
        fixture->call.params, arguments[SDPA_OUTPUT], fixture->gradients, report);
}

/* ---- what it must compute ---- */

/* One row of a head: its share of each gradient. */
typedef struct row_gradients {
    const float *query; /* (E) */
    const float *key;   /* (S, E) */
    const float *value; /* (S, Ev) */
    const float *of_output;
    double *of_query;
    double *of_key;
    double *of_value;
} row_gradients;

static double dot(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        sum += (double)a[i] * b[i];
    }
    return sum;
}

/* dV += P^T dO, dP = dO V^T, dS = P (dP - P . dP), dQ = scale dS K, dK += scale dS^T Q. */
static void add_row(const row_gradients *row) {
    const double scale = 1 / sqrt(SDPA_E);
    double weights[SDPA_S], of_weights[SDPA_S];
    double sum = 0, mean = 0;
    for (int64_t j = 0; j < SDPA_S; ++j) {
        weights[j] = exp(scale * dot(row->query, row->key + j * SDPA_E, SDPA_E));
        of_weights[j] = dot(row->of_output, row->value + j * SDPA_EV, SDPA_EV);
        sum += weights[j];
        mean += weights[j] * of_weights[j];
    }
    for (int64_t j = 0; j < SDPA_S; ++j) {
        const double weight = weights[j] / sum;
        const double of_score = scale * weight * (of_weights[j] - mean / sum);
        for (int64_t d = 0; d < SDPA_EV; ++d) {
            row->of_value[j * SDPA_EV + d] += weight * row->of_output[d];
        }
        for (int64_t d = 0; d < SDPA_E; ++d) {
            row->of_query[d] += of_score * row->key[j * SDPA_E + d];
            row->of_key[j * SDPA_E + d] += of_score * row->query[d];
        }
    }
}

void backward_fixture_assert_values(const backward_fixture *fixture) {
    const sdpa_memory *call = &fixture->call.memory;
    const backward_memory *memory = &fixture->memory;
    double of_query[COUNT_OF(memory->of_query)] = {0};
    double of_key[COUNT_OF(memory->of_key)] = {0};
    double of_value[COUNT_OF(memory->of_value)] = {0};
    for (int64_t row = 0; row < (int64_t)SDPA_N * SDPA_H * SDPA_L; ++row) {
        const int64_t head = row / SDPA_L;
        const row_gradients gradients = {
            .query = call->query + row * SDPA_E,
            .key = call->key + head * SDPA_S * SDPA_E,
            .value = call->value + head * SDPA_S * SDPA_EV,
            .of_output = memory->of_output + row * SDPA_EV,
            .of_query = of_query + row * SDPA_E,
            .of_key = of_key + head * SDPA_S * SDPA_E,
            .of_value = of_value + head * SDPA_S * SDPA_EV,
        };
        add_row(&gradients);
    }
    refusal_assert_close("gradients.query", memory->of_query, of_query, COUNT_OF(of_query));
    refusal_assert_close("gradients.key", memory->of_key, of_key, COUNT_OF(of_key));
    refusal_assert_close("gradients.value", memory->of_value, of_value, COUNT_OF(of_value));
}
