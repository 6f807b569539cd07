/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_ring.c: in step s a rank attends the keys of the rank s before it, which it passes on at the
 * same time, while those of the next step come in.
 */
#include "mpi_ring.h"

#include "mpi_copy.h"
#include "mpi_exchange.h"
#include "mpi_travel.h"

static attn_status plan_blocks(const attni_mpi_call *call, attni_mpi_layout *layout,
                               attni_mpi_ring *ring) {
    const attni_mpi_link *const link = call->link;
    int64_t most_bytes = 0;
    for (int rank = 0; rank < link->group.num_ranks && link->group.num_ranks > 1; ++rank) {
        const int64_t bytes = attni_mpi_travelling_keys(call, rank, NULL).bytes;
        most_bytes = bytes > most_bytes ? bytes : most_bytes;
    }
    int units;
    ATTNI_MPI_TRY(attni_mpi_units(most_bytes, &units));
    for (int i = 0; i < 2; ++i) {
        ring->blocks_at[i] = attni_mpi_layout_add(layout, most_bytes, 1);
    }
    return ATTN_OK;
}

attn_status attni_mpi_ring_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                attni_mpi_ring *ring) {
    const attni_mpi_link *const link = call->link;
    const int64_t rows = link->lengths[link->group.rank][ATTNI_MPI_QUERY_ROWS];
    const attni_mpi_partial sum = attni_mpi_partial_shape(call, rows, call->score_dtype);
    *ring = (attni_mpi_ring){.num_steps = attni_mpi_count_steps(call)};
    for (int64_t step = 0; step + 1 < ring->num_steps; ++step) {
        const int rank = attni_mpi_rank_before(link, link->group.rank, step);
        ring->bytes_sent += attni_mpi_travelling_keys(call, rank, NULL).bytes;
    }
    ATTNI_MPI_TRY(attni_mpi_plan_pieces(call, attni_mpi_part_plan, &ring->scratch));
    ATTNI_MPI_TRY(plan_blocks(call, layout, ring));
    ring->sum_at = attni_mpi_layout_add_tensor(layout, &sum.output);
    ring->sum_lse_at = attni_mpi_layout_add_tensor(layout, &sum.lse);
    /* No output has wider elements than the sum. */
    ring->part_at = attni_mpi_layout_add_tensor(layout, &sum.output);
    ring->part_lse_at = attni_mpi_layout_add_tensor(layout, &sum.lse);
    attni_mpi_part_layout(call, layout, &ring->scratch);
    return ATTN_OK;
}

/* What a run has at hand. */
typedef struct ring_state {
    const attni_mpi_call *call;
    const attni_mpi_ring *ring;
    char *block;
    attni_mpi_partial sum; /* of the rank's own rows */
    attni_mpi_travelling at_hand;
    attni_mpi_exchange exchange;
} ring_state;

/* A piece's result joins the sum of its rows; the first one is it. */
static attn_status attend_piece(void *data, const attni_mpi_part *piece) {
    ring_state *const state = data;
    const attni_mpi_call *const call = state->call;
    const attni_mpi_partial sum =
        attni_mpi_partial_rows(&state->sum, piece->rows.local, piece->rows.count);
    attni_mpi_partial result = sum;
    if (!piece->counts_sinks) {
        result = attni_mpi_partial_shape(call, piece->rows.count, call->score_dtype);
        result.output.data = state->block + state->ring->part_at;
        result.lse.data = state->block + state->ring->part_lse_at;
    }
    ATTNI_MPI_TRY(attni_mpi_part_run(call, piece, &state->at_hand.key, &state->at_hand.value,
                                     &state->ring->scratch, state->block, &result.output,
                                     &result.lse));
    if (!piece->counts_sinks) {
        ATTNI_MPI_TRY(attni_mpi_partial_merge(call, &result, &sum));
    }
    attni_mpi_exchange_progress(&state->exchange);
    return ATTN_OK;
}

/* Attends in every step what the step before brought. *status: of the rank's own work; the returned
 * one: of MPI. */
static attn_status turn(ring_state *state, attn_status *status) {
    const attni_mpi_call *const call = state->call;
    const attni_mpi_link *const link = call->link;
    state->at_hand = (attni_mpi_travelling){call->key, call->value, 0};
    for (int64_t step = 0; step < state->ring->num_steps; ++step) {
        const int rank = attni_mpi_rank_before(link, link->group.rank, step);
        const bool is_last = step + 1 == state->ring->num_steps;
        char *const received = state->block + state->ring->blocks_at[(step + 1) % 2];
        const attni_mpi_travelling next =
            attni_mpi_travelling_keys(call, attni_mpi_rank_before(link, rank, 1), received);
        const attni_mpi_passing passing = {.what = ATTNI_MPI_PASSED_KEYS,
                                           .distance = 1,
                                           .sent = state->block + state->ring->blocks_at[step % 2],
                                           .sent_bytes =
                                               attni_mpi_travelling_keys(call, rank, NULL).bytes,
                                           .received = received,
                                           .received_bytes = next.bytes};
        if (!is_last) {
            ATTNI_MPI_TRY(attni_mpi_exchange_start(link, &passing, &state->exchange));
        }
        if (*status == ATTN_OK) {
            *status = attni_mpi_visit_pieces(call, rank, attend_piece, state);
        }
        if (!is_last) {
            ATTNI_MPI_TRY(attni_mpi_exchange_finish(&state->exchange));
        }
        state->at_hand = next;
    }
    return ATTN_OK;
}

attn_status attni_mpi_ring_run(const attni_mpi_call *call, const attni_mpi_ring *ring, char *block,
                               attni_mpi_partial *stored) {
    const int64_t rows = call->link->lengths[call->link->group.rank][ATTNI_MPI_QUERY_ROWS];
    ring_state state = {.call = call,
                        .ring = ring,
                        .block = block,
                        .sum = attni_mpi_partial_shape(call, rows, call->score_dtype),
                        .exchange = attni_mpi_exchange_none()};
    state.sum.output.data = block + ring->sum_at;
    state.sum.lse.data = block + ring->sum_lse_at;
    *stored = attni_mpi_partial_shape(call, rows, call->output.dtype);
    stored->output.data = block + ring->part_at;
    stored->lse.data = block + ring->part_lse_at;
    if (ring->num_steps > 1) {
        const attni_mpi_travelling own =
            attni_mpi_travelling_keys(call, call->link->group.rank, block + ring->blocks_at[0]);
        attni_mpi_copy(&call->key, &own.key);
        attni_mpi_copy(&call->value, &own.value);
    }
    attn_status status = ATTN_OK;
    ATTNI_MPI_TRY(turn(&state, &status));
    return status == ATTN_OK ? attni_mpi_partial_store(call, &state.sum, stored) : status;
}
