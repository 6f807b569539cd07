/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_ring_backward.c: in step s a rank computes what its rows add to the gradients of the keys of
 * the rank s before it. Meanwhile these keys travel on, those of the next step come in, and so do
 * the sums that the ranks in between have made; what was computed joins them at the step's end. So
 * the sum of a rank's keys has a term of that rank first, then of the next, and so on.
 */
#include "mpi_ring_backward.h"

#include <string.h>

#include "mpi_copy.h"
#include "mpi_exchange.h"
#include "mpi_travel.h"

/* The largest of all ranks' blocks; 0 for one rank, to which nothing travels. */
static void find_most_bytes(const attni_mpi_call *call, int64_t *keys, int64_t *sums) {
    const int num_ranks = call->link->group.num_ranks;
    *keys = 0;
    *sums = 0;
    for (int rank = 0; rank < num_ranks && num_ranks > 1; ++rank) {
        const int64_t key_bytes = attni_mpi_travelling_keys(call, rank, NULL).bytes;
        const int64_t sum_bytes = attni_mpi_travelling_sums(call, rank, NULL).bytes;
        *keys = key_bytes > *keys ? key_bytes : *keys;
        *sums = sum_bytes > *sums ? sum_bytes : *sums;
    }
}

/* Keys are sent on but in the last step, and so are sums, which then go home. */
static int64_t count_bytes(const attni_mpi_call *call, int64_t num_steps) {
    const attni_mpi_link *const link = call->link;
    int64_t bytes = 0;
    for (int64_t step = 0; step < num_steps && num_steps > 1; ++step) {
        const int rank = attni_mpi_rank_before(link, link->group.rank, step);
        const bool is_last = step + 1 == num_steps;
        bytes += is_last ? 0 : attni_mpi_travelling_keys(call, rank, NULL).bytes;
        bytes += attni_mpi_travelling_sums(call, rank, NULL).bytes;
    }
    return bytes;
}

attn_status attni_mpi_ring_backward_plan(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                         attni_mpi_layout *layout, attni_mpi_ring_backward *ring) {
    int64_t key_bytes, sum_bytes;
    int units;
    *ring = (attni_mpi_ring_backward){.num_steps = attni_mpi_count_steps(call)};
    find_most_bytes(call, &key_bytes, &sum_bytes);
    ATTNI_MPI_TRY(attni_mpi_units(key_bytes, &units));
    ATTNI_MPI_TRY(attni_mpi_units(sum_bytes, &units));
    ring->bytes_sent = count_bytes(call, ring->num_steps);
    ATTNI_MPI_TRY(attni_mpi_plan_pieces(call, attni_mpi_gradient_part_plan, &ring->scratch));
    ATTNI_MPI_TRY(attni_mpi_sinks_part_plan(call, layout, &ring->scratch, &ring->sinks));
    for (int i = 0; i < 2; ++i) {
        ring->blocks_at[i] = attni_mpi_layout_add(layout, key_bytes, 1);
        ring->sums_at[i] = attni_mpi_layout_add(layout, sum_bytes, 1);
    }
    ring->part_at = attni_mpi_layout_add(layout, sum_bytes, 1);
    ring->home_at =
        sums->of[call->gradients.key != NULL ? ATTNI_MPI_OF_KEY : ATTNI_MPI_OF_VALUE].at;
    attni_mpi_part_layout(call, layout, &ring->scratch);
    return ATTN_OK;
}

/* What a run has at hand. */
typedef struct ring_state {
    const attni_mpi_call *call;
    const attni_mpi_ring_backward *ring;
    const attni_mpi_sums *sums;
    char *block;
    attni_mpi_travelling keys;     /* at hand */
    attni_mpi_travelling key_sums; /* where their gradients are summed */
    attni_mpi_exchange with_keys, with_sums;
} ring_state;

static attn_status compute_piece(void *data, const attni_mpi_part *piece) {
    ring_state *const state = data;
    const attni_mpi_call *const call = state->call;
    const attni_mpi_keys_at_hand keys = {state->keys.key, state->keys.value,
                                         call->gradients.key != NULL ? &state->key_sums.key : NULL,
                                         call->gradients.value != NULL ? &state->key_sums.value
                                                                       : NULL};
    ATTNI_MPI_TRY(attni_mpi_gradient_part_run(call, piece, &keys, state->sums,
                                              &state->ring->scratch, state->block));
    attni_mpi_exchange_progress(&state->with_keys);
    attni_mpi_exchange_progress(&state->with_sums);
    return ATTN_OK;
}

/* Sums of the keys of step s: the rank's own at home, others where they come in. */
static char *sums_of_step(const ring_state *state, int64_t step) {
    return state->block + (step == 0 ? state->ring->home_at : state->ring->sums_at[step % 2]);
}

/* The keys of step s on to the next rank, those of step s + 1 in. */
static attn_status pass_keys(ring_state *state, int64_t step) {
    const attni_mpi_link *const link = state->call->link;
    const int rank = attni_mpi_rank_before(link, link->group.rank, step);
    const int next = attni_mpi_rank_before(link, rank, 1);
    const attni_mpi_passing passing = {
        .what = ATTNI_MPI_PASSED_KEYS,
        .distance = 1,
        .sent = state->block + state->ring->blocks_at[step % 2],
        .sent_bytes = attni_mpi_travelling_keys(state->call, rank, NULL).bytes,
        .received = state->block + state->ring->blocks_at[(step + 1) % 2],
        .received_bytes = attni_mpi_travelling_keys(state->call, next, NULL).bytes};
    return attni_mpi_exchange_start(link, &passing, &state->with_keys);
}

/* The sums of the keys of step s - 1 on to the next rank, those of step s in. */
static attn_status pass_sums(ring_state *state, int64_t step) {
    const attni_mpi_link *const link = state->call->link;
    const int rank = attni_mpi_rank_before(link, link->group.rank, step);
    const int before = attni_mpi_rank_before(link, rank, -1);
    const attni_mpi_passing passing = {
        .what = ATTNI_MPI_PASSED_SUMS,
        .distance = 1,
        .sent = sums_of_step(state, step - 1),
        .sent_bytes = attni_mpi_travelling_sums(state->call, before, NULL).bytes,
        .received = sums_of_step(state, step),
        .received_bytes = attni_mpi_travelling_sums(state->call, rank, NULL).bytes};
    return attni_mpi_exchange_start(link, &passing, &state->with_sums);
}

/* The sums of the last step's keys to the rank whose keys they are, the rank's own in. */
static attn_status bring_home(ring_state *state) {
    const attni_mpi_link *const link = state->call->link;
    const int64_t last = state->ring->num_steps - 1;
    const int rank = attni_mpi_rank_before(link, link->group.rank, last);
    const attni_mpi_passing passing = {
        .what = ATTNI_MPI_PASSED_SUMS,
        .distance = -last,
        .sent = sums_of_step(state, last),
        .sent_bytes = attni_mpi_travelling_sums(state->call, rank, NULL).bytes,
        .received = state->block + state->ring->home_at,
        .received_bytes = attni_mpi_travelling_sums(state->call, link->group.rank, NULL).bytes};
    ATTNI_MPI_TRY(attni_mpi_exchange_start(link, &passing, &state->with_sums));
    return attni_mpi_exchange_finish(&state->with_sums);
}

static bool sums_travel(const attni_mpi_call *call) {
    return call->gradients.key != NULL || call->gradients.value != NULL;
}

/* Of both exchanges, whatever becomes of one. */
static attn_status finish_passing(ring_state *state) {
    const attn_status sums = attni_mpi_exchange_finish(&state->with_sums);
    const attn_status keys = attni_mpi_exchange_finish(&state->with_keys);
    return sums != ATTN_OK ? sums : keys;
}

static attn_status start_passing(ring_state *state, int64_t step) {
    state->with_keys = attni_mpi_exchange_none();
    state->with_sums = attni_mpi_exchange_none();
    if (step + 1 < state->ring->num_steps) {
        ATTNI_MPI_TRY(pass_keys(state, step));
    }
    const attn_status status =
        step > 0 && sums_travel(state->call) ? pass_sums(state, step) : ATTN_OK;
    if (status != ATTN_OK) {
        /* All ranks have begun with the keys, so these arrive. */
        (void)attni_mpi_exchange_finish(&state->with_keys);
    }
    return status;
}

static attn_status compute(ring_state *state, int64_t step) {
    const attni_mpi_call *const call = state->call;
    const int rank = attni_mpi_rank_before(call->link, call->link->group.rank, step);
    char *const part = step == 0 ? sums_of_step(state, 0) : state->block + state->ring->part_at;
    state->keys = (attni_mpi_travelling){call->key, call->value, 0};
    if (step > 0) {
        state->keys =
            attni_mpi_travelling_keys(call, rank, state->block + state->ring->blocks_at[step % 2]);
    }
    state->key_sums = attni_mpi_travelling_sums(call, rank, part);
    memset(part, 0, (size_t)state->key_sums.bytes);
    return attni_mpi_visit_pieces(call, rank, compute_piece, state);
}

static attn_status turn(ring_state *state, attn_status *status) {
    for (int64_t step = 0; step < state->ring->num_steps; ++step) {
        ATTNI_MPI_TRY(start_passing(state, step));
        if (*status == ATTN_OK) {
            *status = compute(state, step);
        }
        ATTNI_MPI_TRY(finish_passing(state));
        if (*status == ATTN_OK && step > 0) {
            attni_mpi_add_flat(state->block + state->ring->part_at, state->call->score_dtype,
                               state->key_sums.bytes, sums_of_step(state, step));
        }
    }
    return state->ring->num_steps > 1 && sums_travel(state->call) ? bring_home(state) : ATTN_OK;
}

attn_status attni_mpi_ring_backward_run(const attni_mpi_call *call,
                                        const attni_mpi_ring_backward *ring,
                                        const attni_mpi_sums *sums, char *block,
                                        attn_status *status) {
    ring_state state = {.call = call, .ring = ring, .sums = sums, .block = block};
    if (ring->num_steps > 1) {
        const attni_mpi_travelling own =
            attni_mpi_travelling_keys(call, call->link->group.rank, block + ring->blocks_at[0]);
        attni_mpi_copy(&call->key, &own.key);
        attni_mpi_copy(&call->value, &own.value);
    }
    *status = attni_mpi_sinks_part_run(call, &ring->sinks, sums, &ring->scratch, block);
    return turn(&state, status);
}
