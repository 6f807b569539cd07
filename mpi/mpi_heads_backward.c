/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads_backward.c: one backward call of the core library for all rows of the rank's heads.
 */
#include "mpi_heads_backward.h"

#include "mpi_copy.h"

enum { OF_QUERY, OF_KEY, OF_VALUE, OF_OUTPUT, OF_OUTPUT_GRADIENT, OF_LSE, OF_LSE_GRADIENT };

static void list_inputs(const attni_mpi_call *call, attni_mpi_deal *there) {
    attni_mpi_deal_add(call, there, &call->query, false, -2);
    attni_mpi_deal_add(call, there, &call->key, true, -2);
    attni_mpi_deal_add(call, there, &call->value, true, -2);
    attni_mpi_deal_add(call, there, &call->output, false, -2);
    attni_mpi_deal_add(call, there, call->gradients.output, false, -2);
    if (call->is_softmax) {
        attni_mpi_deal_add(call, there, &call->lse, false, -1);
    }
    if (call->gradients.lse != NULL) {
        attni_mpi_deal_add(call, there, call->gradients.lse, false, -1);
    }
}

/* block NULL: the sums of the rank's rows have no data. */
static void list_sums(const attni_mpi_call *call, const attni_mpi_sums *sums, char *block,
                      attni_mpi_deal *back) {
    for (int i = ATTNI_MPI_OF_QUERY; i <= ATTNI_MPI_OF_VALUE; ++i) {
        attn_tensor view;
        if (attni_mpi_sum_view(call, sums, block, (enum attni_mpi_gradient)i, &view) != NULL) {
            attni_mpi_deal_add(call, back, &view, i != ATTNI_MPI_OF_QUERY, -2);
        }
    }
}

/* The call of the rank's own heads. */
typedef struct heads_call {
    attni_mpi_head_options options;
    attn_tensor views[ATTNI_MPI_NUM_GRADIENTS];
    attn_sdpa_gradients gradients;
} heads_call;

/* The rank's heads of an option's sum; NULL if it is not wanted. */
static const attn_tensor *cut_sum(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                  char *block, enum attni_mpi_gradient which, int32_t axis,
                                  heads_call *described) {
    attn_tensor sum;
    if (attni_mpi_sum_view(call, sums, block, which, &sum) == NULL) {
        return NULL;
    }
    described->views[which] = attni_mpi_cut_heads(call, &sum, axis, call->link->group.rank);
    return &described->views[which];
}

static void describe(const attni_mpi_call *call, const attni_mpi_heads_backward *heads,
                     const attni_mpi_sums *sums, char *block, heads_call *described) {
    const attni_mpi_dealt *const in = heads->there.tensors;
    const attni_mpi_dealt *wanted = heads->back.tensors;
    attn_sdpa_gradients *const gradients = &described->gradients;
    attni_mpi_describe_head_options(call, &described->options);
    described->options.params.lse = call->is_softmax ? &in[OF_LSE].whole : NULL;
    *gradients = (attn_sdpa_gradients){
        .struct_size = sizeof *gradients,
        .output = &in[OF_OUTPUT_GRADIENT].whole,
        .lse = call->gradients.lse != NULL ? &in[OF_LSE_GRADIENT].whole : NULL,
        .mask = cut_sum(call, sums, block, ATTNI_MPI_OF_MASK, -3, described),
        .bias = cut_sum(call, sums, block, ATTNI_MPI_OF_BIAS, -3, described),
        .position_bias = cut_sum(call, sums, block, ATTNI_MPI_OF_POSITION_BIAS, -2, described),
        .alibi_slopes = cut_sum(call, sums, block, ATTNI_MPI_OF_SLOPES, -1, described),
        .sinks = cut_sum(call, sums, block, ATTNI_MPI_OF_SINKS, -1, described)};
    gradients->query = call->gradients.query != NULL ? &wanted++->whole : NULL;
    gradients->key = call->gradients.key != NULL ? &wanted++->whole : NULL;
    gradients->value = call->gradients.value != NULL ? &wanted->whole : NULL;
}

static attn_status plan_call(const attni_mpi_call *call, const attni_mpi_sums *sums,
                             attni_mpi_layout *layout, attni_mpi_heads_backward *heads) {
    heads_call described;
    const attni_mpi_dealt *const in = heads->there.tensors;
    size_t bytes = 0;
    if (!attni_mpi_has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    describe(call, heads, sums, NULL, &described);
    ATTNI_MPI_TRY(attn_sdpa_backward_workspace_bytes(
        call->context, &in[OF_QUERY].whole, &in[OF_KEY].whole, &in[OF_VALUE].whole,
        &described.options.params, &in[OF_OUTPUT].whole, &described.gradients, &bytes));
    heads->workspace_bytes = (int64_t)bytes;
    /* One byte at least: no workspace would have the core library allocate. */
    heads->workspace_at = attni_mpi_layout_add(layout, heads->workspace_bytes + 1, 1);
    return ATTN_OK;
}

attn_status attni_mpi_heads_backward_plan(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                          attni_mpi_layout *layout,
                                          attni_mpi_heads_backward *heads) {
    *heads = (attni_mpi_heads_backward){.workspace_bytes = 0};
    list_inputs(call, &heads->there);
    list_sums(call, sums, NULL, &heads->back);
    ATTNI_MPI_TRY(
        attni_mpi_dealing_plan(call, &heads->there, &heads->back, layout, &heads->dealing));
    attni_mpi_deal_layout(call, layout, &heads->there);
    attni_mpi_deal_layout(call, layout, &heads->back);
    return plan_call(call, sums, layout, heads);
}

static attn_status compute_own_heads(const attni_mpi_call *call,
                                     const attni_mpi_heads_backward *heads,
                                     const attni_mpi_sums *sums, char *block) {
    heads_call described;
    const attni_mpi_dealt *const in = heads->there.tensors;
    if (!attni_mpi_has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    describe(call, heads, sums, block, &described);
    return attn_sdpa_backward(call->context, &in[OF_QUERY].whole, &in[OF_KEY].whole,
                              &in[OF_VALUE].whole, &described.options.params, &in[OF_OUTPUT].whole,
                              &described.gradients, block + heads->workspace_at,
                              (size_t)heads->workspace_bytes);
}

attn_status attni_mpi_heads_backward_run(const attni_mpi_call *call,
                                         attni_mpi_heads_backward *heads,
                                         const attni_mpi_sums *sums, char *block,
                                         attn_status *status) {
    attni_mpi_deal back = {.count = 0};
    list_sums(call, sums, block, &back);
    for (int i = 0; i < back.count; ++i) {
        heads->back.tensors[i].own = back.tensors[i].own;
    }
    attni_mpi_deal_place(&heads->there, block);
    attni_mpi_deal_place(&heads->back, block);
    *status = ATTN_OK;
    ATTNI_MPI_TRY(attni_mpi_deal_there(call, &heads->dealing, &heads->there, block));
    *status = compute_own_heads(call, heads, sums, block);
    return attni_mpi_deal_back(call, &heads->dealing, &heads->back, true, block);
}
