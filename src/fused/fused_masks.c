/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_masks.c: where the rows of a dense mask are that a panel's rows meet.
 */
#include "fused/fused_masks.h"

#include <string.h>

#include "fused/fused_item.h"

bool attni_fused_rows_share_mask(const attni_fused_item *item, const attni_mask *mask) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    return strides[1] == 0 && (strides[0] == 0 || item->engine->plan->group == 1);
}

/* Copies mask elements that are not side by side to where they are. */
static void stage_row(char *to, const char *from, int64_t stride, int64_t count, int64_t bytes) {
    for (int64_t j = 0; j < count; ++j) {
        memcpy(to + j * bytes, from + j * stride * bytes, (size_t)bytes);
    }
}

void attni_fused_find_mask_rows(const attni_fused_item *item, const attni_panel *panel,
                                const attni_mask *mask, attni_interval keys, int32_t count,
                                const char *rows[ATTNI_PANEL_LANES]) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(mask->dtype);
    const int64_t num_keys = keys.end - keys.begin;
    const char *first =
        mask->data + (attni_fused_offset(item, mask->strides, 0) + keys.begin * strides[2]) * bytes;
    const int64_t head_bytes = strides[0] * bytes;
    const int64_t row_bytes = strides[1] * bytes;
    for (int32_t lane = 0; lane < count; ++lane) {
        rows[lane] = first + panel->head[lane] * head_bytes + panel->row[lane] * row_bytes;
    }
    for (int32_t lane = 0; lane < count && strides[2] != 1 && num_keys > 1; ++lane) {
        char *staged =
            item->staging + lane * item->engine->plan->tile_keys * (int64_t)sizeof(float);
        stage_row(staged, rows[lane], strides[2], num_keys, bytes);
        rows[lane] = staged;
    }
}

const char *attni_fused_mask_element(const attni_fused_item *item, const attni_panel *panel,
                                     const attni_mask *mask, int32_t lane, int64_t key) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const int64_t offset = attni_fused_offset(item, mask->strides, panel->head[lane]) +
                           panel->row[lane] * strides[1] + key * strides[2];
    return mask->data + offset * (int64_t)attn_dtype_size_bytes(mask->dtype);
}

attni_ahead attni_fused_mask_rows_ahead(const attni_fused_item *item, const attni_panel *panel,
                                        const attni_mask *mask, attni_interval keys) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(mask->dtype);
    const bool is_even = item->engine->plan->group == 1 || strides[0] == 0;
    const bool is_apart = strides[1] != 0 && strides[2] == 1 && keys.begin < keys.end;
    if (!is_even || !is_apart) {
        return (attni_ahead){0};
    }
    return (attni_ahead){
        .row = attni_fused_mask_element(item, panel, mask, 0, keys.begin),
        .stride = strides[1] * bytes,
        .bytes = (keys.end - keys.begin) * bytes,
        .num_rows = panel->row[panel->count - 1] - panel->row[0] + 1,
    };
}
