/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_merge.c: parts of rows weighed by their row sums, written for clarity. To a row a part is
 * what a key is to a row of attention: the lse its score, the output its value.
 */
#include "support/oracle_merge.h"

#include <math.h>
#include <stdlib.h>

#include "support/oracle_softmax.h"

/* The elements of a tensor, without errors. */
static oracle_array exact_array(const attn_tensor *tensor) {
    const int64_t count = oracle_count(tensor->rank, tensor->shape);
    oracle_array array = oracle_array_create(count);
    free(array.value);
    array.value = oracle_expand(tensor, tensor->rank, tensor->shape);
    return array;
}

/* The sinks (H) or (1) of each row, H being the axis before L. */
static double *sinks_of_rows(const attn_tensor *sinks, const attn_tensor *output) {
    attn_tensor by_head = *sinks;
    if (output->rank > 2) {
        by_head.rank = 2;
        by_head.shape[1] = 1;
        by_head.strides[1] = 0;
    }
    return oracle_expand(&by_head, output->rank - 1, output->shape);
}

oracle_parts oracle_parts_create(int64_t count, const attn_tensor *outputs, const attn_tensor *lses,
                                 const attn_tensor *sinks) {
    const int32_t rank = outputs->rank;
    oracle_parts parts = {.count = count,
                          .rows = oracle_count(rank - 1, outputs->shape),
                          .cols = outputs->shape[rank - 1],
                          .rounding = bound_rounding_of(outputs->dtype),
                          .has_lses = lses != NULL};
    for (int64_t i = 0; i < count; ++i) {
        parts.outputs[i] = exact_array(&outputs[i]);
        parts.lses[i] = lses != NULL ? exact_array(&lses[i]) : (oracle_array){0};
    }
    parts.sinks = sinks != NULL ? sinks_of_rows(sinks, outputs) : NULL;
    return parts;
}

void oracle_parts_destroy(oracle_parts *parts) {
    for (int64_t i = 0; i < parts->count; ++i) {
        oracle_array_destroy(&parts->outputs[i]);
        oracle_array_destroy(&parts->lses[i]);
    }
    free(parts->sinks);
    *parts = (oracle_parts){0};
}

/* The parts of a row as positions; a sink is one more, behind them. */
static void read_row(const oracle_parts *parts, int64_t at, oracle_row *row) {
    for (int64_t i = 0; i < parts->count; ++i) {
        row->score[i] = parts->has_lses ? parts->lses[i].value[at] : 0;
        row->score_error[i] = parts->has_lses ? parts->lses[i].error[at] : 0;
        row->visible[i] = (unsigned char)(row->score[i] != -INFINITY);
    }
    if (parts->sinks != NULL) {
        row->score[parts->count] = parts->sinks[at];
        row->score_error[parts->count] = 0;
        row->visible[parts->count] = (unsigned char)(parts->sinks[at] != -INFINITY);
    }
}

/* Weights of parts that are simply added. */
static void weigh_alike(const oracle_parts *parts, oracle_row *row) {
    for (int64_t i = 0; i < parts->count; ++i) {
        row->visible[i] = 1;
        row->weight[i] = 1;
        row->weight_error[i] = 0;
    }
}

/* One element: its error counts (count + 4) u for the sum of products. Open where what is not
 * finite has a weight that may be computed as 0. */
static void merge_element(const oracle_parts *parts, const oracle_row *row, int64_t element,
                          double *value, double *error) {
    double magnitude = 0;
    int is_open = 0;
    *value = *error = 0;
    for (int64_t i = 0; i < parts->count; ++i) {
        if (!row->visible[i]) {
            continue;
        }
        const double output = parts->outputs[i].value[element];
        const double output_error = parts->outputs[i].error[element];
        if (!isfinite(output)) {
            is_open |= row->weight[i] - row->weight_error[i] <= parts->rounding.smallest;
        } else {
            *error += bound_product(row->weight[i], row->weight_error[i], output, output_error) +
                      parts->rounding.smallest;
            magnitude += (row->weight[i] + row->weight_error[i]) * (fabs(output) + output_error);
        }
        *value += row->weight[i] * output;
    }
    *error += (double)(parts->count + 4) * parts->rounding.unit * magnitude;
    if (is_open) {
        *value = 0;
        *error = NAN;
    }
}

oracle_merge_result oracle_merge(const oracle_parts *parts) {
    oracle_merge_result result = {oracle_array_create(parts->rows * parts->cols),
                                  oracle_array_create(parts->rows)};
    oracle_row row = oracle_row_create(parts->count + (parts->sinks != NULL));
    for (int64_t at = 0; at < parts->rows; ++at) {
        read_row(parts, at, &row);
        oracle_row_softmax(&row, parts->rounding);
        if (!parts->has_lses) {
            weigh_alike(parts, &row);
        }
        result.lse.value[at] = row.lse;
        result.lse.error[at] = row.lse_error;
        for (int64_t c = 0; c < parts->cols; ++c) {
            const int64_t element = at * parts->cols + c;
            merge_element(parts, &row, element, &result.output.value[element],
                          &result.output.error[element]);
        }
    }
    oracle_row_destroy(&row);
    return result;
}

void oracle_merge_result_destroy(oracle_merge_result *result) {
    oracle_array_destroy(&result->output);
    oracle_array_destroy(&result->lse);
}
