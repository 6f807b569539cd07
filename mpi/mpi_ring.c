/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_ring.c: in step s a rank attends the keys of the rank s before it, which it passes on at the
 * same time, while those of the next step come in.
 */
#include "mpi_ring.h"

#include "mpi_copy.h"
#include "mpi_exchange.h"

static int rank_before(const attni_mpi_link *link, int rank, int64_t steps) {
    return (int)((rank - steps % link->group.num_ranks + link->group.num_ranks) %
                 link->group.num_ranks);
}

/* A rank's keys and values as they travel: one tensor behind the other. */
typedef struct travelling {
    attn_tensor key, value;
    int64_t bytes;
} travelling;

static travelling block_of(const attni_mpi_call *call, int rank, char *data) {
    const int64_t rows = call->link->lengths[rank][ATTNI_MPI_KEY_ROWS];
    attn_tensor key = call->key, value = call->value;
    key.shape[key.rank - 2] = rows;
    value.shape[value.rank - 2] = rows;
    travelling block = {attni_mpi_contiguous(&key, key.dtype, data),
                        attni_mpi_contiguous(&value, value.dtype, NULL), 0};
    const int64_t key_bytes = attni_mpi_tensor_bytes(&block.key);
    const int64_t value_bytes = attni_mpi_tensor_bytes(&block.value);
    if (__builtin_add_overflow(key_bytes, value_bytes, &block.bytes)) {
        block.bytes = INT64_MAX;
    }
    block.value.data = data != NULL ? data + key_bytes : NULL;
    return block;
}

/* Whether any rank sees some of the keys that come to it in a step. */
static bool step_is_needed(const attni_mpi_call *call, int64_t step) {
    const attni_mpi_link *const link = call->link;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        const attni_mpi_place *const rows = &link->query_places[rank];
        const attni_mpi_place *const keys = &link->key_places[rank_before(link, rank, step)];
        for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
            if (attni_mpi_part_is_visible(call, &rows->stretches[i / ATTNI_MPI_STRETCHES],
                                          &keys->stretches[i % ATTNI_MPI_STRETCHES])) {
                return true;
            }
        }
    }
    return false;
}

static int64_t count_steps(const attni_mpi_call *call) {
    int64_t num_steps = call->link->group.num_ranks;
    while (num_steps > 1 && !step_is_needed(call, num_steps - 1)) {
        --num_steps;
    }
    return num_steps;
}

/* Multiply-adds between two looks after messages, some milliseconds of a thread, and the rows that
 * are worth a call of their own. */
static const double piece_products = 1 << 27;
enum { FEWEST_PIECE_ROWS = 64 };

/* How many rows of a part are attended at a time. By shapes alone, so that bits are the same from run
 * to run; all of them where nothing travels. */
static int64_t rows_of_piece(const attni_mpi_call *call, const attni_mpi_part *part) {
    double products = (double)part->keys.count * (double)call->query.shape[call->query.rank - 1] *
                      2 * (part->rows.count > 0);
    for (int32_t axis = 0; axis + 2 < call->output.rank; ++axis) {
        products *= (double)call->output.shape[axis];
    }
    if (call->link->group.num_ranks == 1 || products * (double)part->rows.count <= piece_products) {
        return part->rows.count;
    }
    const double rows = piece_products / products;
    return rows > FEWEST_PIECE_ROWS ? (int64_t)rows / FEWEST_PIECE_ROWS * FEWEST_PIECE_ROWS
                                    : FEWEST_PIECE_ROWS;
}

/* A part's rows from row `at` on, no more than one piece. */
static attni_mpi_part piece_of(const attni_mpi_part *part, int64_t at, int64_t most_rows) {
    attni_mpi_part piece = *part;
    const int64_t left = part->rows.count - at;
    piece.rows.first += at;
    piece.rows.local += at;
    piece.rows.count = left < most_rows ? left : most_rows;
    return piece;
}

/* The scratch memory that pieces need: whole ones, and the last. */
static attn_status plan_pieces(const attni_mpi_call *call, const attni_mpi_part *part,
                               const attn_tensor *key, const attn_tensor *value,
                               attni_mpi_part_scratch *scratch) {
    const int64_t most_rows = rows_of_piece(call, part);
    const attni_mpi_part first = piece_of(part, 0, most_rows);
    const attni_mpi_part last =
        piece_of(part, (part->rows.count - 1) / most_rows * most_rows, most_rows);
    ATTNI_MPI_TRY(attni_mpi_part_plan(call, &first, key, value, scratch));
    return last.rows.count == first.rows.count
               ? ATTN_OK
               : attni_mpi_part_plan(call, &last, key, value, scratch);
}

/* The scratch memory that the calling rank's rows need over the keys of one rank. */
static attn_status plan_parts(const attni_mpi_call *call, int rank, const attn_tensor *key,
                              const attn_tensor *value, attni_mpi_part_scratch *scratch) {
    const attni_mpi_place *const rows = &call->link->query_places[call->link->group.rank];
    const attni_mpi_place *const keys = &call->link->key_places[rank];
    for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = {.rows = rows->stretches[i / ATTNI_MPI_STRETCHES],
                                     .keys = keys->stretches[i % ATTNI_MPI_STRETCHES],
                                     .counts_sinks = true};
        if (part.rows.count > 0) {
            ATTNI_MPI_TRY(plan_pieces(call, &part, key, value, scratch));
        }
    }
    return ATTN_OK;
}

static attn_status plan_blocks(const attni_mpi_call *call, attni_mpi_layout *layout,
                               attni_mpi_ring *ring) {
    const attni_mpi_link *const link = call->link;
    int64_t most_bytes = 0;
    ATTNI_MPI_TRY(plan_parts(call, link->group.rank, &call->key, &call->value, &ring->scratch));
    for (int64_t step = 1; step < link->group.num_ranks; ++step) {
        const int rank = rank_before(link, link->group.rank, step);
        const travelling block = block_of(call, rank, NULL);
        const int64_t rows = link->lengths[rank][ATTNI_MPI_KEY_ROWS];
        /* Neighbours mostly have as many keys, and what is planned does not depend on which. */
        if (step == 1 || rows != link->lengths[rank_before(link, rank, -1)][ATTNI_MPI_KEY_ROWS]) {
            ATTNI_MPI_TRY(plan_parts(call, rank, &block.key, &block.value, &ring->scratch));
        }
        most_bytes = block.bytes > most_bytes ? block.bytes : most_bytes;
    }
    const int64_t own_bytes = block_of(call, link->group.rank, NULL).bytes;
    most_bytes = link->group.num_ranks > 1 && own_bytes > most_bytes ? own_bytes : most_bytes;
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
    *ring = (attni_mpi_ring){.num_steps = count_steps(call)};
    for (int64_t step = 0; step + 1 < ring->num_steps; ++step) {
        ring->bytes_sent += block_of(call, rank_before(link, link->group.rank, step), NULL).bytes;
    }
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
    attni_mpi_exchange exchange;
} ring_state;

/* A piece's result joins the sum of its rows; the first one is it. */
static attn_status attend_piece(const ring_state *state, const attni_mpi_part *piece,
                                const travelling *at_hand) {
    const attni_mpi_call *const call = state->call;
    const attni_mpi_partial sum =
        attni_mpi_partial_rows(&state->sum, piece->rows.local, piece->rows.count);
    attni_mpi_partial result = sum;
    if (!piece->counts_sinks) {
        result = attni_mpi_partial_shape(call, piece->rows.count, call->score_dtype);
        result.output.data = state->block + state->ring->part_at;
        result.lse.data = state->block + state->ring->part_lse_at;
    }
    ATTNI_MPI_TRY(attni_mpi_part_run(call, piece, &at_hand->key, &at_hand->value,
                                     &state->ring->scratch, state->block, &result.output,
                                     &result.lse));
    return piece->counts_sinks ? ATTN_OK : attni_mpi_partial_merge(call, &result, &sum);
}

/* Piece by piece, with a look after messages behind each. What no row sees is left out, but for the
 * first of the rank's own stretches, which begins the sum. */
static attn_status attend_part(ring_state *state, const attni_mpi_part *part,
                               const travelling *at_hand) {
    const int64_t most_rows = rows_of_piece(state->call, part);
    for (int64_t at = 0; at < part->rows.count; at += most_rows) {
        const attni_mpi_part piece = piece_of(part, at, most_rows);
        if (piece.counts_sinks ||
            attni_mpi_part_is_visible(state->call, &piece.rows, &piece.keys)) {
            ATTNI_MPI_TRY(attend_piece(state, &piece, at_hand));
            attni_mpi_exchange_progress(&state->exchange);
        }
    }
    return ATTN_OK;
}

/* The keys at hand, which are of `rank`. */
static attn_status attend(ring_state *state, int rank, const travelling *at_hand) {
    const attni_mpi_link *const link = state->call->link;
    for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
        const int which_keys = i % ATTNI_MPI_STRETCHES;
        const attni_mpi_part part = {
            .rows = link->query_places[link->group.rank].stretches[i / ATTNI_MPI_STRETCHES],
            .keys = link->key_places[rank].stretches[which_keys],
            .counts_sinks = rank == link->group.rank && which_keys == 0};
        ATTNI_MPI_TRY(attend_part(state, &part, at_hand));
    }
    return ATTN_OK;
}

/* Attends in every step what the step before brought. *status: of the rank's own work; the returned
 * one: of MPI. */
static attn_status turn(ring_state *state, attn_status *status) {
    const attni_mpi_call *const call = state->call;
    const attni_mpi_link *const link = call->link;
    travelling at_hand = {call->key, call->value, 0};
    for (int64_t step = 0; step < state->ring->num_steps; ++step) {
        const int rank = rank_before(link, link->group.rank, step);
        const bool is_last = step + 1 == state->ring->num_steps;
        char *const received = state->block + state->ring->blocks_at[(step + 1) % 2];
        const travelling next = block_of(call, rank_before(link, rank, 1), received);
        if (!is_last) {
            ATTNI_MPI_TRY(attni_mpi_exchange_start(
                link, state->block + state->ring->blocks_at[step % 2],
                (int)(block_of(call, rank, NULL).bytes / ATTNI_MPI_UNIT_BYTES), received,
                (int)(next.bytes / ATTNI_MPI_UNIT_BYTES), &state->exchange));
        }
        if (*status == ATTN_OK) {
            *status = attend(state, rank, &at_hand);
        }
        if (!is_last) {
            ATTNI_MPI_TRY(attni_mpi_exchange_finish(&state->exchange));
        }
        at_hand = next;
    }
    return ATTN_OK;
}

attn_status attni_mpi_ring_run(const attni_mpi_call *call, const attni_mpi_ring *ring, char *block,
                               attni_mpi_partial *stored) {
    const int64_t rows = call->link->lengths[call->link->group.rank][ATTNI_MPI_QUERY_ROWS];
    ring_state state = {call,
                        ring,
                        block,
                        attni_mpi_partial_shape(call, rows, call->score_dtype),
                        {{MPI_REQUEST_NULL, MPI_REQUEST_NULL}}};
    state.sum.output.data = block + ring->sum_at;
    state.sum.lse.data = block + ring->sum_lse_at;
    *stored = attni_mpi_partial_shape(call, rows, call->output.dtype);
    stored->output.data = block + ring->part_at;
    stored->lse.data = block + ring->part_lse_at;
    if (ring->num_steps > 1) {
        const travelling own = block_of(call, call->link->group.rank, block + ring->blocks_at[0]);
        attni_mpi_copy(&call->key, &own.key);
        attni_mpi_copy(&call->value, &own.value);
    }
    attn_status status = ATTN_OK;
    ATTNI_MPI_TRY(turn(&state, &status));
    return status == ATTN_OK ? attni_mpi_partial_store(call, &state.sum, stored) : status;
}
