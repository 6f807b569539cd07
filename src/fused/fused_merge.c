/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_merge.c: rows whose keys come in chunks. Each chunk has, for every row, the largest score
 * m, the sum l of exp(score - m) and the sums o of exp(score - m) * value; what it adds to (M, L,
 * O), that of the chunks before it, is
 *
 *     M' = max(M, m)    L' = exp(M - M') L + exp(m - M') l    O' = exp(M - M') O + exp(m - M') o
 *
 * in this order always, whoever computed the chunks: so a row's bits are the same, whether one item
 * had all of them or many one each.
 */
#include "fused/fused_merge.h"

#include <math.h>
#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"

/* What one chunk has for a row. */
typedef struct partial {
    float *max;
    float *sum;
    float *sums;
} partial;

static partial partial_of(const attni_fused_item *item, const attni_panel *panel, int32_t lane,
                          int64_t index) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t extra = item->engine->problem->extra_cols > 0 ? 1 : 0;
    const int64_t row = panel->row[lane] * plan->group + panel->head[lane] - item->first_head;
    const int64_t matrix = item->batch * plan->num_groups + item->group;
    const int64_t floats = plan->sum_stride + 2;
    float *at = attni_floats_to(item->engine->scratch + plan->partials_offset,
                                ((matrix * (plan->num_chunks + extra) + index) * plan->rows + row) *
                                    floats);
    return (partial){at + plan->sum_stride, at + plan->sum_stride + 1, at};
}

void attni_fused_put_aside(const attni_fused_item *item, const attni_panel *panel, int64_t index) {
    const int64_t sum_stride = item->engine->plan->sum_stride;
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const partial aside = partial_of(item, panel, lane, index);
        *aside.max = panel->state.max[lane];
        *aside.sum = panel->state.sum[lane];
        if (panel->is_started) {
            memcpy(aside.sums, panel->sums + lane * sum_stride, (size_t)sum_stride * sizeof(float));
        }
    }
}

/* exp(max - top); 1 where sums are not relative to a maximum, and in a row of NaN, which has none.
 * */
static double share_of(const attni_fused_engine *engine, float max, float top) {
    const bool is_relative = engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX &&
                             top != -(float)INFINITY && max != top;
    return is_relative ? exp((double)max - (double)top) : 1;
}

/* A chunk in which a row saw nothing has nothing to add; its sums may never have been written. */
static void fold_row(const attni_fused_engine *engine, attni_panel *panel, int32_t lane,
                     partial chunk) {
    const int64_t sum_stride = engine->plan->sum_stride;
    float *folded = panel->folded + lane * sum_stride;
    if (attni_fused_is_empty(engine, *chunk.max, *chunk.sum)) {
        return;
    }
    if (!panel->has_folded[lane]) {
        panel->has_folded[lane] = true;
        panel->folded_max[lane] = *chunk.max;
        panel->folded_sum[lane] = (double)*chunk.sum;
        memcpy(folded, chunk.sums, (size_t)sum_stride * sizeof(float));
        return;
    }
    const float top = fmaxf(panel->folded_max[lane], *chunk.max);
    const double old_share = share_of(engine, panel->folded_max[lane], top);
    const double share = share_of(engine, *chunk.max, top);
    panel->folded_max[lane] = top;
    panel->folded_sum[lane] = panel->folded_sum[lane] * old_share + (double)*chunk.sum * share;
    engine->kernels->float32->scale(folded, sum_stride, old_share);
    engine->kernels->float32->accumulate(folded, chunk.sums, 1, sum_stride, share);
}

void attni_fused_fold_panel(const attni_fused_item *item, attni_panel *panel) {
    const int64_t sum_stride = item->engine->plan->sum_stride;
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const partial chunk = {&panel->state.max[lane], &panel->state.sum[lane],
                               panel->sums + lane * sum_stride};
        fold_row(item->engine, panel, lane, chunk);
    }
    panel->is_folded = true;
    attni_fused_start_panel(panel);
}

void attni_fused_finish_folded(const attni_fused_item *item, attni_panel *panel) {
    const attni_fused_engine *engine = item->engine;
    const int64_t sum_stride = engine->plan->sum_stride;
    float factor[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const bool has_seen = panel->has_folded[lane];
        panel->state.max[lane] = has_seen ? panel->folded_max[lane] : -(float)INFINITY;
        panel->state.sum[lane] = has_seen ? (float)panel->folded_sum[lane] : 0;
    }
    attni_fused_finish_panel(item, panel, factor);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        engine->kernels->float32->scale(panel->folded + lane * sum_stride,
                                        panel->has_folded[lane] ? engine->problem->value_dim : 0,
                                        factor[lane]);
    }
    attni_fused_store_output(item, panel, panel->folded, true);
}

/* The extra columns stand behind the chunks. */
void attni_fused_merge_item(void *data, int32_t slot, int64_t index) {
    const attni_fused_engine *engine = data;
    const attni_fused_plan *plan = engine->plan;
    attni_fused_item item = attni_fused_item_in(engine, slot);
    const int64_t matrix = index / plan->num_blocks;
    const int64_t num_partials = engine->num_splits + (engine->problem->extra_cols > 0 ? 1 : 0);
    attni_fused_go_to(&item, matrix / plan->num_groups, matrix % plan->num_groups, 0);
    attni_fused_place_panels(&item, index % plan->num_blocks);
    for (int64_t p = 0; p < item.num_panels; ++p) {
        attni_panel *panel = &item.panels[p];
        for (int32_t lane = 0; lane < panel->count; ++lane) {
            for (int64_t i = 0; i < num_partials; ++i) {
                fold_row(engine, panel, lane, partial_of(&item, panel, lane, i));
            }
        }
        attni_fused_finish_folded(&item, panel);
    }
}
