/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_softmax.c: masks and the softmax of rows in float64, written for clarity.
 */
#include "support/oracle_softmax.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

oracle_mask oracle_mask_create(int64_t count) {
    return (oracle_mask){oracle_allocate(count, sizeof(double)),
                         oracle_allocate(count, sizeof(double))};
}

void oracle_mask_destroy(oracle_mask *mask) {
    free(mask->bias);
    free(mask->magnitude);
    *mask = (oracle_mask){0};
}

/* What an element of a mask adds to the score. */
static double mask_bias(int32_t kind, double element) {
    switch (kind) {
    case ATTN_MASK_BOOL_INCLUDE:
        return element != 0 ? 0 : -INFINITY;
    case ATTN_MASK_BOOL_EXCLUDE:
        return element != 0 ? -INFINITY : 0;
    default:
        return element;
    }
}

void oracle_mask_add_bias(oracle_mask *mask, int64_t at, double bias) {
    const int is_hidden = bias == -INFINITY || mask->bias[at] == -INFINITY;
    mask->bias[at] = is_hidden ? -INFINITY : finite_sum(mask->bias[at], bias, DBL_MAX);
    mask->magnitude[at] = finite_sum(mask->magnitude[at], isfinite(bias) ? fabs(bias) : 0, DBL_MAX);
}

void oracle_mask_add(oracle_mask *mask, int32_t kind, const attn_tensor *tensor, int32_t rank,
                     const int64_t *shape) {
    const int64_t count = oracle_count(rank, shape);
    double *elements = oracle_expand(tensor, rank, shape);
    for (int64_t i = 0; i < count; ++i) {
        oracle_mask_add_bias(mask, i, mask_bias(kind, elements[i]));
    }
    free(elements);
}

void oracle_mask_add_placed(oracle_mask *mask, int32_t kind, const attn_tensor *tensor,
                            int32_t rank, const int64_t *shape, const int64_t *starts,
                            int64_t rows_of_start) {
    const int64_t keys = shape[rank - 1], columns = tensor->shape[tensor->rank - 1];
    int64_t own[ATTN_MAX_RANK];
    memcpy(own, shape, (size_t)rank * sizeof *own);
    own[rank - 1] = columns;
    double *elements = oracle_expand(tensor, rank, own);
    for (int64_t row = 0; row < oracle_count(rank - 1, shape); ++row) {
        for (int64_t j = 0; j < keys; ++j) {
            const int64_t start = starts[row / rows_of_start];
            /* Columns are few, and starts perhaps as far away as numbers go. */
            const int is_before = j < start, is_behind = !is_before && start <= j - columns;
            const double bias = is_before   ? 0
                                : is_behind ? -INFINITY
                                            : mask_bias(kind, elements[row * columns + j - start]);
            oracle_mask_add_bias(mask, row * keys + j, bias);
        }
    }
    free(elements);
}

oracle_row oracle_row_create(int64_t count) {
    oracle_row row = {.count = count};
    row.visible = oracle_allocate(count, 1);
    row.score = oracle_allocate(count, sizeof(double));
    row.score_error = oracle_allocate(count, sizeof(double));
    row.weight = oracle_allocate(count, sizeof(double));
    row.weight_error = oracle_allocate(count, sizeof(double));
    return row;
}

void oracle_row_destroy(oracle_row *row) {
    free(row->visible);
    free(row->score);
    free(row->score_error);
    free(row->weight);
    free(row->weight_error);
    *row = (oracle_row){0};
}

/* The largest visible score; -inf if there is none, NaN if a visible score is NaN or +inf. */
static double row_maximum(const oracle_row *row) {
    double maximum = -INFINITY;
    for (int64_t j = 0; j < row->count; ++j) {
        if (row->visible[j] && (isnan(row->score[j]) || row->score[j] == INFINITY)) {
            return NAN;
        }
        if (row->visible[j]) {
            maximum = fmax(maximum, row->score[j]);
        }
    }
    return maximum;
}

/* A row without a finite maximum: weights 0 and lse -inf, or, if the maximum is NaN, NaN and the
 * hidden weights left open. */
static void fill_row(oracle_row *row, double maximum) {
    for (int64_t j = 0; j < row->count; ++j) {
        row->weight[j] = row->visible[j] && isnan(maximum) ? NAN : 0;
        row->weight_error[j] = isnan(maximum) ? NAN : 0;
    }
    row->lse = maximum;
    row->lse_error = 0;
}

void oracle_row_softmax(oracle_row *row, bound_rounding rounding) {
    const double maximum = row_maximum(row);
    if (!isfinite(maximum)) {
        fill_row(row, maximum);
        return;
    }
    double sum = 0;
    for (int64_t j = 0; j < row->count; ++j) {
        sum += row->visible[j] ? exp(row->score[j] - maximum) : 0;
    }
    row->lse = maximum + log(sum);

    double *log_weight = oracle_allocate(row->count, sizeof *log_weight);
    double *score_error = oracle_allocate(row->count, sizeof *score_error);
    for (int64_t j = 0; j < row->count; ++j) {
        const double below = maximum - row->score[j];
        const int counts = row->visible[j] && below < INFINITY;
        row->weight[j] = row->visible[j] ? exp(-below) / sum : 0;
        log_weight[j] = counts ? -below - log(sum) : -INFINITY;
        score_error[j] = counts ? row->score_error[j] + rounding.unit * below : 0;
    }
    row->lse_error =
        bound_softmax_row(rounding, row->count, log_weight, score_error, row->weight_error);
    row->lse_error += bound_logarithm(rounding, maximum, row->lse);
    free(log_weight);
    free(score_error);
}

/* The visible positions of every row of an attn_softmax call, and their scores. */
static void read_row(const attn_softmax_params *params, const double *values,
                     const oracle_mask *mask, int64_t length, bound_rounding rounding,
                     oracle_row *row) {
    for (int64_t j = 0; j < row->count; ++j) {
        row->visible[j] = j < length && mask->bias[j] != -INFINITY;
        row->score[j] = finite_sum(values[j], mask->bias[j], rounding.largest);
        row->score_error[j] = 0;
        if (params != NULL && params->mask_kind == ATTN_MASK_ADDITIVE) {
            row->score_error[j] = bound_added(
                rounding, 3, isfinite(values[j]) ? fabs(values[j]) + mask->magnitude[j] : 0);
        }
    }
}

oracle_softmax_result oracle_softmax(const attn_tensor *input, const attn_softmax_params *params) {
    const int32_t rank = input->rank;
    const int64_t count = oracle_count(rank, input->shape), width = input->shape[rank - 1];
    const int64_t num_rows = oracle_count(rank - 1, input->shape);
    const bound_rounding rounding = bound_rounding_of(input->dtype);
    oracle_softmax_result result = {oracle_array_create(count), oracle_array_create(num_rows), 0};

    double *values = oracle_expand(input, rank, input->shape);
    oracle_mask mask = oracle_mask_create(count);
    int64_t *lengths = NULL;
    if (params != NULL && params->mask != NULL) {
        oracle_mask_add(&mask, params->mask_kind, params->mask, rank, input->shape);
    }
    if (params != NULL && params->lengths != NULL) {
        lengths = oracle_expand_integers(params->lengths, rank - 1, input->shape);
    }
    oracle_row row = oracle_row_create(width);
    for (int64_t i = 0; i < num_rows; ++i) {
        const oracle_mask row_mask = {mask.bias + i * width, mask.magnitude + i * width};
        read_row(params, values + i * width, &row_mask, lengths != NULL ? lengths[i] : width,
                 rounding, &row);
        oracle_row_softmax(&row, rounding);
        for (int64_t j = 0; j < width; ++j) {
            result.output.value[i * width + j] = row.weight[j];
            result.output.error[i * width + j] = row.weight_error[j];
            result.num_visible += row.visible[j];
        }
        result.lse.value[i] = row.lse;
        result.lse.error[i] = row.lse_error;
    }
    oracle_row_destroy(&row);
    oracle_mask_destroy(&mask);
    free(lengths);
    free(values);
    return result;
}

void oracle_softmax_result_destroy(oracle_softmax_result *result) {
    oracle_array_destroy(&result->output);
    oracle_array_destroy(&result->lse);
}
