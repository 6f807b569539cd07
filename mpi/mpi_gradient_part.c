/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_gradient_part.c: a part as a backward call of the core library.
 */
#include "mpi_gradient_part.h"

#include <string.h>

#include "mpi_copy.h"

/* The arguments of a part's call. */
typedef struct gradient_call {
    attni_mpi_part_call forward;
    attn_tensor output, lse;
    attn_tensor output_gradient, lse_gradient; /* given */
    attn_tensor views[ATTNI_MPI_NUM_GRADIENTS], parts[ATTNI_MPI_NUM_GRADIENTS];
    attn_sdpa_gradients gradients;
} gradient_call;

static void describe_results(const attni_mpi_call *call, const attni_mpi_part *part,
                             gradient_call *described) {
    const attn_sdpa_gradients *const given = &call->gradients;
    const int64_t first = part->rows.local, count = part->rows.count;
    described->output = attni_mpi_slice(&call->output, -2, first, count);
    described->output_gradient = attni_mpi_slice(given->output, -2, first, count);
    described->gradients = (attn_sdpa_gradients){.struct_size = sizeof described->gradients,
                                                 .accumulate = 1,
                                                 .output = &described->output_gradient};
    if (call->has_lse) {
        described->lse = attni_mpi_slice(&call->lse, -1, first, count);
        described->forward.params.lse = &described->lse;
    }
    if (given->lse != NULL) {
        described->lse_gradient = attni_mpi_slice(given->lse, -1, first, count);
        described->gradients.lse = &described->lse_gradient;
    }
}

/* The part's rows or keys of a sum; NULL of NULL. */
static const attn_tensor *cut_sum(const attn_tensor *sum, int64_t first, int64_t count,
                                  attn_tensor *part) {
    if (sum == NULL) {
        return NULL;
    }
    *part = attni_mpi_slice(sum, -2, first, count);
    return part;
}

static void describe_sums(const attni_mpi_call *call, const attni_mpi_part *part,
                          const attni_mpi_keys_at_hand *keys, const attni_mpi_sums *sums,
                          char *block, gradient_call *described) {
    attn_sdpa_gradients *const gradients = &described->gradients;
    attn_tensor *const views = described->views, *const parts = described->parts;
    gradients->query = cut_sum(
        attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_QUERY, &views[ATTNI_MPI_OF_QUERY]),
        part->rows.local, part->rows.count, &parts[ATTNI_MPI_OF_QUERY]);
    gradients->key =
        cut_sum(keys->key_sum, part->keys.local, part->keys.count, &parts[ATTNI_MPI_OF_KEY]);
    gradients->value =
        cut_sum(keys->value_sum, part->keys.local, part->keys.count, &parts[ATTNI_MPI_OF_VALUE]);
    gradients->mask = attni_mpi_part_mask(
        attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_MASK, &views[ATTNI_MPI_OF_MASK]), part,
        !call->has_starts, &parts[ATTNI_MPI_OF_MASK]);
    gradients->bias = attni_mpi_part_mask(
        attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_BIAS, &views[ATTNI_MPI_OF_BIAS]), part,
        true, &parts[ATTNI_MPI_OF_BIAS]);
    gradients->position_bias = attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_POSITION_BIAS,
                                                  &views[ATTNI_MPI_OF_POSITION_BIAS]);
    gradients->alibi_slopes =
        attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_SLOPES, &views[ATTNI_MPI_OF_SLOPES]);
}

static void describe(const attni_mpi_call *call, const attni_mpi_part *part,
                     const attni_mpi_keys_at_hand *keys, const attni_mpi_sums *sums,
                     const attni_mpi_part_scratch *scratch, char *block, gradient_call *described) {
    attni_mpi_part_describe(call, part, &keys->key, &keys->value, scratch, block,
                            &described->forward);
    describe_results(call, part, described);
    describe_sums(call, part, keys, sums, block, described);
}

static attn_status plan(const attni_mpi_call *call, const gradient_call *described,
                        attni_mpi_part_scratch *scratch) {
    const attni_mpi_part_call *const forward = &described->forward;
    size_t bytes;
    ATTNI_MPI_TRY(attn_sdpa_backward_workspace_bytes(
        call->context, &forward->query, &forward->key, &forward->value, &forward->params,
        &described->output, &described->gradients, &bytes));
    attni_mpi_part_need(scratch, bytes);
    return ATTN_OK;
}

static attn_status run(const attni_mpi_call *call, const gradient_call *described,
                       const attni_mpi_part_scratch *scratch, char *block) {
    const attni_mpi_part_call *const forward = &described->forward;
    return attn_sdpa_backward(call->context, &forward->query, &forward->key, &forward->value,
                              &forward->params, &described->output, &described->gradients,
                              block + scratch->workspace_at, (size_t)scratch->workspace_bytes);
}

attn_status attni_mpi_gradient_part_plan(const attni_mpi_call *call, const attni_mpi_part *part,
                                         const attn_tensor *key, const attn_tensor *value,
                                         attni_mpi_part_scratch *scratch) {
    const attni_mpi_sums nowhere = {0};
    const attn_tensor key_sum = attni_mpi_contiguous(key, call->score_dtype, NULL);
    const attn_tensor value_sum = attni_mpi_contiguous(value, call->score_dtype, NULL);
    const attni_mpi_keys_at_hand keys = {*key, *value,
                                         call->gradients.key != NULL ? &key_sum : NULL,
                                         call->gradients.value != NULL ? &value_sum : NULL};
    gradient_call described;
    describe(call, part, &keys, &nowhere, scratch, NULL, &described);
    return plan(call, &described, scratch);
}

attn_status attni_mpi_gradient_part_run(const attni_mpi_call *call, const attni_mpi_part *part,
                                        const attni_mpi_keys_at_hand *keys,
                                        const attni_mpi_sums *sums,
                                        const attni_mpi_part_scratch *scratch, char *block) {
    gradient_call described;
    describe(call, part, keys, sums, scratch, block, &described);
    return run(call, &described, scratch, block);
}

/* ---- sinks ---- */

/* As many rows as there are keys on all ranks, all of them one zero. */
static attn_tensor zeroes(const attni_mpi_call *call, const attn_tensor *like, void *zero) {
    attn_tensor view = *like;
    view.data = zero;
    view.shape[view.rank - 2] = call->num_keys;
    memset(view.strides, 0, sizeof view.strides);
    return view;
}

/* One stretch of the rank's rows over all positions of keys. */
static void describe_sinks(const attni_mpi_call *call, int which, const attni_mpi_sums *sums,
                           const attni_mpi_part_scratch *scratch, char *block, void *zero,
                           gradient_call *described) {
    const attni_mpi_part part = {
        .rows = call->link->query_places[call->link->group.rank].stretches[which],
        .keys = {.count = call->num_keys}};
    const attn_tensor key = zeroes(call, &call->key, zero);
    const attn_tensor value = zeroes(call, &call->value, zero);
    attni_mpi_part_describe(call, &part, &key, &value, scratch, block, &described->forward);
    describe_results(call, &part, described);
    described->forward.params.sinks = call->params.sinks;
    described->forward.params.block_mask =
        NULL; /* its rows need not begin where those of blocks do */
    described->forward.params.block_rows = 0;
    described->forward.params.block_columns = 0;
    described->gradients.sinks = attni_mpi_sum_view(call, sums, block, ATTNI_MPI_OF_SINKS,
                                                    &described->views[ATTNI_MPI_OF_SINKS]);
}

attn_status attni_mpi_sinks_part_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                      attni_mpi_part_scratch *scratch,
                                      attni_mpi_sinks_part *sinks) {
    const attni_mpi_sums nowhere = {0};
    *sinks = (attni_mpi_sinks_part){.zero_at = attni_mpi_layout_add(layout, 1, sizeof(double))};
    for (int i = 0; i < ATTNI_MPI_STRETCHES && call->gradients.sinks != NULL; ++i) {
        gradient_call described;
        describe_sinks(call, i, &nowhere, scratch, NULL, NULL, &described);
        ATTNI_MPI_TRY(plan(call, &described, scratch));
    }
    return ATTN_OK;
}

attn_status attni_mpi_sinks_part_run(const attni_mpi_call *call, const attni_mpi_sinks_part *sinks,
                                     const attni_mpi_sums *sums,
                                     const attni_mpi_part_scratch *scratch, char *block) {
    char *const zero = block + sinks->zero_at;
    memset(zero, 0, sizeof(double));
    for (int i = 0; i < ATTNI_MPI_STRETCHES && call->gradients.sinks != NULL; ++i) {
        gradient_call described;
        describe_sinks(call, i, sums, scratch, block, zero, &described);
        ATTNI_MPI_TRY(run(call, &described, scratch, block));
    }
    return ATTN_OK;
}
