/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_weights.c: the weights output of the fused engine, tile by tile.
 */
#include "fused/fused_weights.h"

#include <math.h>
#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "problem/block_mask.h"

static char *weights_row(const attni_fused_item *item, const attni_panel *panel, int32_t lane) {
    const attni_operand *weights = &item->engine->problem->weights;
    const int64_t *strides = &weights->strides[item->engine->problem->batch_rank];
    const int64_t offset = attni_fused_offset(item, weights->strides, panel->head[lane]) +
                           panel->row[lane] * strides[1];
    return attni_advance(weights->data, offset * weights->element_bytes);
}

static void clear_columns(const attni_operand *weights, char *row, int64_t stride, int64_t begin,
                          int64_t end) {
    for (int64_t col = begin; col < end; ++col) {
        attni_write_real(row, col * stride, weights->dtype, 0);
    }
}

static int64_t num_columns(const attni_fused_item *item) {
    return item->engine->problem->src_len + item->engine->problem->extra_cols;
}

/* Row `row` of a block's averages in the output, and its columns' stride. */
static char *averages_row(const attni_fused_item *item, int64_t row, int64_t *stride) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t *strides = &problem->weights.strides[problem->batch_rank];
    const int64_t offset = attni_fused_offset(item, problem->weights.strides, 0) + row * strides[1];
    *stride = strides[2];
    return attni_advance(problem->weights.data, offset * problem->weights.element_bytes);
}

void attni_fused_clear_averages(const attni_fused_item *item, int64_t block) {
    const attni_interval rows = attni_fused_block_rows(item->engine, block);
    if (item->engine->plan->sums_averages) {
        memset(item->averages, 0,
               (size_t)((rows.end - rows.begin) * num_columns(item)) * sizeof(float));
        return;
    }
    for (int64_t row = rows.begin; row < rows.end; ++row) {
        int64_t stride;
        char *to = averages_row(item, row, &stride);
        clear_columns(&item->engine->problem->weights, to, stride, 0, num_columns(item));
    }
}

void attni_fused_store_averages(const attni_fused_item *item, int64_t block) {
    const attni_interval rows = attni_fused_block_rows(item->engine, block);
    for (int64_t row = rows.begin; item->engine->plan->sums_averages && row < rows.end; ++row) {
        int64_t stride;
        char *to = averages_row(item, row, &stride);
        item->engine->weights_storage->narrow(
            to, stride, item->averages + (row - rows.begin) * num_columns(item), num_columns(item));
    }
}

/* Positions that the panel's tile does not have weigh 0. */
static void clear_unseen(const attni_fused_item *item, const attni_panel *panel,
                         const attni_panel_tile *tile) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const int64_t stride = problem->weights.strides[problem->batch_rank + 2];
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        char *row = weights_row(item, panel, lane);
        int64_t begin = 0;
        for (int64_t i = 0; i < tile->num_parts; ++i) {
            const attni_interval keys = tile->parts[i].keys;
            clear_columns(&problem->weights, row, stride, begin, keys.begin);
            begin = keys.end;
        }
        clear_columns(&problem->weights, row, stride, begin, problem->src_len);
    }
}

/* Columns [first_col, first_col + count) of the sums of averages, from the tile's rows from `first`
 * on. A block's rows are query rows, since heads are no group where weights are averaged. */
static void add_to_averages(const attni_fused_item *item, const attni_panel *panel, int64_t first,
                            int64_t count, int64_t first_col, const float *factor) {
    float *rows[ATTNI_PANEL_LANES] = {0};
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const int64_t row = panel->row[lane] - item->panels[0].row[0];
        rows[lane] = item->averages + row * num_columns(item) + first_col;
    }
    item->engine->steps->store_weights(item, panel, rows, first, count, factor, true);
}

/* Columns [first_col, first_col + count) of the weights output from the tile's rows from `first`
 * on. Where columns lie apart or are not float32 the rows are staged, and averages before they are
 * added to, so that sums are rounded alike in every layout. */
static void store_columns(const attni_fused_item *item, const attni_panel *panel, int64_t first,
                          int64_t count, int64_t first_col, const float *factor) {
    const attni_fused_engine *engine = item->engine;
    const attni_operand *weights = &engine->problem->weights;
    const bool is_added = engine->problem->average_weights;
    const int64_t stride = weights->strides[engine->problem->batch_rank + 2];
    const bool is_staged = engine->plan->stages_weights;
    const int32_t num_rows = panel->count; /* which steps leave as it is */
    char *targets[ATTNI_PANEL_LANES];
    float *rows[ATTNI_PANEL_LANES] = {0};
    if (engine->plan->sums_averages) {
        add_to_averages(item, panel, first, count, first_col, factor);
        return;
    }
    for (int32_t lane = 0; lane < num_rows; ++lane) {
        targets[lane] = attni_advance(weights_row(item, panel, lane),
                                      first_col * stride * weights->element_bytes);
        rows[lane] = attni_floats_to(is_staged ? item->staging : targets[lane],
                                     is_staged ? lane * count : 0);
        if (is_staged && is_added) {
            engine->weights_storage->widen(rows[lane], targets[lane], stride, count);
        }
    }
    engine->steps->store_weights(item, panel, rows, first, count, factor, is_added);
    for (int32_t lane = 0; is_staged && lane < num_rows; ++lane) {
        engine->weights_storage->narrow(targets[lane], stride, rows[lane], count);
    }
}

/* Multiplies the weights of a part's keys that a row sees. */
static void scale_visible(const attni_fused_item *item, const attni_panel *panel,
                          const attni_tile_keys *keys, int32_t lane, float *weights, int64_t stride,
                          float factor) {
    attni_interval left = {attni_max(keys->keys.begin, panel->first_key[lane]),
                           attni_min(keys->keys.end, panel->past_key[lane])};
    while (left.begin < left.end) {
        const attni_block_stretch stretch = attni_block_stretch_of(
            item->engine->problem, item->batch, panel->head[lane], panel->row[lane], left);
        for (int64_t key = left.begin; key < stretch.keys.end; ++key) {
            weights[(keys->first + key - keys->keys.begin) * stride] *=
                stretch.block != ATTN_BLOCK_HIDDEN ? factor : 1;
        }
        left.begin = stretch.keys.end;
    }
}

/* A row of NaN has a factor of NaN, which would make NaN of the weights 0 of positions that the row
 * does not see. Its visible weights become NaN here, and the factor 1. */
static void spoil_row(const attni_fused_item *item, const attni_panel *panel,
                      const attni_panel_tile *tile, int32_t lane, float *factor) {
    const bool by_rows = item->engine->plan->by_rows;
    const int64_t tile_stride = item->engine->plan->tile_keys + item->engine->problem->extra_cols;
    float *weights = item->tile + (by_rows ? lane * tile_stride : lane);
    const int64_t stride = by_rows ? 1 : panel->width;
    for (int64_t i = 0; i < tile->num_parts; ++i) {
        scale_visible(item, panel, &tile->parts[i], lane, weights, stride, *factor);
    }
    for (int64_t j = tile->count; j < tile->count + tile->extra; ++j) {
        weights[j * stride] *= *factor;
    }
    *factor = 1;
}

void attni_fused_store_weights(const attni_fused_item *item, const attni_panel *panel,
                               const attni_panel_tile *tile, float *factor) {
    const attni_sdpa_problem *problem = item->engine->problem;
    float shares[ATTNI_PANEL_LANES];
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        if (isnan(factor[lane])) {
            spoil_row(item, panel, tile, lane, &factor[lane]);
        }
    }
    for (int32_t lane = 0; lane < panel->width; ++lane) {
        shares[lane] =
            problem->average_weights ? factor[lane] / (float)problem->num_heads : factor[lane];
    }
    if (!problem->average_weights) {
        clear_unseen(item, panel, tile);
    }
    for (int64_t i = 0; i < tile->num_parts; ++i) {
        const attni_tile_keys *keys = &tile->parts[i];
        store_columns(item, panel, keys->first, keys->count, keys->keys.begin, shares);
    }
    store_columns(item, panel, tile->count, tile->extra, problem->src_len, shares);
}
