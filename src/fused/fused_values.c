/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_values.c: values that not all rows of a panel see. 0 * NaN is NaN, so these are added row
 * by row wherever a weight of 0 would not keep them out.
 */
#include "fused/fused_values.h"

#include "fused/fused_item.h"
#include "problem/block_mask.h"
#include "problem/quantized_rows.h"

attni_interval attni_fused_common_keys(const attni_panel *panel, const attni_tile_keys *keys) {
    return keys->are_shown
               ? attni_interval_between(attni_max(keys->keys.begin, panel->common.begin),
                                        attni_min(keys->keys.end, panel->common.end))
               : (attni_interval){0, 0};
}

attni_interval attni_fused_keys_before(const attni_tile_keys *keys, attni_interval common) {
    const int64_t end = common.begin < common.end ? common.begin : keys->keys.end;
    return attni_interval_between(keys->keys.begin, end);
}

attni_interval attni_fused_keys_behind(const attni_tile_keys *keys, attni_interval common) {
    const int64_t begin = common.begin < common.end ? common.end : keys->keys.end;
    return attni_interval_between(begin, keys->keys.end);
}

/* A row of value as a storage kernel reads it. Where scales are folded elements were never
 * dequantised. */
static attni_source_rows own_value(const attni_fused_item *item, int64_t key) {
    const attni_fused_engine *engine = item->engine;
    if (!engine->plan->folds_value_scales) {
        return attni_fused_read_values(item, key);
    }
    const int64_t value_dim = engine->problem->value_dim;
    float *row = attni_floats_to(item->slot + engine->plan->gathered_offset, 0);
    attni_dequantize_values(engine->kernels, engine->problem, &item->sequence, item->first_head,
                            key, 1, row, value_dim);
    return (attni_source_rows){row, value_dim, 1, 1};
}

/* Those of keys that the row sees. */
static void add_values(const attni_fused_item *item, attni_interval keys, float *sums,
                       const float *weights, int64_t weight_stride) {
    for (int64_t key = keys.begin; key < keys.end; ++key) {
        const attni_source_rows value = own_value(item, key);
        item->engine->value_storage->accumulate(sums, value.data, value.col_stride,
                                                item->engine->problem->value_dim,
                                                weights[(key - keys.begin) * weight_stride]);
    }
}

void attni_fused_add_own_values(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, attni_interval part, int32_t lane,
                                const float *weights, int64_t weight_stride) {
    float *sums = panel->sums + lane * item->engine->plan->sum_stride;
    attni_interval left = {attni_max(part.begin, panel->first_key[lane]),
                           attni_min(part.end, panel->past_key[lane])};
    while (left.begin < left.end) {
        const attni_block_stretch stretch = attni_block_stretch_of(
            item->engine->problem, item->batch, panel->head[lane], panel->row[lane], left);
        const int64_t first = keys->first + left.begin - keys->keys.begin;
        if (stretch.block != ATTN_BLOCK_HIDDEN) {
            add_values(item, stretch.keys, sums, weights + first * weight_stride, weight_stride);
        }
        left.begin = stretch.keys.end;
    }
}
