/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_values.c: values that not all rows of a panel see. 0 * NaN is NaN, so these are added row
 * by row wherever a weight of 0 would not keep them out.
 */
#include "fused/fused_values.h"

#include "fused/fused_item.h"

attni_interval attni_fused_common_keys(const attni_panel *panel, const attni_tile_keys *keys) {
    return attni_interval_between(attni_max(keys->keys.begin, panel->common.begin),
                                  attni_min(keys->keys.end, panel->common.end));
}

/* sums of one row += weights * values of the keys [begin, end), one by one; `weights` is that of
 * the tile's first key. */
static void add_keys(const attni_fused_item *item, float *sums, const float *weights,
                     int64_t weight_stride, const attni_tile_keys *keys, attni_interval own) {
    for (int64_t key = own.begin; key < own.end; ++key) {
        const attni_source_rows value = attni_fused_values_from(item, key);
        const float weight = weights[(key - keys->keys.begin) * weight_stride];
        item->engine->kernels->float32->accumulate(sums, value.data, value.col_stride,
                                                   item->engine->problem->value_dim, weight);
    }
}

void attni_fused_add_own_values(const attni_fused_item *item, const attni_panel *panel,
                                const attni_tile_keys *keys, int32_t lane, const float *weights,
                                int64_t weight_stride) {
    float *sums = panel->sums + lane * item->engine->plan->sum_stride;
    const attni_interval common = attni_fused_common_keys(panel, keys);
    const attni_interval own =
        attni_interval_between(attni_max(keys->keys.begin, panel->first_key[lane]),
                               attni_min(keys->keys.end, panel->past_key[lane]));
    const bool has_common = common.begin < common.end;
    const attni_interval before = {own.begin, has_common ? common.begin : own.end};
    const attni_interval after = {has_common ? common.end : own.end, own.end};
    add_keys(item, sums, weights, weight_stride, keys, before);
    add_keys(item, sums, weights, weight_stride, keys, after);
}
