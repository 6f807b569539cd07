/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_decode_backward.c: every rank's share of its own keys.
 */
#include "mpi_decode_backward.h"

/* The rank's part over one stretch of its keys. */
static attni_mpi_part part_of(const attni_mpi_call *call, int which_keys) {
    const int rank = call->link->group.rank;
    return (attni_mpi_part){.rows = call->link->query_places[rank].stretches[0],
                            .keys = call->link->key_places[rank].stretches[which_keys]};
}

attn_status attni_mpi_decode_backward_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                           attni_mpi_decode_backward *decode) {
    *decode = (attni_mpi_decode_backward){0};
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = part_of(call, i);
        ATTNI_MPI_TRY(
            attni_mpi_gradient_part_plan(call, &part, &call->key, &call->value, &decode->scratch));
    }
    ATTNI_MPI_TRY(attni_mpi_sinks_part_plan(call, layout, &decode->scratch, &decode->sinks));
    attni_mpi_part_layout(call, layout, &decode->scratch);
    return ATTN_OK;
}

attn_status attni_mpi_decode_backward_run(const attni_mpi_call *call,
                                          const attni_mpi_decode_backward *decode,
                                          const attni_mpi_sums *sums, char *block) {
    attn_tensor key_sum, value_sum;
    const attni_mpi_keys_at_hand keys = {
        call->key, call->value, attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_KEY, &key_sum),
        attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_VALUE, &value_sum)};
    /* Rows are everywhere, and count once. */
    if (call->link->group.rank == 0) {
        ATTNI_MPI_TRY(
            attni_mpi_sinks_part_run(call, &decode->sinks, sums, &decode->scratch, block));
    }
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = part_of(call, i);
        if (attni_mpi_part_is_visible(call, &part.rows, &part.keys)) {
            ATTNI_MPI_TRY(
                attni_mpi_gradient_part_run(call, &part, &keys, sums, &decode->scratch, block));
        }
    }
    return ATTN_OK;
}
