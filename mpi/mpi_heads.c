/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads.c: rows of all heads against all rows of some heads, and back. A message has the rows of
 * one rank for the heads of another, query, key and value behind each other; on the way back output
 * and lse.
 */
#include "mpi_heads.h"

#include "mpi_copy.h"
#include "mpi_exchange.h"

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

static int64_t first_unit(const attni_mpi_call *call, int64_t num_units, int rank) {
    return num_units * rank / call->link->group.num_ranks;
}

int64_t attni_mpi_heads_most_units(const attni_mpi_call *call) {
    const int64_t num_units = attni_mpi_heads_units(call);
    return (num_units + call->link->group.num_ranks - 1) / call->link->group.num_ranks;
}

/* The heads of a tensor with so many that a rank gets. */
static attni_mpi_head_range range_of(const attni_mpi_call *call, int64_t num_heads, int rank) {
    const int64_t num_units = attni_mpi_heads_units(call);
    const int64_t first = first_unit(call, num_units, rank);
    const int64_t end = first_unit(call, num_units, rank + 1);
    if (num_heads == 1 || end == first) {
        return (attni_mpi_head_range){0, end > first};
    }
    const int64_t heads_of_unit = num_heads / num_units;
    return (attni_mpi_head_range){first * heads_of_unit, (end - first) * heads_of_unit};
}

/* The rank's heads along an axis, counted from the end, that has a position for each head or one for
 * all. A tensor without the axis is for all. */
static attn_tensor cut_heads(const attni_mpi_call *call, const attn_tensor *tensor, int32_t axis,
                             int rank) {
    if (tensor->rank < -axis || tensor->shape[tensor->rank + axis] == 1) {
        return *tensor;
    }
    const attni_mpi_head_range range = range_of(call, tensor->shape[tensor->rank + axis], rank);
    return attni_mpi_slice(tensor, axis, range.first, range.count);
}

static bool has_heads(const attni_mpi_call *call, int rank) {
    return range_of(call, 1, rank).count > 0;
}

/* A message's tensors, and where they lie in it. */
typedef struct packed {
    attn_tensor tensors[3];
    int count;
    int64_t bytes; /* 0, and no tensor, for a rank without heads */
} packed;

static void append(packed *message, const attn_tensor *shape, char *data) {
    attn_tensor *const tensor = &message->tensors[message->count++];
    *tensor =
        attni_mpi_contiguous(shape, shape->dtype, data != NULL ? data + message->bytes : NULL);
    if (__builtin_add_overflow(message->bytes, attni_mpi_tensor_bytes(tensor), &message->bytes)) {
        message->bytes = INT64_MAX;
    }
}

/* What is sent of the rows of one rank to the owner of heads. */
static packed inputs_of(const attni_mpi_call *call, int heads_owner, int rows_owner, char *data) {
    const attn_tensor *const inputs[] = {&call->query, &call->key, &call->value};
    const int64_t *const lengths = call->link->lengths[rows_owner];
    packed message = {.count = 0};
    for (int i = 0; i < 3 && has_heads(call, heads_owner); ++i) {
        attn_tensor shape = cut_heads(call, inputs[i], -3, heads_owner);
        shape.shape[shape.rank - 2] = lengths[i == 0 ? ATTNI_MPI_QUERY_ROWS : ATTNI_MPI_KEY_ROWS];
        append(&message, &shape, data);
    }
    return message;
}

/* All rows of the heads of one rank, or those of one rank, for whom they are. */
static attni_mpi_partial results_shape(const attni_mpi_call *call, int heads_owner, int64_t rows) {
    const attni_mpi_partial all = attni_mpi_partial_shape(call, rows, call->output.dtype);
    return (attni_mpi_partial){cut_heads(call, &all.output, -3, heads_owner),
                               cut_heads(call, &all.lse, -2, heads_owner)};
}

static packed results_of(const attni_mpi_call *call, int heads_owner, int rows_owner, char *data) {
    const attni_mpi_partial shape =
        results_shape(call, heads_owner, call->link->lengths[rows_owner][ATTNI_MPI_QUERY_ROWS]);
    packed message = {.count = 0};
    if (has_heads(call, heads_owner)) {
        append(&message, &shape.output, data);
        if (call->has_lse) {
            append(&message, &shape.lse, data);
        }
    }
    return message;
}

/* One way: what a message from the rank of some rows to that of some heads, or back, has. */
typedef packed (*message_fn)(const attni_mpi_call *call, int heads_owner, int rows_owner,
                             char *data);

/*
 * Bytes of all messages that this rank sends or gets. units: (2, num_ranks) counts of units, and where
 * they begin, or NULL. others: bytes of the messages to or from others.
 */
static int64_t count_messages(const attni_mpi_call *call, message_fn message_of, bool by_heads,
                              int *units, int64_t *others) {
    const attni_mpi_group *const group = &call->link->group;
    int64_t bytes = 0;
    *others = 0;
    for (int rank = 0; rank < group->num_ranks; ++rank) {
        const packed message = by_heads ? message_of(call, rank, group->rank, NULL)
                                        : message_of(call, group->rank, rank, NULL);
        if (units != NULL) {
            units[rank] = (int)(message.bytes / ATTNI_MPI_UNIT_BYTES);
            units[group->num_ranks + rank] = (int)(bytes / ATTNI_MPI_UNIT_BYTES);
        }
        *others += rank != group->rank ? message.bytes : 0;
        if (__builtin_add_overflow(bytes, message.bytes, &bytes)) {
            return INT64_MAX;
        }
    }
    return bytes;
}

static attn_status plan_messages(const attni_mpi_call *call, attni_mpi_layout *layout,
                                 attni_mpi_heads *heads) {
    int64_t sent_others, results_others, ignored;
    int units;
    const int64_t forward = count_messages(call, inputs_of, true, NULL, &sent_others);
    const int64_t forward_in = count_messages(call, inputs_of, false, NULL, &ignored);
    const int64_t back = count_messages(call, results_of, false, NULL, &results_others);
    const int64_t back_in = count_messages(call, results_of, true, NULL, &ignored);
    const int64_t sent = forward > back ? forward : back;
    const int64_t received = forward_in > back_in ? forward_in : back_in;
    heads->bytes_sent = sent_others + results_others;
    ATTNI_MPI_TRY(attni_mpi_units(sent, &units));
    ATTNI_MPI_TRY(attni_mpi_units(received, &units));
    heads->sent_at = attni_mpi_layout_add(layout, sent, 1);
    heads->received_at = attni_mpi_layout_add(layout, received, 1);
    heads->counts_at =
        attni_mpi_layout_add(layout, 4 * (int64_t)call->link->group.num_ranks, sizeof(int));
    return ATTN_OK;
}

/* The call of the rank's own heads. */
typedef struct heads_call {
    attn_tensor query, key, value, mask, bias, slopes, sinks, position_bias;
    attni_mpi_partial result;
    attn_sdpa_params params;
} heads_call;

static const attn_tensor *cut_option(const attni_mpi_call *call, const attn_tensor *option,
                                     int32_t axis, attn_tensor *view) {
    if (option == NULL) {
        return NULL;
    }
    *view = cut_heads(call, option, axis, call->link->group.rank);
    return view;
}

static attn_tensor whole_of(const attni_mpi_call *call, const attn_tensor *tensor, int64_t rows,
                            char *data) {
    attn_tensor shape = cut_heads(call, tensor, -3, call->link->group.rank);
    shape.shape[shape.rank - 2] = rows;
    return attni_mpi_contiguous(&shape, shape.dtype, data);
}

/* Views without data: only shapes are looked at. */
static void describe_call(const attni_mpi_call *call, heads_call *own) {
    const attn_sdpa_params *const params = &call->params;
    own->query = whole_of(call, &call->query, call->num_rows, NULL);
    own->key = whole_of(call, &call->key, call->num_keys, NULL);
    own->value = whole_of(call, &call->value, call->num_keys, NULL);
    const attni_mpi_partial shape = results_shape(call, call->link->group.rank, call->num_rows);
    own->result = (attni_mpi_partial){attni_mpi_contiguous(&shape.output, shape.output.dtype, NULL),
                                      attni_mpi_contiguous(&shape.lse, shape.lse.dtype, NULL)};
    own->params = *params;
    own->params.mask = cut_option(call, params->mask, -3, &own->mask);
    own->params.bias = cut_option(call, params->bias, -3, &own->bias);
    own->params.alibi_slopes = cut_option(call, params->alibi_slopes, -1, &own->slopes);
    own->params.sinks = cut_option(call, params->sinks, -1, &own->sinks);
    own->params.position_bias = cut_option(call, params->position_bias, -2, &own->position_bias);
    own->params.lse = call->has_lse ? &own->result.lse : NULL;
}

/* The same views where the data is. */
static void place_call(const attni_mpi_heads *heads, char *block, heads_call *own) {
    own->query.data = block + heads->query_at;
    own->key.data = block + heads->key_at;
    own->value.data = block + heads->value_at;
    own->result.output.data = block + heads->output_at;
    own->result.lse.data = block + heads->lse_at;
}

static attn_status plan_call(const attni_mpi_call *call, attni_mpi_layout *layout,
                             attni_mpi_heads *heads) {
    heads_call own;
    size_t bytes = 0;
    if (!has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    describe_call(call, &own);
    ATTNI_MPI_TRY(attn_sdpa_workspace_bytes(call->context, &own.query, &own.key, &own.value,
                                            &own.params, &own.result.output, &bytes));
    heads->workspace_bytes = (int64_t)bytes;
    heads->query_at = attni_mpi_layout_add_tensor(layout, &own.query);
    heads->key_at = attni_mpi_layout_add_tensor(layout, &own.key);
    heads->value_at = attni_mpi_layout_add_tensor(layout, &own.value);
    heads->output_at = attni_mpi_layout_add_tensor(layout, &own.result.output);
    heads->lse_at = attni_mpi_layout_add_tensor(layout, &own.result.lse);
    /* One byte at least: no workspace would have the core library allocate. */
    heads->workspace_at = attni_mpi_layout_add(layout, heads->workspace_bytes + 1, 1);
    return ATTN_OK;
}

attn_status attni_mpi_heads_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                 attni_mpi_heads *heads) {
    const int64_t rows = call->link->lengths[call->link->group.rank][ATTNI_MPI_QUERY_ROWS];
    const attni_mpi_partial stored = attni_mpi_partial_shape(call, rows, call->output.dtype);
    *heads = (attni_mpi_heads){.num_units = attni_mpi_heads_units(call)};
    ATTNI_MPI_TRY(plan_messages(call, layout, heads));
    ATTNI_MPI_TRY(plan_call(call, layout, heads));
    heads->stored_at = attni_mpi_layout_add_tensor(layout, &stored.output);
    heads->stored_lse_at = attni_mpi_layout_add_tensor(layout, &stored.lse);
    return ATTN_OK;
}

static attn_status exchange(const attni_mpi_call *call, const attni_mpi_heads *heads, char *block,
                            message_fn message_of, bool sends_by_heads) {
    const attni_mpi_link *const link = call->link;
    const ptrdiff_t num_ranks = link->group.num_ranks;
    int *const sent = (int *)(block + heads->counts_at), *const received = sent + 2 * num_ranks;
    int64_t ignored;
    count_messages(call, message_of, sends_by_heads, sent, &ignored);
    count_messages(call, message_of, !sends_by_heads, received, &ignored);
    return attni_mpi_result("MPI_Alltoallv",
                            MPI_Alltoallv(block + heads->sent_at, sent, sent + num_ranks,
                                          link->unit, block + heads->received_at, received,
                                          received + num_ranks, link->unit, link->group.comm));
}

static void pack_inputs(const attni_mpi_call *call, const attni_mpi_heads *heads, char *block) {
    const attn_tensor *const inputs[] = {&call->query, &call->key, &call->value};
    char *data = block + heads->sent_at;
    for (int rank = 0; rank < call->link->group.num_ranks; ++rank) {
        const packed message = inputs_of(call, rank, call->link->group.rank, data);
        for (int i = 0; i < message.count; ++i) {
            const attn_tensor part = cut_heads(call, inputs[i], -3, rank);
            attni_mpi_copy(&part, &message.tensors[i]);
        }
        data += message.bytes;
    }
}

/* Between a rank's rows, side by side in `own`, and their stretches of `whole`. */
static void copy_rows(const attni_mpi_place *place, const attn_tensor *own,
                      const attn_tensor *whole, int32_t axis, bool to_whole) {
    for (int i = 0; i < ATTNI_MPI_STRETCHES; ++i) {
        const attni_mpi_stretch *const stretch = &place->stretches[i];
        const attn_tensor a = attni_mpi_slice(own, axis, stretch->local, stretch->count);
        const attn_tensor b = attni_mpi_slice(whole, axis, stretch->first, stretch->count);
        attni_mpi_copy(to_whole ? &a : &b, to_whole ? &b : &a);
    }
}

static void unpack_inputs(const attni_mpi_call *call, const attni_mpi_heads *heads, char *block,
                          const heads_call *own) {
    const attni_mpi_link *const link = call->link;
    char *data = block + heads->received_at;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        const packed message = inputs_of(call, link->group.rank, rank, data);
        copy_rows(&link->query_places[rank], &message.tensors[0], &own->query, -2, true);
        copy_rows(&link->key_places[rank], &message.tensors[1], &own->key, -2, true);
        copy_rows(&link->key_places[rank], &message.tensors[2], &own->value, -2, true);
        data += message.bytes;
    }
}

static void pack_results(const attni_mpi_call *call, const attni_mpi_heads *heads, char *block,
                         const heads_call *own) {
    const attni_mpi_link *const link = call->link;
    char *data = block + heads->sent_at;
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        const packed message = results_of(call, link->group.rank, rank, data);
        const attni_mpi_place *const place = &link->query_places[rank];
        copy_rows(place, &message.tensors[0], &own->result.output, -2, false);
        if (call->has_lse) {
            copy_rows(place, &message.tensors[1], &own->result.lse, -1, false);
        }
        data += message.bytes;
    }
}

static void unpack_results(const attni_mpi_call *call, const attni_mpi_heads *heads, char *block,
                           const attni_mpi_partial *stored) {
    char *data = block + heads->received_at;
    for (int rank = 0; rank < call->link->group.num_ranks; ++rank) {
        const packed message = results_of(call, rank, call->link->group.rank, data);
        if (message.count > 0) {
            const attn_tensor output = cut_heads(call, &stored->output, -3, rank);
            attni_mpi_copy(&message.tensors[0], &output);
        }
        if (message.count > 1) {
            const attn_tensor lse = cut_heads(call, &stored->lse, -2, rank);
            attni_mpi_copy(&message.tensors[1], &lse);
        }
        data += message.bytes;
    }
}

static attn_status attend_own_heads(const attni_mpi_call *call, const attni_mpi_heads *heads,
                                    char *block) {
    heads_call own;
    if (!has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    describe_call(call, &own);
    place_call(heads, block, &own);
    unpack_inputs(call, heads, block, &own);
    const attn_status status =
        attn_sdpa(call->context, &own.query, &own.key, &own.value, &own.params, &own.result.output,
                  block + heads->workspace_at, (size_t)heads->workspace_bytes);
    if (status == ATTN_OK) {
        pack_results(call, heads, block, &own);
    }
    return status;
}

attn_status attni_mpi_heads_run(const attni_mpi_call *call, const attni_mpi_heads *heads,
                                char *block, attni_mpi_partial *stored) {
    const int64_t rows = call->link->lengths[call->link->group.rank][ATTNI_MPI_QUERY_ROWS];
    *stored = attni_mpi_partial_shape(call, rows, call->output.dtype);
    stored->output.data = block + heads->stored_at;
    stored->lse.data = block + heads->stored_lse_at;
    pack_inputs(call, heads, block);
    ATTNI_MPI_TRY(exchange(call, heads, block, inputs_of, true));
    const attn_status status = attend_own_heads(call, heads, block);
    /* What a rank that has failed sends is of no use, but it is waited for. */
    const attn_status sent = exchange(call, heads, block, results_of, false);
    if (sent != ATTN_OK) {
        return sent;
    }
    unpack_results(call, heads, block, stored);
    return status;
}
