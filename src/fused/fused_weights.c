/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_weights.c: the weights output of the fused engine, tile by tile.
 */
#include "fused/fused_weights.h"

#include <math.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "tensor/strided_copy.h"

static char *weights_row(const attni_fused_item *item, const attni_panel *panel, int32_t lane) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t *strides = &problem->weights.strides[problem->batch_rank];
    const int64_t offset = attni_fused_offset(item, problem->weights.strides, panel->head[lane]) +
                           panel->row[lane] * strides[1];
    return attni_advance(problem->weights.data, offset * (int64_t)sizeof(float));
}

static void clear_columns(char *row, int64_t stride, int64_t begin, int64_t end) {
    for (int64_t col = begin; col < end; ++col) {
        attni_write_real(row, col * stride, ATTN_DTYPE_FLOAT32, 0);
    }
}

void attni_fused_clear_averages(const attni_fused_item *item, int64_t block) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t *strides = &problem->weights.strides[problem->batch_rank];
    const int64_t first = attni_fused_offset(item, problem->weights.strides, 0);
    const attni_interval rows = attni_fused_block_rows(item->engine, block);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
        clear_columns(attni_advance(problem->weights.data,
                                    (first + row * strides[1]) * (int64_t)sizeof(float)),
                      strides[2], 0, problem->src_len + problem->extra_cols);
    }
}

/* Positions outside the panel's interval weigh 0. */
static void clear_unseen(const attni_fused_item *item, const attni_panel *panel) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t stride = problem->weights.strides[problem->batch_rank + 2];
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        char *row = weights_row(item, panel, lane);
        clear_columns(row, stride, 0, panel->seen.begin);
        clear_columns(row, stride, panel->seen.end, problem->src_len);
    }
}

static attni_strided_matrix columns_of(char *first, int64_t stride) {
    return (attni_strided_matrix){first, 0, stride};
}

/* Columns [first_col, first_col + count) of the weights output from the tile's rows from `first`
 * on. Where columns lie apart the rows are staged, and averages before they are added to, so that
 * sums are rounded alike in every layout. */
static void store_columns(const attni_fused_item *item, const attni_panel *panel, int64_t first,
                          int64_t count, int64_t first_col, const float *factor) {
    const attni_fused_engine *engine = item->engine;
    const bool is_added = engine->problem->average_weights;
    const int64_t stride = engine->problem->weights.strides[engine->problem->batch_rank + 2];
    const int32_t num_rows = panel->count;
    attni_strided_matrix targets[ATTNI_PANEL_LANES];
    float *rows[ATTNI_PANEL_LANES] = {0};
    const bool is_staged = engine->plan->stages_weights;
    for (int32_t lane = 0; lane < num_rows; ++lane) {
        char *target = attni_advance(weights_row(item, panel, lane),
                                     first_col * stride * (int64_t)sizeof(float));
        targets[lane] = columns_of(target, stride);
        rows[lane] =
            is_staged ? attni_floats_to(item->staging, lane * count) : attni_floats_to(target, 0);
        if (is_staged && is_added) {
            attni_copy_matrix(columns_of((char *)rows[lane], 1), targets[lane], 1, count,
                              sizeof(float));
        }
    }
    engine->steps->store_weights(item, panel, rows, first, count, factor, is_added);
    for (int32_t lane = 0; is_staged && lane < num_rows; ++lane) {
        attni_copy_matrix(targets[lane], columns_of((char *)rows[lane], 1), 1, count,
                          sizeof(float));
    }
}

/* A row of NaN has a factor of NaN, which would make NaN of the weights 0 of positions that the row
 * does not see. Its visible weights become NaN here, and the factor 1. */
static void spoil_row(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys, int32_t lane, float *factor) {
    const bool by_rows = item->engine->plan->by_rows;
    const int64_t tile_stride = item->engine->plan->tile_keys + item->engine->problem->extra_cols;
    float *weights = item->tile + (by_rows ? lane * tile_stride : lane);
    const int64_t stride = by_rows ? 1 : panel->width;
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, keys->keys.begin, keys->count, begin, end);
    for (int64_t j = 0; j < keys->count + keys->extra; ++j) {
        if (j >= keys->count || (j >= begin[lane] && j < end[lane])) {
            weights[j * stride] *= *factor;
        }
    }
    *factor = 1;
}

void attni_fused_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               const attni_tile_keys *keys, float *factor) {
    const attni_sdpa_problem *problem = item->engine->problem;
    float shares[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        if (isnan(factor[lane])) {
            spoil_row(item, panel, keys, lane, &factor[lane]);
        }
    }
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        shares[lane] =
            problem->average_weights ? factor[lane] / (float)problem->num_heads : factor[lane];
    }
    if (!problem->average_weights) {
        clear_unseen(item, panel);
    }
    store_columns(item, panel, 0, keys->count, keys->keys.begin, shares);
    store_columns(item, panel, keys->count, keys->extra, problem->src_len, shares);
}
