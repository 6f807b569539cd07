/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_slots.c: the memory of a layer's copied parameters.
 */
#include "base/checked_size.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"

/* Filling up the last strip may be what no longer fits. */
static attn_status fail_too_large(const attn_mha *layer, int32_t slot, int64_t rows, int64_t cols) {
    return attni_fail(ATTN_ERROR_OVERFLOW,
                      "%s: expected at most 2^63 - 1 bytes in strips of %lld rows, got %lld rows "
                      "of %lld %s",
                      attni_mha_slot_name(layer, slot),
                      (long long)attni_strip_cols(layer->parameter_dtype), (long long)rows,
                      (long long)cols, attni_dtype_name(layer->parameter_dtype));
}

static attn_status allocate_slot(const attn_mha *layer, int32_t slot, attni_mha_slot *fresh) {
    const attn_tensor *old = &layer->slots[slot].view;
    *fresh = (attni_mha_slot){.view = *old, .in_strips = old->rank > 1};
    const int64_t cols = old->rank > 1 ? old->shape[1] : 1;
    const int64_t rows =
        old->rank > 1 ? attni_strips_round_up(old->dtype, old->shape[0]) : old->shape[0];
    fresh->view.strides[0] = cols;
    fresh->view.strides[1] = 1;
    const bool has_scales = old->dtype == ATTN_DTYPE_INT8;
    int64_t bytes;
    int64_t elements_bytes;
    if (!attni_multiply(rows, cols, &bytes) ||
        !attni_multiply(bytes, (int64_t)attn_dtype_size_bytes(old->dtype), &elements_bytes) ||
        !attni_add(elements_bytes, has_scales ? rows * (int64_t)sizeof *fresh->scales : 0,
                   &bytes)) {
        return fail_too_large(layer, slot, rows, cols);
    }
    fresh->owned_bytes = (size_t)bytes;
    fresh->owned = attni_allocate(&layer->allocator, fresh->owned_bytes);
    fresh->view.data = fresh->owned;
    if (fresh->owned == NULL) {
        return attni_fail(ATTN_ERROR_MEMORY, "%s: allocation of %zu bytes failed",
                          attni_mha_slot_name(layer, slot), fresh->owned_bytes);
    }
    if (has_scales) { /* behind whole strips, so they are aligned */
        fresh->scales = (float *)(void *)((char *)fresh->owned + elements_bytes);
    }
    return ATTN_OK;
}

void attni_mha_free_slot(const attn_mha *layer, attni_mha_slot *slot) {
    attni_deallocate(&layer->allocator, slot->owned, slot->owned_bytes);
    slot->owned = NULL;
}

void attni_mha_replace_slots(attn_mha *layer, int32_t first, int32_t count,
                             const attni_mha_slot *fresh) {
    for (int32_t i = 0; i < count; ++i) {
        attni_mha_free_slot(layer, &layer->slots[first + i]);
        layer->slots[first + i] = fresh[i];
    }
}

attn_status attni_mha_allocate_slots(const attn_mha *layer, int32_t first, int32_t count,
                                     attni_mha_slot *fresh) {
    attn_status status = ATTN_OK;
    int32_t made = 0;
    for (; made < count && status == ATTN_OK; ++made) {
        fresh[made] = (attni_mha_slot){0};
        if (layer->slots[first + made].view.rank > 0) {
            status = allocate_slot(layer, first + made, &fresh[made]);
        }
    }
    while (status != ATTN_OK && made > 0) {
        attni_mha_free_slot(layer, &fresh[--made]);
    }
    return status;
}
