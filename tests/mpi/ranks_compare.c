/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_compare.c: a rank's results against the oracle's.
 *
 * The bound. Let the oracle's bound of a row's output be that of one call. The sum of the bounds of
 * n parts, each weighted as merge.h weighs it, is no larger: a part has no more keys, no larger
 * error of a score and no larger difference of two scores. To it come, with A = sum w |v|, m the
 * largest difference of two logits of the row and u the unit roundoff,
 *   - what errors of at most x in the parts' lse do to the output, 2 x A: a part's lse is off by no
 *     more than the relative error of the weight that is off most, and 8 u (m + |lse|) for the
 *     logarithm,
 *   - n merges of two, (2 m + 16) u A each, and 2 (m + 12 + |lse|) u A for the lse that each gives.
 * The lse itself is off by x and n (m + 12 + |lse|) u. Without softmax parts are added: 2 n u A.
 * Of dropout the weights are those before it; what it leaves is larger by 1 / (1 - probability).
 * There are at most 2 parts for each stretch of a rank's, 4 for each rank.
 */
#include <math.h>

#include "ranks_case.h"
#include "support/oracle_tensor.h"

/* One row's numbers of the bound; sum: of w, which with the largest |v| is no less than A. */
typedef struct row_reach {
    double weight_error, spread, lse, sum;
} row_reach;

static row_reach reach_of(const oracle_array *weights, int64_t first, int64_t keys, double lse) {
    row_reach reach = {0};
    double largest = 0, smallest = INFINITY;
    for (int64_t j = first; j < first + keys; ++j) {
        const double weight = fabs(weights->value[j]);
        reach.sum += weight + weights->error[j];
        if (weight > 0) {
            reach.weight_error = fmax(reach.weight_error, weights->error[j] / weight);
            largest = fmax(largest, weight);
            smallest = fmin(smallest, weight);
        }
    }
    reach.spread = largest > 0 ? log(largest / smallest) : 0;
    reach.lse = isfinite(lse) ? fabs(lse) : 0;
    return reach;
}

/* A logit of a sink is one of the row's too. */
enum { SINK_SPREAD = 8 };

typedef struct compared_rows {
    const ranks_case *made;
    oracle_result expected;
    oracle_array weights; /* before dropout */
    int64_t heads_in_all, rows, keys, features;
    double unit;
} compared_rows;

/* The row of the whole as a row of this rank's, with the bound of many parts. */
static void expect_row(const compared_rows *rows, int64_t head, int64_t row, int64_t own_row,
                       int64_t own_rows, oracle_array *output, oracle_array *lse) {
    const int is_softmax = rows->made->params.normalizer == ATTN_NORMALIZER_SOFTMAX;
    const double merges = 4.0 * rows->made->num_ranks;
    const int64_t at = head * rows->rows + row, to = head * own_rows + own_row;
    const double exact_lse = is_softmax ? rows->expected.lse.value[at] : 0;
    row_reach reach = reach_of(&rows->weights, at * rows->keys, rows->keys, exact_lse);
    reach.sum /= 1 - rows->made->dropout.probability;
    reach.spread += rows->made->whole.sinks != NULL ? SINK_SPREAD : 0;
    const double lse_error = reach.weight_error + 8 * rows->unit * (reach.spread + reach.lse);
    const double merged = merges * (reach.spread + 12 + reach.lse) * rows->unit;
    const double relative =
        is_softmax ? 2 * lse_error + merges * (2 * reach.spread + 16) * rows->unit + 2 * merged
                   : 2 * merges * rows->unit;
    for (int64_t i = 0; i < rows->features; ++i) {
        const int64_t from = at * rows->features + i;
        output->value[to * rows->features + i] = rows->expected.output.value[from];
        output->error[to * rows->features + i] =
            rows->expected.output.error[from] + relative * reach.sum * RANKS_LARGEST_VALUE;
    }
    if (is_softmax) {
        lse->value[to] = exact_lse;
        lse->error[to] = rows->expected.lse.error[at] + lse_error + merged;
    }
}

int ranks_case_compare(const ranks_case *made, const char *kernels, compare_stats *stats,
                       char *message, size_t message_bytes) {
    const ranks_tensors *const whole = &made->whole;
    const attn_sdpa_params params = ranks_case_params(made, whole);
    const oracle_sdpa_shape shape =
        oracle_sdpa_output_shape(whole->query, whole->key, whole->value, &params);
    const double unit = oracle_weight_unit(kernels, whole->query, whole->key, whole->value);
    compared_rows rows = {.made = made,
                          .rows = shape.shape[shape.rank - 2],
                          .keys = whole->key->shape[whole->key->rank - 2],
                          .features = shape.shape[shape.rank - 1],
                          .unit = bound_rounding_of(whole->query->dtype).unit};
    rows.expected = oracle_sdpa(whole->query, whole->key, whole->value, &params, unit);
    attn_sdpa_params without_dropout = params;
    without_dropout.dropout = NULL;
    oracle_result undropped =
        oracle_sdpa(whole->query, whole->key, whole->value, &without_dropout, unit);
    rows.weights = undropped.weights;
    rows.heads_in_all = oracle_count(shape.rank - 2, shape.shape);
    const int64_t own_rows = made->num_query_rows;
    oracle_array output = oracle_array_create(rows.heads_in_all * own_rows * rows.features);
    oracle_array lse = oracle_array_create(rows.heads_in_all * own_rows);
    for (int64_t head = 0; head < rows.heads_in_all; ++head) {
        for (int64_t i = 0; i < own_rows; ++i) {
            expect_row(&rows, head, made->query_rows[i], i, own_rows, &output, &lse);
        }
    }
    int differs =
        compare_tensor("output", made->own.output, &output, stats, message, message_bytes);
    if (!differs && made->own.lse != NULL) {
        differs = compare_tensor("lse", made->own.lse, &lse, stats, message, message_bytes);
    }
    oracle_array_destroy(&output);
    oracle_array_destroy(&lse);
    oracle_result_destroy(&rows.expected);
    oracle_result_destroy(&undropped);
    return differs;
}
