/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_decode.c: every rank attends its own keys, then merges all ranks' partial results by rank.
 */
#include "mpi_decode.h"

#include "mpi_copy.h"
#include "mpi_exchange.h"

static const attni_mpi_stretch *own_rows(const attni_mpi_call *call) {
    return &call->link->query_places[call->link->group.rank].stretches[0];
}

/* The rank's part over one stretch of its keys. Sinks are the merge's. */
static attni_mpi_part part_of(const attni_mpi_call *call, int which_keys) {
    return (attni_mpi_part){
        .rows = *own_rows(call),
        .keys = call->link->key_places[call->link->group.rank].stretches[which_keys]};
}

static attni_mpi_partial partial_at(const attni_mpi_call *call, char *output, char *lse) {
    attni_mpi_partial partial =
        attni_mpi_partial_shape(call, own_rows(call)->count, call->score_dtype);
    partial.output.data = output;
    partial.lse.data = lse;
    return partial;
}

attn_status attni_mpi_decode_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                  attni_mpi_decode *decode) {
    const int num_ranks = call->link->group.num_ranks;
    const attni_mpi_partial shape = partial_at(call, NULL, NULL);
    attni_mpi_layout one = {0};
    int units;
    *decode = (attni_mpi_decode){0};
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = part_of(call, i);
        ATTNI_MPI_TRY(attni_mpi_part_plan(call, &part, &call->key, &call->value, &decode->scratch));
    }
    attni_mpi_layout_add_tensor(&one, &shape.output);
    decode->lse_at = call->is_softmax ? attni_mpi_layout_add_tensor(&one, &shape.lse) : one.bytes;
    decode->partial_bytes = one.bytes;
    layout->overflows |= one.overflows;
    ATTNI_MPI_TRY(attni_mpi_units(one.bytes, &units));
    decode->bytes_sent = one.bytes * (num_ranks - 1);
    decode->gathered_at = attni_mpi_layout_add(layout, num_ranks, one.bytes);
    decode->part_at = attni_mpi_layout_add_tensor(layout, &shape.output);
    decode->part_lse_at = attni_mpi_layout_add_tensor(layout, &shape.lse);
    decode->outputs_at = attni_mpi_layout_add(layout, num_ranks, sizeof(attn_tensor));
    decode->lses_at = attni_mpi_layout_add(layout, num_ranks, sizeof(attn_tensor));
    attni_mpi_part_layout(call, layout, &decode->scratch);
    return ATTN_OK;
}

static attni_mpi_partial gathered_of(const attni_mpi_call *call, const attni_mpi_decode *decode,
                                     char *block, int rank) {
    char *const base = block + decode->gathered_at + rank * decode->partial_bytes;
    return partial_at(call, base, base + decode->lse_at);
}

static attn_status attend_own_keys(const attni_mpi_call *call, const attni_mpi_decode *decode,
                                   char *block) {
    const attni_mpi_partial sum = gathered_of(call, decode, block, call->link->group.rank);
    const attni_mpi_partial second =
        partial_at(call, block + decode->part_at, block + decode->part_lse_at);
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = part_of(call, i);
        const attni_mpi_partial *const result = i == 0 ? &sum : &second;
        if (i > 0 && !attni_mpi_part_is_visible(call, &part.rows, &part.keys)) {
            continue;
        }
        ATTNI_MPI_TRY(attni_mpi_part_run(call, &part, &call->key, &call->value, &decode->scratch,
                                         block, &result->output, &result->lse));
        if (i > 0) {
            ATTNI_MPI_TRY(attni_mpi_partial_merge(call, result, &sum));
        }
    }
    return ATTN_OK;
}

static attn_status merge_all(const attni_mpi_call *call, const attni_mpi_decode *decode,
                             char *block, const attni_mpi_partial *stored) {
    attn_tensor *const outputs = (attn_tensor *)(block + decode->outputs_at);
    attn_tensor *const lses = (attn_tensor *)(block + decode->lses_at);
    const attn_merge_params params = {.struct_size = sizeof params, .sinks = call->params.sinks};
    for (int rank = 0; rank < call->link->group.num_ranks; ++rank) {
        const attni_mpi_partial partial = gathered_of(call, decode, block, rank);
        outputs[rank] = partial.output;
        lses[rank] = partial.lse;
    }
    return attn_sdpa_merge(call->context, call->link->group.num_ranks, outputs,
                           call->is_softmax ? lses : NULL, &params, &stored->output,
                           call->is_softmax ? &stored->lse : NULL);
}

attn_status attni_mpi_decode_run(const attni_mpi_call *call, const attni_mpi_decode *decode,
                                 char *block, attni_mpi_partial *stored) {
    const attni_mpi_link *const link = call->link;
    int units;
    const attn_status status = attend_own_keys(call, decode, block);
    *stored = attni_mpi_partial_shape(call, own_rows(call)->count, call->output.dtype);
    stored->output.data = block + decode->part_at;
    stored->lse.data = block + decode->part_lse_at;
    units = (int)(decode->partial_bytes / ATTNI_MPI_UNIT_BYTES);
    const attn_status sent = attni_mpi_result(
        "MPI_Allgather", MPI_Allgather(MPI_IN_PLACE, 0, link->unit, block + decode->gathered_at,
                                       units, link->unit, link->group.comm));
    if (sent != ATTN_OK) {
        return sent;
    }
    return status == ATTN_OK ? merge_all(call, decode, block, stored) : status;
}
