/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_heads.c: one call of the core library for all rows of the rank's heads.
 */
#include "mpi_heads.h"

enum { OF_QUERY, OF_KEY, OF_VALUE };
enum { OF_OUTPUT, OF_LSE };

static attni_mpi_partial stored_shape(const attni_mpi_call *call) {
    const int64_t rows = call->link->lengths[call->link->group.rank][ATTNI_MPI_QUERY_ROWS];
    return attni_mpi_partial_shape(call, rows, call->output.dtype);
}

static attn_status plan_call(const attni_mpi_call *call, attni_mpi_layout *layout,
                             attni_mpi_heads *heads) {
    attni_mpi_head_options options;
    const attni_mpi_dealt *const in = heads->there.tensors, *const out = heads->back.tensors;
    size_t bytes = 0;
    if (!attni_mpi_has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    attni_mpi_describe_head_options(call, &options);
    options.params.lse = call->has_lse ? &out[OF_LSE].whole : NULL;
    ATTNI_MPI_TRY(attn_sdpa_workspace_bytes(call->context, &in[OF_QUERY].whole, &in[OF_KEY].whole,
                                            &in[OF_VALUE].whole, &options.params,
                                            &out[OF_OUTPUT].whole, &bytes));
    heads->workspace_bytes = (int64_t)bytes;
    /* One byte at least: no workspace would have the core library allocate. */
    heads->workspace_at = attni_mpi_layout_add(layout, heads->workspace_bytes + 1, 1);
    return ATTN_OK;
}

attn_status attni_mpi_heads_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                 attni_mpi_heads *heads) {
    const attni_mpi_partial stored = stored_shape(call);
    *heads = (attni_mpi_heads){.workspace_bytes = 0};
    attni_mpi_deal_add(call, &heads->there, &call->query, false, -2);
    attni_mpi_deal_add(call, &heads->there, &call->key, true, -2);
    attni_mpi_deal_add(call, &heads->there, &call->value, true, -2);
    attni_mpi_deal_add(call, &heads->back, &stored.output, false, -2);
    if (call->has_lse) {
        attni_mpi_deal_add(call, &heads->back, &stored.lse, false, -1);
    }
    ATTNI_MPI_TRY(
        attni_mpi_dealing_plan(call, &heads->there, &heads->back, layout, &heads->dealing));
    attni_mpi_deal_layout(call, layout, &heads->there);
    attni_mpi_deal_layout(call, layout, &heads->back);
    heads->stored_at = attni_mpi_layout_add_tensor(layout, &stored.output);
    heads->stored_lse_at = attni_mpi_layout_add_tensor(layout, &stored.lse);
    return plan_call(call, layout, heads);
}

static attn_status attend_own_heads(const attni_mpi_call *call, const attni_mpi_heads *heads,
                                    char *block) {
    attni_mpi_head_options options;
    const attni_mpi_dealt *const in = heads->there.tensors, *const out = heads->back.tensors;
    if (!attni_mpi_has_heads(call, call->link->group.rank)) {
        return ATTN_OK;
    }
    attni_mpi_describe_head_options(call, &options);
    options.params.lse = call->has_lse ? &out[OF_LSE].whole : NULL;
    return attn_sdpa(call->context, &in[OF_QUERY].whole, &in[OF_KEY].whole, &in[OF_VALUE].whole,
                     &options.params, &out[OF_OUTPUT].whole, block + heads->workspace_at,
                     (size_t)heads->workspace_bytes);
}

attn_status attni_mpi_heads_run(const attni_mpi_call *call, attni_mpi_heads *heads, char *block,
                                attni_mpi_partial *stored) {
    *stored = stored_shape(call);
    stored->output.data = block + heads->stored_at;
    stored->lse.data = block + heads->stored_lse_at;
    attni_mpi_deal_place(&heads->there, block);
    attni_mpi_deal_place(&heads->back, block);
    heads->back.tensors[OF_OUTPUT].own = stored->output;
    heads->back.tensors[OF_LSE].own = stored->lse;
    ATTNI_MPI_TRY(attni_mpi_deal_there(call, &heads->dealing, &heads->there, block));
    const attn_status status = attend_own_heads(call, heads, block);
    const attn_status sent = attni_mpi_deal_back(call, &heads->dealing, &heads->back, false, block);
    return sent != ATTN_OK ? sent : status;
}
