/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_check.c: the rules for the arguments of a forward call, in the order the header lists them.
 * Only here are PyTorch's layouts (sequence first, batch first, unbatched) known; what leaves this
 * file is (N, L, features).
 */
#include <string.h>

#include "base/checked_size.h"
#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "multihead/mha_layer.h"
#include "problem/kv_tensors.h"
#include "problem/sdpa_options.h"
#include "rotary/rope_check.h"
#include "tensor/element.h"

/* The axes of one of the layer's sequences in the caller's order. */
static int32_t sequence_axes(const attni_mha_problem *problem, attni_axis batch,
                             attni_axis sequence, attni_axis features, attni_axis *axes) {
    int32_t count = 0;
    if (problem->is_batched) {
        axes[count++] = problem->is_batch_major ? batch : sequence;
        axes[count++] = problem->is_batch_major ? sequence : batch;
    } else {
        axes[count++] = sequence;
    }
    axes[count++] = features;
    return count;
}

typedef attn_status (*dtype_check)(const char *name, const attn_tensor *tensor, int32_t dtype);

/* Checks a sequence tensor and views it as (N, sequence, features). */
static attn_status check_sequence(const char *name, const attn_tensor *tensor,
                                  attni_mha_problem *problem, attni_axis batch, attni_axis sequence,
                                  attni_axis features, dtype_check check_dtype, attn_tensor *view) {
    attni_axis axes[3];
    const int32_t count = sequence_axes(problem, batch, sequence, features, axes);
    ATTNI_TRY(attni_check_tensor(name, tensor, problem->data_rule));
    ATTNI_TRY(check_dtype(name, tensor, problem->layer->dtype));
    ATTNI_TRY(attni_check_shape(name, tensor, axes, count));
    const attn_tensor canonical = attni_canonical(tensor);
    *view = canonical;
    view->rank = 3;
    const int32_t batch_axis = problem->is_batch_major ? 0 : 1;
    view->shape[0] = problem->is_batched ? tensor->shape[batch_axis] : 1;
    view->strides[0] = problem->is_batched ? canonical.strides[batch_axis] : 0;
    const int32_t sequence_axis = problem->is_batched ? 1 - batch_axis : 0;
    view->shape[1] = tensor->shape[sequence_axis];
    view->strides[1] = canonical.strides[sequence_axis];
    view->shape[2] = tensor->shape[count - 1];
    view->strides[2] = canonical.strides[count - 1];
    return ATTN_OK;
}

/* What is projected where there is no key or value: (N, 0, features). */
static attn_tensor no_rows(int64_t batch, int64_t features, int32_t dtype) {
    return (attn_tensor){.dtype = dtype, .rank = 3, .shape = {batch, 0, features}};
}

static attn_status check_output(const attni_mha_request *request, attni_axis batch, attni_axis tgt,
                                attni_mha_problem *problem) {
    const attni_axis embed_dim = {"embed_dim", problem->layer->embed_dim};
    ATTNI_TRY(check_sequence(request->output_name, request->output, problem, batch, tgt, embed_dim,
                             attni_check_result, &problem->output));
    return request->reads_output ? ATTN_OK
                                 : attni_check_writable(request->output_name, request->output);
}

static attn_status check_sequences(const attni_mha_request *request, attni_mha_problem *problem) {
    const attn_mha *layer = problem->layer;
    const attn_tensor *query = request->query;
    const attn_tensor *key = request->key;
    const attn_tensor *value = request->value;
    ATTNI_TRY(attni_check_tensor("query", query, problem->data_rule));
    ATTNI_TRY(attni_check_rank("query", query, 2, 3));
    problem->is_batched = query->rank == 3;
    problem->is_batch_major = layer->is_batch_first || !problem->is_batched;
    attni_axis batch = {"N", ATTNI_ANY_LENGTH};
    attni_axis tgt = {"L", ATTNI_ANY_LENGTH};
    attni_axis src = {"S", ATTNI_ANY_LENGTH};
    const attni_axis qdim = {"qdim", layer->qdim};
    const attni_axis kdim = {"kdim", layer->kdim};
    const attni_axis vdim = {"vdim", layer->vdim};
    ATTNI_TRY(check_sequence("query", query, problem, batch, tgt, qdim, attni_check_dtype,
                             &problem->query));
    batch.length = problem->query.shape[0];
    tgt.length = problem->query.shape[1];
    if (attni_mha_only_reads(problem, key, value)) {
        src.length = 0;
        problem->key = no_rows(batch.length, layer->kdim, layer->dtype);
        problem->value = no_rows(batch.length, layer->vdim, layer->dtype);
    } else {
        problem->appends = problem->has_cache;
        ATTNI_TRY(check_sequence("key", key, problem, batch, src, kdim, attni_check_dtype,
                                 &problem->key));
        src.length = problem->key.shape[1];
        ATTNI_TRY(check_sequence("value", value, problem, batch, src, vdim, attni_check_dtype,
                                 &problem->value));
    }
    ATTNI_TRY(check_output(request, batch, tgt, problem));
    problem->batch = batch.length;
    problem->tgt_len = tgt.length;
    problem->new_len = src.length;
    problem->src_len = src.length;
    problem->extra_cols = (layer->has_bias_kv ? 1 : 0) + (layer->has_zero_attn ? 1 : 0);
    return ATTN_OK;
}

static attn_status check_key_padding_mask(const attn_mha_params *params,
                                          attni_mha_problem *problem) {
    static const char name[] = "key_padding_mask";
    const attn_tensor *mask = params->key_padding_mask;
    if (mask != NULL) {
        ATTNI_TRY(attni_check_tensor(name, mask, problem->data_rule));
    }
    ATTNI_TRY(
        attni_mask_check_kind(name, mask, params->key_padding_mask_kind, problem->layer->dtype));
    if (mask == NULL) {
        return ATTN_OK;
    }
    const attni_axis axes[] = {{"N", problem->batch}, {"S", problem->src_len}};
    const int32_t first = problem->is_batched ? 0 : 1;
    ATTNI_TRY(attni_check_shape(name, mask, axes + first, 2 - first));
    problem->key_padding_mask = (attni_mask){
        .data = mask->data,
        .strides = {problem->is_batched ? attni_stride(mask, 0) : 0, 0, 0,
                    attni_stride(mask, mask->rank - 1)},
        .kind = params->key_padding_mask_kind,
        .dtype = mask->dtype,
    };
    return ATTN_OK;
}

/* PyTorch's 3-D mask has row n * H + h for head h of batch n. */
static attn_tensor split_batch_and_heads(const attn_tensor *mask, int64_t num_heads) {
    attn_tensor view = *mask;
    view.rank = 4;
    view.shape[0] = mask->shape[0] / num_heads;
    view.strides[0] = view.shape[0] > 1 ? mask->strides[0] * num_heads : 0;
    view.shape[1] = num_heads;
    view.strides[1] = mask->strides[0];
    view.shape[2] = mask->shape[1];
    view.strides[2] = mask->strides[1];
    view.shape[3] = mask->shape[2];
    view.strides[3] = mask->strides[2];
    return view;
}

/* An unbatched call has no batch axis, not even one of length 1. */
static attn_tensor without_batch(const attn_tensor *mask) {
    attn_tensor view = *mask;
    view.rank = mask->rank - 1;
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        view.shape[axis] = mask->shape[axis + 1];
        view.strides[axis] = mask->strides[axis + 1];
    }
    return view;
}

attn_status attni_mha_view_mask(const attni_mha_problem *problem, const char *name,
                                const attn_tensor *mask, attn_tensor *view) {
    const int64_t num_heads = problem->layer->num_heads;
    ATTNI_TRY(attni_check_rank(name, mask, 2, 4));
    const bool is_placed = problem->attention.mask_start != NULL;
    const attni_axis columns = is_placed ? (attni_axis){"M", mask->shape[mask->rank - 1]}
                                         : (attni_axis){"S", problem->src_len};
    const attni_axis axes[] = {
        {"N", problem->batch}, {"H", num_heads}, {"L", problem->tgt_len}, columns};
    *view = attni_canonical(mask);
    if (mask->rank == 2) {
        return attni_check_shape(name, mask, axes + 2, 2);
    }
    if (mask->rank == 4) {
        int64_t strides[4];
        ATTNI_TRY(attni_broadcast_strides(name, mask, axes, 4, strides));
        const attni_axis exact_rows[] = {
            {"N or 1", ATTNI_ANY_LENGTH}, {"H or 1", ATTNI_ANY_LENGTH}, axes[2], axes[3]};
        if (!problem->is_batched) {
            *view = without_batch(view);
        }
        return attni_check_shape(name, mask, exact_rows, 4);
    }
    int64_t rows = 0;
    if (!attni_multiply(problem->batch, num_heads, &rows)) {
        return attni_fail(ATTN_ERROR_OVERFLOW, "%s: N=%lld times H=%lld exceeds 2^63", name,
                          (long long)problem->batch, (long long)num_heads);
    }
    const attni_axis stacked[] = {{problem->is_batched ? "N*H" : "H", rows}, axes[2], axes[3]};
    ATTNI_TRY(attni_check_shape(name, mask, stacked, 3));
    if (problem->is_batched) {
        *view = split_batch_and_heads(view, num_heads);
    }
    return ATTN_OK;
}

/* The attention's mask in the shapes that a layer takes; the attention inside sees it over (N, H,
 * L, S). */
static attn_status check_attn_mask(attni_mha_problem *problem) {
    static const char name[] = "attention.mask";
    attn_sdpa_params *attention = &problem->attention;
    const attn_tensor *mask = attention->mask;
    if (mask != NULL) {
        ATTNI_TRY(attni_check_tensor(name, mask, problem->data_rule));
    }
    ATTNI_TRY(attni_mask_check_kind(name, mask, attention->mask_kind, problem->layer->dtype));
    if (mask == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_mha_view_mask(problem, name, mask, &problem->attn_mask));
    problem->given_mask = mask;
    attention->mask = &problem->attn_mask;
    return ATTN_OK;
}

/* Whether a call that projects no keys and values leaves a parameter alone. */
static bool is_of_keys(int32_t slot) {
    return slot == ATTNI_K_WEIGHT || slot == ATTNI_V_WEIGHT || slot == ATTNI_K_BIAS ||
           slot == ATTNI_V_BIAS || slot == ATTNI_K_NORM;
}

static attn_status check_parameters(const attni_mha_problem *problem) {
    const attn_mha *layer = problem->layer;
    const bool reads_only = problem->has_cache && !problem->appends;
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        const attn_tensor *view = &layer->slots[slot].view;
        if (view->rank > 0 && view->data == NULL && !(reads_only && is_of_keys(slot))) {
            return attni_fail(ATTN_ERROR_PARAMETER,
                              "%s: expected a parameter that has been loaded or bound, got none",
                              attni_mha_slot_name(layer, slot));
        }
    }
    return ATTN_OK;
}

/* A layer projects keys and values itself, with as many rows for each sequence. */
static attn_status check_projected(const attn_sdpa_params *attention, bool has_cache) {
    if (has_cache && attention->key_lengths != NULL) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "attention.key_lengths: expected NULL beside cache, which has its own");
    }
    const char *name = attention->kv != NULL             ? "kv"
                       : attention->query_starts != NULL ? "query_starts"
                                                         : NULL;
    return name == NULL ? ATTN_OK
                        : attni_fail(ATTN_ERROR_VALUE,
                                     "attention.%s: expected NULL in a layer, which projects the "
                                     "rows of N sequences itself",
                                     name);
}

/* The structs that params point to, as today's. */
static attn_status read_structs(attni_mha_problem *problem) {
    const attn_mha_params *params = &problem->params;
    problem->has_cache = params->cache != NULL;
    problem->has_rope = params->rope != NULL;
    ATTNI_TRY(attni_sdpa_read_params("attention", params->attention, &problem->attention));
    ATTNI_TRY(check_projected(&problem->attention, problem->has_cache));
    ATTNI_TRY(attni_kv_read(&attni_names_of_cache, params->cache, &problem->cache));
    problem->cache.struct_size = sizeof problem->cache;
    return attni_rope_read_params("rope", params->rope, &problem->rope);
}

/* Queries stand behind the keys that were there before them. */
static attn_status attend_over_cache(attni_mha_problem *problem) {
    attn_sdpa_params *attention = &problem->attention;
    const attn_rope_params *rope = &problem->rope;
    if (!problem->has_cache) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_switch("attention.", "align_end", attention->align_end));
    attention->kv = &problem->cache;
    if (attention->query_offset == NULL) {
        attention->align_end = 1;
    }
    if (rope->positions == NULL && rope->lengths == NULL) {
        problem->rope.lengths = problem->cache.lengths;
    }
    return ATTN_OK;
}

static attn_status check_saves(const attni_mha_problem *problem) {
    return problem->saves && problem->has_cache
               ? attni_fail(ATTN_ERROR_UNSUPPORTED,
                            "cache: expected NULL with saved and where gradients are wanted, since "
                            "there are none through a cache")
               : ATTN_OK;
}

attn_status attni_mha_check(const attni_mha_request *request, attni_mha_problem *problem) {
    const attn_mha *layer = request->layer;
    const attni_data_rule data_rule = request->data_rule;
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    }
    attn_mha_params params;
    ATTNI_TRY(attni_struct_read("params", request->params,
                                ATTNI_BYTES_THROUGH(attn_mha_params, attention), sizeof params,
                                &params));
    *problem = (attni_mha_problem){.layer = layer,
                                   .params = params,
                                   .saves = params.saved != NULL || request->saves,
                                   .data_rule = data_rule};
    ATTNI_TRY(read_structs(problem));
    ATTNI_TRY(check_saves(problem));
    ATTNI_TRY(check_sequences(request, problem));
    ATTNI_TRY(attni_mha_check_cache(problem));
    ATTNI_TRY(attni_check_reserved("", params.reserved));
    ATTNI_TRY(check_key_padding_mask(&params, problem));
    ATTNI_TRY(check_attn_mask(problem));
    if (layer->num_kv_heads != layer->num_heads) {
        ATTNI_TRY(attni_check_switch("attention.", "enable_gqa", problem->attention.enable_gqa));
        problem->attention.enable_gqa = 1;
    }
    ATTNI_TRY(attend_over_cache(problem));
    return data_rule == ATTNI_DATA_REQUIRED ? check_parameters(problem) : ATTN_OK;
}
