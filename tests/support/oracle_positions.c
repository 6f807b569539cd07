/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_positions.c: norms and rotations of projected rows.
 */
#include "support/oracle_positions.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_rope.h"

static void normalize_row(const attn_mha_config *config, const double *weight, int64_t count,
                          bound_rounding rounding, double *x, double *error) {
    const int is_double = rounding.unit < 1e-12;
    const double preset = is_double ? DBL_EPSILON : (double)FLT_EPSILON;
    const double epsilon = config->qk_norm_epsilon != 0 ? config->qk_norm_epsilon : preset;
    double mean = 0, mean_error = 0;
    for (int64_t i = 0; i < count; ++i) {
        mean += x[i] * x[i] / (double)count;
        mean_error += (2 * fabs(x[i]) * error[i] + error[i] * error[i]) / (double)count;
    }
    const double scale = 1 / sqrt(mean + epsilon);
    const double most = 1 / sqrt(fmax(mean - mean_error, 0) + epsilon);
    for (int64_t i = 0; i < count; ++i) {
        const double w = config->qk_norm_weight_offset + weight[i];
        const double largest = fabs(w) * (fabs(x[i]) + error[i]) * most;
        error[i] = largest - fabs(w) * fabs(x[i]) * scale + bound_added(rounding, 2, largest) +
                   rounding.smallest;
        x[i] *= scale * w;
    }
}

void oracle_normalize_rows(const attn_mha_config *config, const double *weight,
                           const oracle_rows *rows) {
    const int is_of_head = config->qk_norm == ATTN_QK_NORM_HEAD;
    const int64_t count = rows->features * (is_of_head ? 1 : rows->heads);
    for (int64_t at = 0; at + count <= rows->numbers->count && count > 0; at += count) {
        normalize_row(config, weight, count, rows->rounding, rows->numbers->value + at,
                      rows->numbers->error + at);
    }
}

/* The feature that feature `at` makes a pair with, or itself. */
static int64_t partner_of(const attn_rope_params *rope, int64_t rotary_dim, int64_t at) {
    if (at >= rotary_dim) {
        return at;
    }
    return rope->interleaved ? at ^ 1 : (at + rotary_dim / 2) % rotary_dim;
}

/* (N, heads, length, features), or without N. */
static attn_tensor heads_view(int is_batched, const oracle_rows *rows) {
    const int64_t width = rows->heads * rows->features;
    attn_tensor view = {
        .data = rows->numbers->value,
        .dtype = ATTN_DTYPE_FLOAT64,
        .rank = 4,
        .shape = {rows->batches, rows->heads, rows->length, rows->features},
        .strides = {rows->length * width, rows->features, width, 1},
    };
    if (!is_batched) {
        view.rank = 3;
        memmove(view.shape, view.shape + 1, 3 * sizeof *view.shape);
        memmove(view.strides, view.strides + 1, 3 * sizeof *view.strides);
    }
    return view;
}

void oracle_rotate_rows(const attn_rope_params *rope, int is_batched, const oracle_rows *rows) {
    if (rows->numbers->count == 0) {
        return;
    }
    const attn_tensor view = heads_view(is_batched, rows);
    oracle_array turned = oracle_rope(&view, rope);
    const int64_t rotary_dim = rope->rotary_dim != 0 ? rope->rotary_dim : rows->features;
    const int64_t width = rows->heads * rows->features;
    oracle_array result = oracle_array_create(rows->numbers->count);
    for (int64_t i = 0; i < turned.count; ++i) {
        const int64_t feature = i % rows->features, row = i / rows->features % rows->length;
        const int64_t head = i / rows->features / rows->length % rows->heads;
        const int64_t batch = i / rows->features / rows->length / rows->heads;
        const int64_t at = (batch * rows->length + row) * width + head * rows->features + feature;
        const int64_t other = at - feature + partner_of(rope, rotary_dim, feature);
        const double *value = rows->numbers->value, *error = rows->numbers->error;
        const double errors = error[at] + (other != at ? error[other] : 0);
        const double sizes = fabs(value[at]) + fabs(value[other]) + errors;
        /* A projected row with a NaN is NaN everywhere, and so it stays. */
        const int is_nan = other != at && (isnan(value[at]) || isnan(value[other]));
        result.value[at] = is_nan ? (double)NAN : turned.value[i];
        result.error[at] =
            turned.error[i] + errors +
            (other != at ? bound_added(rows->rounding, 5, sizes) + rows->rounding.smallest : 0);
    }
    oracle_array_destroy(&turned);
    oracle_array_destroy(rows->numbers);
    *rows->numbers = result;
}
