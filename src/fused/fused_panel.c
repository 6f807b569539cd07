/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_panel.c: panels: which rows they have and what those see, and what becomes of their
 * results.
 */
#include "fused/fused_panel.h"

#include <math.h>
#include <string.h>

#include "fused/fused_item.h"

const float attni_fused_ones[ATTNI_PANEL_LANES] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
};

/* ---- rows in ---- */

/* How many of `left` vectors the next panel takes: 3, but 2 twice rather than 3 and then 1, which
 * would leave the multiply-add units waiting. */
static int32_t next_vectors(int64_t left) {
    if (left == 4 || left == 2) {
        return 2;
    }
    return left == 1 ? 1 : ATTNI_PANEL_VECTORS;
}

/* Both ends only grow from lane to lane, so lanes between two equal ones are equal to them. */
static void find_visible(const attni_visibility *visibility, attni_panel *panel) {
    const int32_t last = panel->width - 1;
    const int64_t first_key = attni_first_visible(visibility, panel->row[0]);
    const int64_t past_key = attni_past_visible(visibility, panel->row[0]);
    const bool is_same = attni_first_visible(visibility, panel->row[last]) == first_key &&
                         attni_past_visible(visibility, panel->row[last]) == past_key;
    for (int32_t lane = 0; lane <= last; ++lane) {
        panel->first_key[lane] =
            is_same ? first_key : attni_first_visible(visibility, panel->row[lane]);
        panel->past_key[lane] =
            is_same ? past_key : attni_past_visible(visibility, panel->row[lane]);
    }
}

static void find_rows(const attni_fused_item *item, attni_panel *panel, int64_t first_row) {
    const attni_fused_plan *plan = item->engine->plan;
    int64_t row = first_row / plan->group;
    int64_t head = first_row % plan->group;
    panel->count = (int32_t)attni_min(panel->width, plan->rows - first_row);
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        if (lane >= panel->count) {
            panel->row[lane] = panel->row[panel->count - 1];
            panel->head[lane] = panel->head[panel->count - 1];
        } else {
            panel->row[lane] = row;
            panel->head[lane] = item->first_head + head;
            head = head + 1 < plan->group ? head + 1 : 0;
            row += head == 0;
        }
    }
    find_visible(&item->sequence.visibility, panel);
    const int32_t last = panel->count - 1;
    panel->seen = attni_interval_between(attni_max(item->range.begin, panel->first_key[0]),
                                         attni_min(item->range.end, panel->past_key[last]));
    panel->common = attni_interval_between(panel->first_key[last], panel->past_key[0]);
}

static void pack_panel(const attni_fused_item *item, const attni_panel *panel) {
    const attni_fused_engine *engine = item->engine;
    const attni_sdpa_problem *problem = engine->problem;
    const int64_t *strides = &problem->query.strides[problem->batch_rank];
    const int64_t first = attni_fused_offset(item, problem->query.strides, 0);
    const void *rows[ATTNI_PANEL_LANES] = {0};
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        const int64_t offset =
            first + panel->head[lane] * strides[0] + panel->row[lane] * strides[1];
        rows[lane] = attni_element(problem->query.data, offset, problem->query.element_bytes);
    }
    if (engine->plan->by_pairs) {
        engine->pairs->pack_rows((uint32_t *)(void *)panel->queries, panel->vectors, rows,
                                 strides[2], problem->head_dim);
        return;
    }
    if (!engine->plan->by_rows) {
        engine->query_storage->pack_rows(panel->queries, panel->vectors, rows, strides[2],
                                         problem->head_dim, (float)problem->scale);
        return;
    }
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        float *row = panel->queries + lane * problem->head_dim;
        engine->query_storage->widen(row, rows[lane], strides[2], problem->head_dim);
        engine->kernels->float32->scale(row, problem->head_dim, problem->scale);
    }
}

void attni_fused_pack_queries(attni_fused_item *item) {
    for (int64_t p = 0; p < item->num_panels; ++p) {
        pack_panel(item, &item->panels[p]);
    }
}

void attni_fused_start_panel(attni_panel *panel) {
    panel->is_started = false;
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        panel->state.max[lane] = -(float)INFINITY;
        panel->state.sum[lane] = 0;
        panel->state.rescale[lane] = 1;
    }
}

/* Blocks differ by one vector at most. */
attni_interval attni_fused_block_rows(const attni_fused_engine *engine, int64_t block) {
    const attni_fused_plan *plan = engine->plan;
    const int64_t lanes = engine->kernels->tiles->lanes;
    const int64_t even = plan->num_vectors / plan->num_blocks;
    const int64_t larger_blocks = plan->num_vectors % plan->num_blocks;
    const int64_t begin = block * even + attni_min(block, larger_blocks);
    const int64_t end = begin + even + (block < larger_blocks ? 1 : 0);
    return (attni_interval){begin * lanes, attni_min(end * lanes, plan->rows)};
}

/* Rows from `row` on that may share a panel. */
static int64_t rows_together(const attni_fused_plan *plan, int64_t row, int64_t end) {
    return plan->panel_rows > 0 ? attni_min(end - row, plan->panel_rows - row % plan->panel_rows)
                                : end - row;
}

void attni_fused_place_panels(attni_fused_item *item, int64_t block) {
    const attni_fused_plan *plan = item->engine->plan;
    const int64_t lanes = item->engine->kernels->tiles->lanes;
    const attni_interval rows = attni_fused_block_rows(item->engine, block);
    float *queries = item->queries;
    float *sums = item->sums;
    float *folded = item->folded;
    item->num_panels = 0;
    for (int64_t row = rows.begin; row < rows.end;) {
        attni_panel *panel = &item->panels[item->num_panels++];
        panel->vectors = next_vectors(attni_divide_up(rows_together(plan, row, rows.end), lanes));
        panel->width = (int32_t)(plan->by_rows ? plan->rows : panel->vectors * lanes);
        panel->is_finished = false;
        panel->is_folded = false;
        panel->sight.number = -1;
        panel->next.number = -1;
        panel->queries = queries;
        panel->sums = sums;
        panel->folded = folded;
        find_rows(item, panel, row);
        attni_fused_start_panel(panel);
        memset(panel->has_folded, 0, sizeof panel->has_folded);
        queries += panel->width * item->engine->problem->head_dim;
        sums += panel->width * plan->sum_stride;
        folded += plan->folds ? panel->width * plan->sum_stride : 0;
        row += panel->width;
    }
}

void attni_fused_bound_rows(const attni_panel *panel, int64_t first_key, int64_t count,
                            int32_t begin[ATTNI_PANEL_LANES], int32_t end[ATTNI_PANEL_LANES]) {
    const bool sees_all = first_key == ATTNI_NO_KEY || (panel->common.begin <= first_key &&
                                                        panel->common.end >= first_key + count);
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        begin[lane] = 0;
        end[lane] = (int32_t)count;
    }
    for (int32_t lane = 0; !sees_all && lane < panel->width; ++lane) {
        begin[lane] = (int32_t)attni_clamp(panel->first_key[lane] - first_key, 0, count);
        end[lane] = (int32_t)attni_clamp(panel->past_key[lane] - first_key, 0, count);
    }
}

/* ---- results out ---- */

/* Weights of softmax are relative to the largest score, whose own is 1; a sigmoid may be 0 without
 * being excluded. A NaN stays in the sum. */
bool attni_fused_is_empty(const attni_fused_engine *engine, float max, float sum) {
    const bool is_sigmoid = engine->problem->normalizer == ATTN_NORMALIZER_SIGMOID;
    return sum == 0 && (!is_sigmoid || max == -(float)INFINITY);
}

static bool is_empty_lane(const attni_fused_item *item, const attni_panel *panel, int32_t lane) {
    return attni_fused_is_empty(item->engine, panel->state.max[lane], panel->state.sum[lane]);
}

/* The sink is one more logit in the denominator. Where it is larger than every score, the sums are
 * brought to its scale. */
static void finish_softmax(const attni_fused_item *item, attni_panel *panel, int32_t lane,
                           float *factor) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int32_t head_axis = problem->batch_rank;
    const double max = panel->state.max[lane];
    double top = max;
    double sum = panel->state.sum[lane];
    double share = 1;
    if (problem->sinks.is_present) {
        const double sink = attni_read_real(problem->sinks.data,
                                            panel->head[lane] * problem->sinks.strides[head_axis],
                                            problem->sinks.dtype);
        top = sink <= max ? max : sink;
        share = max == top || sum == 0 ? 1 : exp(max - top);
        sum = sum * share + (top == -(double)INFINITY ? 0 : exp(sink - top));
    }
    *factor = panel->state.sum[lane] == 0 ? 0 : (float)(share / sum);
    if (problem->lse.is_present) {
        const int64_t offset = attni_fused_offset(item, problem->lse.strides, panel->head[lane]) +
                               panel->row[lane] * problem->lse.strides[head_axis + 1];
        attni_write_real(problem->lse.data, offset, problem->lse.dtype,
                         (top == -(double)INFINITY ? 0 : top) + log(sum));
    }
}

void attni_fused_finish_panel(const attni_fused_item *item, attni_panel *panel, float *factor) {
    const bool is_softmax = item->engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX;
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        factor[lane] = is_empty_lane(item, panel, lane) ? 0 : 1;
        if (is_softmax && lane < panel->count) {
            finish_softmax(item, panel, lane, &factor[lane]);
        }
    }
}

void attni_fused_store_output(const attni_fused_item *item, const attni_panel *panel, float *sums,
                              bool is_staged) {
    const attni_fused_plan *plan = item->engine->plan;
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t *strides = &problem->output.strides[problem->batch_rank];
    const int64_t first = attni_fused_offset(item, problem->output.strides, 0);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const bool is_empty = is_empty_lane(item, panel, lane);
        if (!is_empty && !is_staged) {
            continue;
        }
        float *row = sums + lane * plan->sum_stride;
        if (is_empty) {
            memset(row, 0, (size_t)problem->value_dim * sizeof(float));
        }
        const int64_t offset =
            first + panel->head[lane] * strides[0] + panel->row[lane] * strides[1];
        item->engine->output_storage->narrow(
            attni_advance(problem->output.data, offset * problem->output.element_bytes), strides[2],
            row, problem->value_dim);
    }
}
