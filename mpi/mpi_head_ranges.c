/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_head_ranges.c: deals heads out to the ranks.
 */
#include "mpi_head_ranges.h"

#include "mpi_copy.h"

static int64_t num_heads_of(const attn_tensor *tensor) {
    return tensor->rank >= 3 ? tensor->shape[tensor->rank - 3] : 1;
}

static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int64_t attni_mpi_heads_units(const attni_mpi_call *call) {
    const int64_t key_heads = num_heads_of(&call->key), value_heads = num_heads_of(&call->value);
    const int64_t num_heads = num_heads_of(&call->output);
    if (call->params.enable_gqa == 0) {
        return num_heads;
    }
    /* A single head is sent to everybody. */
    const int64_t shared =
        greatest_common_divisor(key_heads == 1 ? 0 : key_heads, value_heads == 1 ? 0 : value_heads);
    return shared == 0 ? num_heads : shared;
}

/* Heads that one rank attends. */
typedef struct head_range {
    int64_t first, count;
} head_range;

static int64_t first_unit(const attni_mpi_call *call, int64_t num_units, int rank) {
    return num_units * rank / call->link->group.num_ranks;
}

int64_t attni_mpi_heads_most_units(const attni_mpi_call *call) {
    const int64_t num_units = attni_mpi_heads_units(call);
    return (num_units + call->link->group.num_ranks - 1) / call->link->group.num_ranks;
}

/* The heads of a tensor with so many that a rank gets. */
static head_range range_of(const attni_mpi_call *call, int64_t num_heads, int rank) {
    const int64_t num_units = attni_mpi_heads_units(call);
    const int64_t first = first_unit(call, num_units, rank);
    const int64_t end = first_unit(call, num_units, rank + 1);
    if (num_heads == 1 || end == first) {
        return (head_range){0, end > first};
    }
    const int64_t heads_of_unit = num_heads / num_units;
    return (head_range){first * heads_of_unit, (end - first) * heads_of_unit};
}

attn_tensor attni_mpi_cut_heads(const attni_mpi_call *call, const attn_tensor *tensor, int32_t axis,
                                int rank) {
    if (tensor->rank < -axis || tensor->shape[tensor->rank + axis] == 1) {
        return *tensor;
    }
    const head_range range = range_of(call, tensor->shape[tensor->rank + axis], rank);
    return attni_mpi_slice(tensor, axis, range.first, range.count);
}

bool attni_mpi_has_heads(const attni_mpi_call *call, int rank) {
    return range_of(call, 1, rank).count > 0;
}

static const attn_tensor *cut_option(const attni_mpi_call *call, const attn_tensor *option,
                                     int32_t axis, attn_tensor *view) {
    if (option == NULL) {
        return NULL;
    }
    *view = attni_mpi_cut_heads(call, option, axis, call->link->group.rank);
    return view;
}

void attni_mpi_describe_head_options(const attni_mpi_call *call, attni_mpi_head_options *options) {
    attn_sdpa_params *const own = &options->params;
    *own = call->params;
    own->mask = cut_option(call, own->mask, -3, &options->mask);
    own->bias = cut_option(call, own->bias, -3, &options->bias);
    own->alibi_slopes = cut_option(call, own->alibi_slopes, -1, &options->slopes);
    own->sinks = cut_option(call, own->sinks, -1, &options->sinks);
    own->position_bias = cut_option(call, own->position_bias, -2, &options->position_bias);
    own->block_mask = cut_option(call, own->block_mask, -3, &options->blocks);
    own->lse = NULL;
    if (own->dropout != NULL) {
        const head_range heads =
            range_of(call, num_heads_of(&call->output), call->link->group.rank);
        options->dropout = call->dropout;
        options->dropout.head = attni_mpi_saturated_sum(call->dropout.head, heads.first);
        own->dropout = &options->dropout;
    }
}
