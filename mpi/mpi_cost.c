/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_cost.c: the cost model. It knows shapes, causality and window; of lengths and masks it knows
 * nothing, so what these hide is counted.
 */
#include "mpi_cost.h"

#include <math.h>

#include "mpi_head_ranges.h"

/* sum of min(max(p, 0), limit) over p = first, first + 1, ... first + count - 1 */
static double clamped_sum(double first, double count, double limit) {
    const double from = fmin(fmax(-first, 0), count);
    const double to = fmax(fmin(limit - first, count), from);
    const double rising = to - from;
    return rising * (first + from) + rising * (rising - 1) / 2 + (count - to) * limit;
}

double attni_mpi_visible_pairs(const attn_sdpa_params *params, double first, double count,
                               double num_keys) {
    const bool has_window = params->set & ATTN_SDPA_SET_WINDOW;
    double right =
        has_window && params->window_right >= 0 ? (double)params->window_right : INFINITY;
    if (params->is_causal) {
        right = 0;
    }
    double pairs = count * num_keys;
    if (isfinite(right)) {
        pairs = clamped_sum(first + right + 1, count, num_keys);
    }
    if (has_window && params->window_left >= 0) {
        pairs -= clamped_sum(first - (double)params->window_left, count, num_keys);
    }
    return fmax(pairs, 0);
}

static double batches_of(const attn_tensor *output) {
    double batches = 1;
    for (int32_t axis = 0; axis + 3 < output->rank; ++axis) {
        batches *= (double)output->shape[axis];
    }
    return batches;
}

static double heads_of(const attn_tensor *tensor) {
    return tensor->rank >= 3 ? (double)tensor->shape[tensor->rank - 3] : 1;
}

/* Bytes of a tensor of one row. */
static double row_bytes(const attn_tensor *tensor) {
    return batches_of(tensor) * heads_of(tensor) * (double)tensor->shape[tensor->rank - 1] *
           (double)attn_dtype_size_bytes(tensor->dtype);
}

/* Multiply-adds of a visible pair, of all batches and heads: two products, or backward five. */
static double pair_products(const attni_mpi_call *call) {
    const double features = (double)call->query.shape[call->query.rank - 1];
    const double value_features = (double)call->output.shape[call->output.rank - 1];
    return batches_of(&call->output) * heads_of(&call->output) *
           (call->is_backward ? 3 * features + 2 * value_features : features + value_features);
}

/* Bytes of a row of an input's gradient while it is summed; 0 where it is not wanted. */
static double sum_bytes(const attni_mpi_call *call, const attn_tensor *wanted,
                        const attn_tensor *input) {
    return wanted == NULL ? 0
                          : row_bytes(input) / (double)attn_dtype_size_bytes(input->dtype) *
                                (double)attn_dtype_size_bytes(call->score_dtype);
}

/* Of a row of queries, and of keys and values, what is added by a backward pass. */
static double query_sum_bytes(const attni_mpi_call *call) {
    return sum_bytes(call, call->gradients.query, &call->query);
}

static double key_sum_bytes(const attni_mpi_call *call) {
    return sum_bytes(call, call->gradients.key, &call->key) +
           sum_bytes(call, call->gradients.value, &call->value);
}

static double place_pairs(const attni_mpi_call *call, const attni_mpi_place *place) {
    const double offset = call->params.align_end ? (double)(call->num_keys - call->num_rows) : 0;
    double pairs = 0;
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_stretch *const stretch = &place->stretches[i];
        pairs += attni_mpi_visible_pairs(&call->params, offset + (double)stretch->first,
                                         (double)stretch->count, (double)call->num_keys);
    }
    return pairs;
}

static double predict_ring(const attni_mpi_call *call) {
    const attni_mpi_link *const link = call->link;
    double most_pairs = 0, most_keys = 0;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        most_pairs = fmax(most_pairs, place_pairs(call, &link->query_places[rank]));
        most_keys = fmax(most_keys, (double)link->lengths[rank][ATTNI_MPI_KEY_ROWS]);
    }
    const double step =
        most_pairs * pair_products(call) / call->costs.products_per_second / link->group.num_ranks;
    const double latency = call->costs.latency_seconds, rate = call->costs.bytes_per_second;
    const double keys = most_keys * (row_bytes(&call->key) + row_bytes(&call->value));
    const double sums = most_keys * key_sum_bytes(call);
    const double home = sums > 0 && link->group.num_ranks > 1 ? latency + sums / rate
                                                              : 0; /* nothing is left to compute */
    const double message = latency * (sums > 0 ? 2 : 1) + (keys + sums) / rate;
    return (link->group.num_ranks - 1) * fmax(step, message) + step + home;
}

static double predict_heads(const attni_mpi_call *call) {
    const int num_ranks = call->link->group.num_ranks;
    const double share =
        (double)attni_mpi_heads_most_units(call) / fmax(1, (double)attni_mpi_heads_units(call));
    const attni_mpi_place whole = {.stretches = {{.count = call->num_rows}}};
    const double bytes =
        share * (num_ranks - 1) / num_ranks *
        ((double)call->num_rows *
             (row_bytes(&call->query) + row_bytes(&call->output) * (call->is_backward ? 2 : 1) +
              query_sum_bytes(call)) +
         (double)call->num_keys *
             (row_bytes(&call->key) + row_bytes(&call->value) + key_sum_bytes(call)));
    if (call->masks_have_rows) {
        return INFINITY;
    }
    return share * place_pairs(call, &whole) * pair_products(call) /
               call->costs.products_per_second +
           2 * (num_ranks - 1) * call->costs.latency_seconds + bytes / call->costs.bytes_per_second;
}

static double predict_decode(const attni_mpi_call *call) {
    const attni_mpi_link *const link = call->link;
    double most_keys = 0;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        most_keys = fmax(most_keys, (double)link->lengths[rank][ATTNI_MPI_KEY_ROWS]);
    }
    const double partial_bytes =
        (double)call->num_rows * (call->is_backward
                                      ? 2 / (double)link->group.num_ranks * query_sum_bytes(call)
                                      : sum_bytes(call, &call->output, &call->output));
    return (double)call->num_rows * most_keys * pair_products(call) /
               call->costs.products_per_second +
           ceil(log2(link->group.num_ranks)) * call->costs.latency_seconds +
           (link->group.num_ranks - 1) * partial_bytes / call->costs.bytes_per_second;
}

attni_mpi_prediction attni_mpi_predict(const attni_mpi_call *call) {
    if (call->scheme == ATTN_MPI_SCHEME_DECODE) {
        return (attni_mpi_prediction){INFINITY, INFINITY, predict_decode(call)};
    }
    return (attni_mpi_prediction){predict_ring(call), predict_heads(call), INFINITY};
}
