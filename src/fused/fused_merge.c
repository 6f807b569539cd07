/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_merge.c: rows whose keys were split over several items. Each split puts aside, for every
 * row, the largest score m, the sum l of exp(score - m) and the sums o of exp(score - m) * value;
 * together they are
 *
 *     M = max m    L = sum of exp(m - M) * l    O = sum of exp(m - M) * o    output = O / L
 */
#include "fused/fused_merge.h"

#include <math.h>
#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"

/* What one split put aside for a row. */
typedef struct partial {
    float *max;
    float *sum;
    float *sums;
} partial;

static partial partial_of(const attni_fused_item *item, const attni_panel *panel, int32_t lane,
                          int64_t split) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t row = panel->row[lane] * plan->group + panel->head[lane] - item->first_head;
    const int64_t matrix = item->batch * plan->num_groups + item->group;
    const int64_t floats = plan->sum_stride + 2;
    float *at = attni_floats_to(item->engine->scratch + plan->partials_offset,
                                ((matrix * plan->num_splits + split) * plan->rows + row) * floats);
    return (partial){at + plan->sum_stride, at + plan->sum_stride + 1, at};
}

void attni_fused_put_aside(const attni_fused_item *item, const attni_panel *panel) {
    const int64_t sum_stride = item->engine->plan->sum_stride;
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const partial aside = partial_of(item, panel, lane, item->split);
        *aside.max = panel->state.max[lane];
        *aside.sum = panel->state.sum[lane];
        if (panel->is_started) {
            memcpy(aside.sums, panel->sums + lane * sum_stride, (size_t)sum_stride * sizeof(float));
        }
    }
}

/* A split in which a row saw nothing has nothing to add; its sums may never have been written. */
static void merge_row(const attni_fused_item *item, attni_panel *panel, int32_t lane) {
    const attni_fused_engine *engine = item->engine;
    const attni_fused_plan *plan = engine->plan;
    const bool is_softmax = engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX;
    float *sums = panel->sums + lane * plan->sum_stride;
    float max = -(float)INFINITY;
    double sum = 0;
    for (int64_t split = 0; split < plan->num_splits; ++split) {
        max = fmaxf(max, *partial_of(item, panel, lane, split).max);
    }
    memset(sums, 0, (size_t)plan->sum_stride * sizeof(float));
    for (int64_t split = 0; split < plan->num_splits; ++split) {
        const partial aside = partial_of(item, panel, lane, split);
        if (attni_fused_is_empty(engine, *aside.max, *aside.sum)) {
            continue;
        }
        /* A row of NaN has no maximum. */
        const bool is_relative = is_softmax && max != -(float)INFINITY;
        const double share = is_relative ? exp((double)*aside.max - (double)max) : 1;
        sum += share * (double)*aside.sum;
        engine->kernels->float32->accumulate(sums, aside.sums, 1, plan->sum_stride, share);
    }
    panel->state.max[lane] = max;
    panel->state.sum[lane] = (float)sum;
}

void attni_fused_merge_item(void *data, int32_t slot, int64_t index) {
    const attni_fused_engine *engine = data;
    const attni_fused_plan *plan = engine->plan;
    attni_fused_item item = attni_fused_item_in(engine, slot);
    const int64_t matrix = index / plan->num_blocks;
    attni_fused_go_to(&item, matrix / plan->num_groups, matrix % plan->num_groups, 0);
    attni_fused_place_panels(&item, index % plan->num_blocks);
    for (int64_t p = 0; p < item.num_panels; ++p) {
        attni_panel *panel = &item.panels[p];
        float factor[ATTNI_PANEL_LANES];
        for (int32_t lane = 0; lane < panel->count; ++lane) {
            merge_row(&item, panel, lane);
        }
        attni_fused_finish_panel(&item, panel, factor);
        for (int32_t lane = 0; lane < panel->count; ++lane) {
            engine->kernels->float32->scale(panel->sums + lane * plan->sum_stride,
                                            engine->problem->value_dim, factor[lane]);
        }
        attni_fused_store_output(&item, panel);
    }
}
