/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_deal.c: packs rows of heads, sends them all-to-all and unpacks them.
 */
#include "mpi_deal.h"

#include "mpi_copy.h"
#include "mpi_exchange.h"

attni_mpi_dealt *attni_mpi_deal_add(const attni_mpi_call *call, attni_mpi_deal *deal,
                                    const attn_tensor *own, bool has_key_rows, int32_t row_axis) {
    attni_mpi_dealt *const dealt = &deal->tensors[deal->count++];
    attn_tensor whole = attni_mpi_cut_heads(call, own, row_axis - 1, call->link->group.rank);
    whole.shape[whole.rank + row_axis] = has_key_rows ? call->num_keys : call->num_rows;
    *dealt = (attni_mpi_dealt){.own = *own,
                               .whole = attni_mpi_contiguous(&whole, own->dtype, NULL),
                               .has_key_rows = has_key_rows,
                               .row_axis = row_axis};
    return dealt;
}

void attni_mpi_deal_layout(const attni_mpi_call *call, attni_mpi_layout *layout,
                           attni_mpi_deal *deal) {
    for (int i = 0; i < deal->count && attni_mpi_has_heads(call, call->link->group.rank); ++i) {
        deal->tensors[i].whole_at = attni_mpi_layout_add_tensor(layout, &deal->tensors[i].whole);
    }
}

void attni_mpi_deal_place(attni_mpi_deal *deal, char *block) {
    for (int i = 0; i < deal->count; ++i) {
        deal->tensors[i].whole.data = block + deal->tensors[i].whole_at;
    }
}

/* A message's tensors, and where they lie in it. */
typedef struct packed {
    attn_tensor tensors[ATTNI_MPI_MOST_DEALT];
    int count;
    int64_t bytes; /* 0, and no tensor, for a rank without heads */
} packed;

/* Between the rank of these rows and that of these heads, either way. */
static packed message_of(const attni_mpi_call *call, const attni_mpi_deal *deal, int heads_owner,
                         int rows_owner, char *data) {
    const int64_t *const lengths = call->link->lengths[rows_owner];
    packed message = {.count = 0};
    for (int i = 0; i < deal->count && attni_mpi_has_heads(call, heads_owner); ++i) {
        const attni_mpi_dealt *const dealt = &deal->tensors[i];
        attn_tensor shape =
            attni_mpi_cut_heads(call, &dealt->own, dealt->row_axis - 1, heads_owner);
        shape.shape[shape.rank + dealt->row_axis] =
            lengths[dealt->has_key_rows ? ATTNI_MPI_KEY_ROWS : ATTNI_MPI_QUERY_ROWS];
        attn_tensor *const tensor = &message.tensors[message.count++];
        *tensor =
            attni_mpi_contiguous(&shape, shape.dtype, data != NULL ? data + message.bytes : NULL);
        if (__builtin_add_overflow(message.bytes, attni_mpi_tensor_bytes(tensor), &message.bytes)) {
            message.bytes = INT64_MAX;
        }
    }
    return message;
}

/* The message between this rank, as the one of the rows or of the heads, and another. */
static packed message_with(const attni_mpi_call *call, const attni_mpi_deal *deal, bool has_rows,
                           int rank, char *data) {
    const int own = call->link->group.rank;
    return has_rows ? message_of(call, deal, rank, own, data)
                    : message_of(call, deal, own, rank, data);
}

/*
 * Bytes of the messages between this rank and all. units: (2, num_ranks) counts of units, and where
 * they begin, or NULL. others: bytes of the messages to or from others.
 */
static int64_t count_messages(const attni_mpi_call *call, const attni_mpi_deal *deal, bool has_rows,
                              int *units, int64_t *others) {
    const attni_mpi_group *const group = &call->link->group;
    int64_t bytes = 0;
    *others = 0;
    for (int rank = 0; rank < group->num_ranks; ++rank) {
        const packed message = message_with(call, deal, has_rows, rank, NULL);
        if (units != NULL) {
            units[rank] = (int)(message.bytes / ATTNI_MPI_UNIT_BYTES);
            units[group->num_ranks + rank] = (int)(bytes / ATTNI_MPI_UNIT_BYTES);
        }
        if (__builtin_add_overflow(bytes, message.bytes, &bytes)) {
            return INT64_MAX;
        }
        *others += rank != group->rank ? message.bytes : 0;
    }
    return bytes;
}

static int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

attn_status attni_mpi_dealing_plan(const attni_mpi_call *call, const attni_mpi_deal *there,
                                   const attni_mpi_deal *back, attni_mpi_layout *layout,
                                   attni_mpi_dealing *dealing) {
    int64_t there_others, back_others, ignored;
    int units;
    const int64_t sent = greater(count_messages(call, there, true, NULL, &there_others),
                                 count_messages(call, back, false, NULL, &back_others));
    const int64_t received = greater(count_messages(call, there, false, NULL, &ignored),
                                     count_messages(call, back, true, NULL, &ignored));
    *dealing = (attni_mpi_dealing){.bytes_sent = there_others + back_others};
    ATTNI_MPI_TRY(attni_mpi_units(sent, &units));
    ATTNI_MPI_TRY(attni_mpi_units(received, &units));
    dealing->sent_at = attni_mpi_layout_add(layout, sent, 1);
    dealing->received_at = attni_mpi_layout_add(layout, received, 1);
    dealing->counts_at =
        attni_mpi_layout_add(layout, 4 * (int64_t)call->link->group.num_ranks, sizeof(int));
    return ATTN_OK;
}

static attn_status exchange(const attni_mpi_call *call, const attni_mpi_dealing *dealing,
                            const attni_mpi_deal *deal, bool sends_rows, char *block) {
    const attni_mpi_link *const link = call->link;
    const ptrdiff_t num_ranks = link->group.num_ranks;
    int *const sent = (int *)(block + dealing->counts_at), *const received = sent + 2 * num_ranks;
    int64_t ignored;
    count_messages(call, deal, sends_rows, sent, &ignored);
    count_messages(call, deal, !sends_rows, received, &ignored);
    return attni_mpi_result("MPI_Alltoallv",
                            MPI_Alltoallv(block + dealing->sent_at, sent, sent + num_ranks,
                                          link->unit, block + dealing->received_at, received,
                                          received + num_ranks, link->unit, link->group.comm));
}

/* What becomes of the elements of one view and those of another. */
typedef void (*transfer_fn)(const attn_tensor *from, const attn_tensor *to);

/* The rank's own rows, of the heads of another, to a message or from it. */
static void transfer_own(const attni_mpi_call *call, const attni_mpi_deal *deal, bool to_message,
                         transfer_fn transfer, char *data) {
    for (int rank = 0; rank < call->link->group.num_ranks; ++rank) {
        const packed message = message_with(call, deal, true, rank, data);
        for (int i = 0; i < message.count; ++i) {
            const attni_mpi_dealt *const dealt = &deal->tensors[i];
            const attn_tensor part =
                attni_mpi_cut_heads(call, &dealt->own, dealt->row_axis - 1, rank);
            transfer(to_message ? &part : &message.tensors[i],
                     to_message ? &message.tensors[i] : &part);
        }
        data += message.bytes;
    }
}

/* Between rows of a rank, side by side in a message, and their stretches of the whole. */
static void transfer_rows(const attni_mpi_call *call, const attni_mpi_dealt *dealt, int rank,
                          const attn_tensor *rows, bool to_message) {
    const attni_mpi_place *const place =
        dealt->has_key_rows ? &call->link->key_places[rank] : &call->link->query_places[rank];
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_stretch *const stretch = &place->stretches[i];
        const attn_tensor a =
            attni_mpi_slice(rows, dealt->row_axis, stretch->local, stretch->count);
        const attn_tensor b =
            attni_mpi_slice(&dealt->whole, dealt->row_axis, stretch->first, stretch->count);
        attni_mpi_copy(to_message ? &b : &a, to_message ? &a : &b);
    }
}

/* All rows of the rank's heads, to messages or from them. */
static void transfer_wholes(const attni_mpi_call *call, const attni_mpi_deal *deal, bool to_message,
                            char *data) {
    for (int rank = 0; rank < call->link->group.num_ranks; ++rank) {
        const packed message = message_with(call, deal, false, rank, data);
        for (int i = 0; i < message.count; ++i) {
            transfer_rows(call, &deal->tensors[i], rank, &message.tensors[i], to_message);
        }
        data += message.bytes;
    }
}

attn_status attni_mpi_deal_there(const attni_mpi_call *call, const attni_mpi_dealing *dealing,
                                 const attni_mpi_deal *deal, char *block) {
    transfer_own(call, deal, true, attni_mpi_copy, block + dealing->sent_at);
    ATTNI_MPI_TRY(exchange(call, dealing, deal, true, block));
    transfer_wholes(call, deal, false, block + dealing->received_at);
    return ATTN_OK;
}

attn_status attni_mpi_deal_back(const attni_mpi_call *call, const attni_mpi_dealing *dealing,
                                const attni_mpi_deal *deal, bool adds, char *block) {
    transfer_wholes(call, deal, true, block + dealing->sent_at);
    ATTNI_MPI_TRY(exchange(call, dealing, deal, false, block));
    transfer_own(call, deal, false, adds ? attni_mpi_add : attni_mpi_copy,
                 block + dealing->received_at);
    return ATTN_OK;
}
