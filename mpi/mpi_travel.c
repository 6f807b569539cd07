/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_travel.c: blocks of keys by rank, and the pieces of rows that meet them.
 */
#include "mpi_travel.h"

static attni_mpi_travelling place_block(const attn_tensor *key, const attn_tensor *value,
                                        char *data) {
    attni_mpi_travelling block = {*key, *value, 0};
    const int64_t key_bytes = key->rank > 0 ? attni_mpi_tensor_bytes(key) : 0;
    const int64_t value_bytes = value->rank > 0 ? attni_mpi_tensor_bytes(value) : 0;
    if (__builtin_add_overflow(key_bytes, value_bytes, &block.bytes)) {
        block.bytes = INT64_MAX;
    }
    block.key.data = data;
    block.value.data = data != NULL ? data + key_bytes : NULL;
    return block;
}

/* A contiguous tensor of this type with the rows of the rank's keys. */
static attn_tensor keys_shape(const attni_mpi_call *call, const attn_tensor *own, int32_t dtype,
                              int rank) {
    attn_tensor shape = *own;
    shape.shape[shape.rank - 2] = call->link->lengths[rank][ATTNI_MPI_KEY_ROWS];
    return attni_mpi_contiguous(&shape, dtype, NULL);
}

attni_mpi_travelling attni_mpi_travelling_keys(const attni_mpi_call *call, int rank, char *data) {
    const attn_tensor key = keys_shape(call, &call->key, call->key.dtype, rank);
    const attn_tensor value = keys_shape(call, &call->value, call->value.dtype, rank);
    return place_block(&key, &value, data);
}

attni_mpi_travelling attni_mpi_travelling_sums(const attni_mpi_call *call, int rank, char *data) {
    attn_tensor key = {.rank = 0}, value = {.rank = 0};
    if (call->gradients.key != NULL) {
        key = keys_shape(call, &call->key, call->score_dtype, rank);
    }
    if (call->gradients.value != NULL) {
        value = keys_shape(call, &call->value, call->score_dtype, rank);
    }
    return place_block(&key, &value, data);
}

int attni_mpi_rank_before(const attni_mpi_link *link, int rank, int64_t steps) {
    return (int)((rank - steps % link->group.num_ranks + link->group.num_ranks) %
                 link->group.num_ranks);
}

/* Whether any rank sees some of the keys that come to it in a step. */
static bool step_is_needed(const attni_mpi_call *call, int64_t step) {
    const attni_mpi_link *const link = call->link;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        const attni_mpi_place *const rows = &link->query_places[rank];
        const attni_mpi_place *const keys =
            &link->key_places[attni_mpi_rank_before(link, rank, step)];
        for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
            if (attni_mpi_part_is_visible(call, &rows->stretches[i / ATTNI_MPI_STRETCHES],
                                          &keys->stretches[i % ATTNI_MPI_STRETCHES])) {
                return true;
            }
        }
    }
    return false;
}

int64_t attni_mpi_count_steps(const attni_mpi_call *call) {
    int64_t num_steps = call->link->group.num_ranks;
    while (num_steps > 1 && !step_is_needed(call, num_steps - 1)) {
        --num_steps;
    }
    return num_steps;
}

/* ---- pieces ---- */

/* Between two looks after messages: multiply-adds, of two products a pair, some milliseconds of a
 * thread; and rows, which pieces have many enough of. Forward, the core library reads keys once for
 * each block of some hundred rows of the heads that share them, and cuts a call that has few rows
 * into smaller blocks: a piece has rows of heads for eight whole ones. With a sixteenth of that a
 * rank computed a fifth longer. A backward pass packs all keys and adds to all of their sums, which
 * took 3 % of the time of 1,024 rows of heads that share them. */
typedef struct piece_size {
    double products;
    int64_t fewest_rows;
} piece_size;

enum { ROWS_AT_ONCE = 128, FORWARD_ROWS = 1 << 12, BACKWARD_ROWS = 1 << 11 };

/* Heads of all batches, which have rows of their own, or keys. */
static int64_t count_heads(const attn_tensor *tensor) {
    int64_t heads = 1;
    for (int32_t axis = 0; axis + 2 < tensor->rank; ++axis) {
        heads *= tensor->shape[axis];
    }
    return heads > 0 ? heads : 1;
}

static piece_size size_of_piece(const attni_mpi_call *call) {
    const int64_t heads = count_heads(&call->output);
    const int64_t sharing = (heads - 1) / count_heads(&call->key) + 1;
    const int64_t rows =
        call->is_backward ? (BACKWARD_ROWS - 1) / sharing + 1 : (FORWARD_ROWS - 1) / heads + 1;
    return (piece_size){call->is_backward ? 1 << 30 : 1 << 28,
                        ((rows - 1) / ROWS_AT_ONCE + 1) * ROWS_AT_ONCE};
}

/* A piece begins where a block of the block mask does. */
static int64_t round_to_blocks(const attni_mpi_call *call, int64_t rows, int64_t most_rows) {
    const int64_t size = call->blocks_have_rows ? call->params.block_rows : 1;
    const int64_t blocks = rows / size + (rows % size != 0);
    return blocks <= most_rows / size ? blocks * size : most_rows;
}

/* Of as many pieces as have these rows, no piece is much smaller. */
static int64_t even_rows(int64_t total, int64_t rows) {
    const int64_t pieces = total > rows ? total / rows : 1;
    return ((total - 1) / pieces / ROWS_AT_ONCE + 1) * ROWS_AT_ONCE;
}

/* How many rows of a part are computed at a time. By shapes alone, so that bits are the same from
 * run to run; all of them where nothing travels. */
static int64_t rows_of_piece(const attni_mpi_call *call, const attni_mpi_part *part) {
    const double products = (double)part->keys.count *
                            (double)call->query.shape[call->query.rank - 1] * 2 *
                            (double)count_heads(&call->output);
    const piece_size size = size_of_piece(call);
    if (call->link->group.num_ranks == 1 || products * (double)part->rows.count <= size.products) {
        return part->rows.count;
    }
    const int64_t rows = (int64_t)(size.products / products);
    return round_to_blocks(
        call, even_rows(part->rows.count, rows > size.fewest_rows ? rows : size.fewest_rows),
        part->rows.count);
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

/* The scratch memory that pieces of a part need: whole ones, and the last. */
static attn_status plan_part(const attni_mpi_call *call, const attni_mpi_part *part,
                             const attni_mpi_travelling *at_hand, attni_mpi_part_plan_fn plan,
                             attni_mpi_part_scratch *scratch) {
    const int64_t most_rows = rows_of_piece(call, part);
    const attni_mpi_part first = piece_of(part, 0, most_rows);
    const attni_mpi_part last =
        piece_of(part, (part->rows.count - 1) / most_rows * most_rows, most_rows);
    ATTNI_MPI_TRY(plan(call, &first, &at_hand->key, &at_hand->value, scratch));
    return last.rows.count == first.rows.count
               ? ATTN_OK
               : plan(call, &last, &at_hand->key, &at_hand->value, scratch);
}

static attni_mpi_part part_of(const attni_mpi_call *call, int rank, int which) {
    const attni_mpi_link *const link = call->link;
    const int which_keys = which % ATTNI_MPI_STRETCHES;
    return (attni_mpi_part){
        .rows = link->query_places[link->group.rank].stretches[which / ATTNI_MPI_STRETCHES],
        .keys = link->key_places[rank].stretches[which_keys],
        .counts_sinks = rank == link->group.rank && which_keys == 0};
}

/* The same over the keys of one rank. */
static attn_status plan_rank(const attni_mpi_call *call, int rank,
                             const attni_mpi_travelling *at_hand, attni_mpi_part_plan_fn plan,
                             attni_mpi_part_scratch *scratch) {
    for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
        attni_mpi_part part = part_of(call, rank, i);
        part.counts_sinks = true;
        if (part.rows.count > 0) {
            ATTNI_MPI_TRY(plan_part(call, &part, at_hand, plan, scratch));
        }
    }
    return ATTN_OK;
}

attn_status attni_mpi_plan_pieces(const attni_mpi_call *call, attni_mpi_part_plan_fn plan,
                                  attni_mpi_part_scratch *scratch) {
    const attni_mpi_link *const link = call->link;
    const attni_mpi_travelling own = {call->key, call->value, 0};
    ATTNI_MPI_TRY(plan_rank(call, link->group.rank, &own, plan, scratch));
    for (int64_t step = 1; step < link->group.num_ranks; ++step) {
        const int rank = attni_mpi_rank_before(link, link->group.rank, step);
        const attni_mpi_travelling block = attni_mpi_travelling_keys(call, rank, NULL);
        const int64_t rows = link->lengths[rank][ATTNI_MPI_KEY_ROWS];
        const int next = attni_mpi_rank_before(link, rank, -1);
        /* Neighbours mostly have as many keys, and what is planned does not depend on which. */
        if (step == 1 || rows != link->lengths[next][ATTNI_MPI_KEY_ROWS]) {
            ATTNI_MPI_TRY(plan_rank(call, rank, &block, plan, scratch));
        }
    }
    return ATTN_OK;
}

attn_status attni_mpi_visit_pieces(const attni_mpi_call *call, int rank, attni_mpi_piece_fn compute,
                                   void *state) {
    for (int i = 0; i < ATTNI_MPI_STRETCHES * ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_part part = part_of(call, rank, i);
        const int64_t most_rows = rows_of_piece(call, &part);
        for (int64_t at = 0; at < part.rows.count; at += most_rows) {
            const attni_mpi_part piece = piece_of(&part, at, most_rows);
            if (piece.counts_sinks || attni_mpi_part_is_visible(call, &piece.rows, &piece.keys)) {
                ATTNI_MPI_TRY(compute(state, &piece));
            }
        }
    }
    return ATTN_OK;
}
