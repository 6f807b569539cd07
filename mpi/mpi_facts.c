/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_facts.c: lists a call's facts, always as many and in the same order.
 */
#include "mpi_facts.h"

#include <string.h>

#include "mpi_agreement.h"

typedef struct fact_list {
    attni_mpi_fact facts[ATTNI_MPI_MOST_FACTS];
    int count;
} fact_list;

static void add(fact_list *list, const char *name, int64_t value) {
    list->facts[list->count++] = (attni_mpi_fact){.name = name, .value = value};
}

static void add_real(fact_list *list, const char *name, double value) {
    attni_mpi_fact *fact = &list->facts[list->count++];
    *fact = (attni_mpi_fact){.name = name, .is_real = 1};
    memcpy(&fact->value, &value, sizeof value);
}

/* Names of a tensor's dtype, rank and axes, the last one first. */
typedef struct tensor_names {
    const char *dtype, *rank, *axes[ATTN_MAX_RANK];
} tensor_names;

#define NAMES_OF(tensor)                                                                   \
    {                                                                                      \
        tensor " dtype", tensor " rank", {                                                 \
            tensor " axis -1", tensor " axis -2", tensor " axis -3", tensor " axis -4",    \
                tensor " axis -5", tensor " axis -6", tensor " axis -7", tensor " axis -8" \
        }                                                                                  \
    }

static void add_tensor(fact_list *list, const tensor_names *names, const attn_tensor *tensor) {
    add(list, names->dtype, tensor->dtype);
    add(list, names->rank, tensor->rank);
    for (int32_t i = 0; i < ATTN_MAX_RANK; ++i) {
        /* Rows are a rank's own. */
        const bool is_shared = i != 1 && i < tensor->rank;
        add(list, names->axes[i], is_shared ? tensor->shape[tensor->rank - 1 - i] : 0);
    }
}

static void add_dropout(fact_list *list, const attn_dropout *given, const attn_dropout *dropout) {
    add(list, "whether there is a dropout", given != NULL);
    add_real(list, "dropout.probability", dropout->probability);
    add(list, "dropout.seed", (int64_t)dropout->seed);
    add(list, "dropout.offset", (int64_t)dropout->offset);
    add(list, "dropout.batch", dropout->batch);
    add(list, "dropout.head", dropout->head);
    add(list, "dropout.row", dropout->row);
    add(list, "dropout.column", dropout->column);
}

static void add_options(fact_list *list, const attni_mpi_call *call) {
    const attn_sdpa_params *const params = &call->params;
    add(list, "scheme", call->scheme);
    add(list, "placement", call->placement);
    add_real(list, "latency_seconds", call->costs.latency_seconds);
    add_real(list, "bytes_per_second", call->costs.bytes_per_second);
    add_real(list, "products_per_second", call->costs.products_per_second);
    add(list, "set", params->set);
    add(list, "is_causal", params->is_causal);
    add_real(list, "scale", params->scale);
    add_real(list, "softcap", params->softcap);
    add(list, "window_left", params->window_left);
    add(list, "window_right", params->window_right);
    add(list, "enable_gqa", params->enable_gqa);
    add(list, "align_end", params->align_end);
    add(list, "normalizer", params->normalizer);
    add(list, "mask_kind", params->mask_kind);
    add(list, "whether there is a mask", params->mask != NULL);
    add(list, "whether there is a bias", params->bias != NULL);
    add(list, "whether there is a query_offset", params->query_offset != NULL);
    add(list, "whether there are key_lengths", params->key_lengths != NULL);
    add(list, "whether there are alibi_slopes", params->alibi_slopes != NULL);
    add(list, "whether there are sinks", params->sinks != NULL);
    add(list, "whether there is an lse", params->lse != NULL);
    add(list, "whether there is a mask_start", params->mask_start != NULL);
    add(list, "whether there is a position_bias", params->position_bias != NULL);
    add(list, "whether there is a block_mask", params->block_mask != NULL);
    add(list, "block_rows", params->block_rows);
    add(list, "block_columns", params->block_columns);
    add_dropout(list, params->dropout, &call->dropout);
}

/* Which pass it is, and what it has to give. */
static void add_gradients(fact_list *list, const attni_mpi_call *call) {
    const attn_sdpa_gradients *const gradients = &call->gradients;
    const attn_tensor *const output = gradients->output;
    add(list, "whether it is the backward pass", call->is_backward);
    add(list, "gradients.accumulate", gradients->accumulate);
    add(list, "gradients.output dtype", output != NULL ? output->dtype : ATTN_DTYPE_INVALID);
    add(list, "whether there is a gradients.lse", gradients->lse != NULL);
    add(list, "whether there is a gradients.query", gradients->query != NULL);
    add(list, "whether there is a gradients.key", gradients->key != NULL);
    add(list, "whether there is a gradients.value", gradients->value != NULL);
    add(list, "whether there is a gradients.mask", gradients->mask != NULL);
    add(list, "whether there is a gradients.bias", gradients->bias != NULL);
    add(list, "whether there is a gradients.position_bias", gradients->position_bias != NULL);
    add(list, "whether there is a gradients.alibi_slopes", gradients->alibi_slopes != NULL);
    add(list, "whether there is a gradients.sinks", gradients->sinks != NULL);
}

/* Whether the mask has an axis of rows that is not 1. */
static bool has_rows(const attn_tensor *mask) {
    return mask != NULL && mask->rank >= 2 && mask->rank <= ATTN_MAX_RANK &&
           mask->shape[mask->rank - 2] != 1;
}

/* Whether it has an axis of rows that is 1: of one row, or for all rows. */
static bool has_one_row(const attn_tensor *mask) {
    return mask != NULL && mask->rank >= 2 && mask->rank <= ATTN_MAX_RANK && !has_rows(mask);
}

static attn_status share_lengths(attni_mpi_link *link, const attni_mpi_call *call) {
    int64_t mine[ATTNI_MPI_NUM_LENGTHS];
    mine[ATTNI_MPI_QUERY_ROWS] = call->query.shape[call->query.rank - 2];
    mine[ATTNI_MPI_KEY_ROWS] = call->key.shape[call->key.rank - 2];
    return attni_mpi_result("MPI_Allgather",
                            MPI_Allgather(mine, ATTNI_MPI_NUM_LENGTHS, MPI_INT64_T, link->lengths,
                                          ATTNI_MPI_NUM_LENGTHS, MPI_INT64_T, link->group.comm));
}

static double given_or(double given, double otherwise) {
    return given > 0 ? given : otherwise;
}

attn_status attni_mpi_share_call(attn_status status, int32_t num_threads, attni_mpi_link *link,
                                 attni_mpi_call *call) {
    static const tensor_names query = NAMES_OF("query"), key = NAMES_OF("key"),
                              value = NAMES_OF("value");
    fact_list list = {.count = 0};
    add_tensor(&list, &query, &call->query);
    add_tensor(&list, &key, &call->key);
    add_tensor(&list, &value, &call->value);
    add(&list, "output dtype", call->output.dtype);
    add_options(&list, call);
    add_gradients(&list, call);
    const attn_tensor *const mask = call->params.mask, *const bias = call->params.bias;
    const attn_tensor *const blocks = call->params.block_mask;
    int64_t least[] = {num_threads,
                       !has_rows(mask),
                       !has_rows(bias),
                       !has_rows(blocks),
                       !(has_one_row(mask) || has_one_row(bias)),
                       !has_one_row(blocks)};
    ATTNI_MPI_TRY(attni_mpi_agree_on(&link->group, status, list.facts, list.count, least, 6));
    call->link = link;
    call->mask_has_rows = least[1] == 0;
    call->bias_has_rows = least[2] == 0;
    call->blocks_have_rows = least[3] == 0;
    call->masks_have_one_row = least[4] == 0;
    call->blocks_have_one_row = least[5] == 0;
    call->costs.latency_seconds = given_or(call->costs.latency_seconds, 2e-6);
    call->costs.bytes_per_second = given_or(call->costs.bytes_per_second, 1e10);
    call->costs.products_per_second =
        given_or(call->costs.products_per_second, 2e10 * (double)least[0]);
    return share_lengths(link, call);
}

attn_status attni_mpi_share_numbers(attn_status status, const attni_mpi_call *call,
                                    const int64_t shared_counts[ATTNI_MPI_NUM_GRADIENTS]) {
    static const char *const names[ATTNI_MPI_NUM_GRADIENTS] = {
        "elements of gradients.query",        "elements of gradients.key",
        "elements of gradients.value",        "elements of gradients.mask",
        "elements of gradients.bias",         "elements of gradients.position_bias",
        "elements of gradients.alibi_slopes", "elements of gradients.sinks"};
    fact_list list = {.count = 0};
    add(&list, "the numbers in query_offset", call->offsets.digest);
    add(&list, "the least query_offset", call->offsets.lowest);
    add(&list, "the greatest query_offset", call->offsets.highest);
    add(&list, "the numbers in key_lengths", call->lengths.digest);
    add(&list, "the least of key_lengths", call->lengths.lowest);
    add(&list, "the greatest of key_lengths", call->lengths.highest);
    add(&list, "the numbers in mask_start", call->starts.digest);
    for (int i = 0; i < ATTNI_MPI_NUM_GRADIENTS; ++i) {
        add(&list, names[i], shared_counts[i]);
    }
    return attni_mpi_agree_on(&call->link->group, status, list.facts, list.count, NULL, 0);
}
