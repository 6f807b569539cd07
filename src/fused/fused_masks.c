/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_masks.c: where the rows of a dense mask are that a panel's rows meet.
 */
#include "fused/fused_masks.h"

#include "fused/fused_item.h"
#include "problem/mask_rows.h"

bool attni_fused_rows_share_mask(const attni_fused_item *item, const attni_mask *mask) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    return mask->columns != ATTNI_COLUMNS_ARE_DISTANCES && strides[1] == 0 &&
           (strides[0] == 0 || item->engine->plan->group == 1);
}

/* Copies mask elements to where they are side by side, additive ones as float32. */
static void stage_row(const attni_fused_item *item, const attni_mask *mask, char *to,
                      const char *from, int64_t stride, int64_t count) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        const attni_storage_kernels *storage =
            attni_storage_kernels_of(item->engine->kernels, mask->dtype);
        storage->widen(attni_floats_to(to, 0), from, stride, count);
        return;
    }
    for (int64_t j = 0; j < count; ++j) {
        to[j] = from[j * stride];
    }
}

/* Heads that share a mask stand in neighbouring lanes, and share what is staged. */
static void stage_rows(const attni_fused_item *item, const attni_mask *mask, int64_t stride,
                       int64_t num_keys, int32_t count, const char *rows[ATTNI_PANEL_LANES]) {
    const char *last = NULL;
    char *staged = item->staging;
    for (int32_t lane = 0; lane < count; ++lane) {
        if (rows[lane] != last) {
            last = rows[lane];
            staged = item->staging + lane * item->engine->plan->tile_keys * (int64_t)sizeof(float);
            stage_row(item, mask, staged, last, stride, num_keys);
        }
        rows[lane] = staged;
    }
}

/* The key that column 0 stands for. */
static int64_t first_key(const attni_fused_item *item, const attni_mask *mask) {
    return mask->columns == ATTNI_COLUMNS_ARE_PLACED ? item->sequence.mask_start : 0;
}

/* A row of distances, in one piece: in place, where `keys` end at none of its ends, or staged. */
static const char *row_of_distances(const attni_fused_item *item, const attni_panel *panel,
                                    const attni_mask *mask, attni_interval keys, int32_t lane) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(mask->dtype);
    const int64_t count = keys.end - keys.begin;
    const attni_mask_row row = {problem, &item->sequence, (int32_t)(mask - problem->masks),
                                panel->head[lane], panel->row[lane]};
    attni_mask_stretch stretch = attni_mask_stretch_from(&row, keys.begin);
    if (stretch.count >= count && stretch.stride == 1 && !attni_mask_is_narrow(mask)) {
        return mask->data + stretch.offset * bytes;
    }
    char *staged = item->staging + lane * item->engine->plan->tile_keys * (int64_t)sizeof(float);
    for (int64_t done = 0; done < count; done += stretch.count) {
        stretch = attni_mask_stretch_from(&row, keys.begin + done);
        stretch.count = attni_min(stretch.count, count - done);
        stage_row(item, mask, staged + done * (int64_t)sizeof(float),
                  mask->data + stretch.offset * bytes, stretch.stride, stretch.count);
    }
    return staged;
}

/* Heads that share the table stand in neighbouring lanes, and share the row. */
static void find_rows_of_distances(const attni_fused_item *item, const attni_panel *panel,
                                   const attni_mask *mask, attni_interval keys, int32_t count,
                                   const char *rows[ATTNI_PANEL_LANES]) {
    const int64_t head_stride = mask->strides[item->engine->problem->batch_rank];
    for (int32_t lane = 0; lane < count; ++lane) {
        const bool is_same = lane > 0 && panel->row[lane] == panel->row[lane - 1] &&
                             (head_stride == 0 || panel->head[lane] == panel->head[lane - 1]);
        rows[lane] = is_same ? rows[lane - 1] : row_of_distances(item, panel, mask, keys, lane);
    }
}

void attni_fused_find_mask_rows(const attni_fused_item *item, const attni_panel *panel,
                                const attni_mask *mask, attni_interval keys, int32_t count,
                                const char *rows[ATTNI_PANEL_LANES]) {
    if (mask->columns == ATTNI_COLUMNS_ARE_DISTANCES) {
        find_rows_of_distances(item, panel, mask, keys, count, rows);
        return;
    }
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(mask->dtype);
    const int64_t num_keys = keys.end - keys.begin;
    const int64_t column = keys.begin - first_key(item, mask);
    const char *first =
        mask->data + (attni_fused_offset(item, mask->strides, 0) + column * strides[2]) * bytes;
    const int64_t head_bytes = strides[0] * bytes;
    const int64_t row_bytes = strides[1] * bytes;
    for (int32_t lane = 0; lane < count; ++lane) {
        rows[lane] = first + panel->head[lane] * head_bytes + panel->row[lane] * row_bytes;
    }
    if ((strides[2] != 1 && num_keys > 1) || attni_mask_is_narrow(mask)) {
        stage_rows(item, mask, strides[2], num_keys, count, rows);
    }
}

const char *attni_fused_mask_element(const attni_fused_item *item, const attni_panel *panel,
                                     const attni_mask *mask, int32_t lane, int64_t key) {
    const int64_t *strides = &mask->strides[item->engine->problem->batch_rank];
    const int64_t offset = attni_fused_offset(item, mask->strides, panel->head[lane]) +
                           panel->row[lane] * strides[1] +
                           (key - first_key(item, mask)) * strides[2];
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
