/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fused_rows.c: the steps of a tile for a few query rows, as when a model decodes: keys and values
 * stream by, and options are applied row by row. Row r of a tile is at tile + r * tile_stride.
 */
#include "fused/fused_rows.h"

#include <string.h>

#include "fused/fused_item.h"
#include "fused/fused_panel.h"
#include "fused/fused_values.h"
#include "problem/dropout_place.h"
#include "problem/mask_rows.h"
#include "problem/quantized_rows.h"
#include "softmax/row_weights.h"

static int64_t tile_stride(const attni_fused_item *item) {
    return item->engine->plan->tile_keys + item->engine->problem->extra_cols;
}

/* A row's elements of a part of the tile. */
static float *row_of(const attni_fused_item *item, const attni_tile_keys *keys, int32_t row) {
    return item->tile + row * tile_stride(item) + keys->first;
}

/* Rows of keys from source key `key` on. */
static attni_stream_rows keys_from(const attni_fused_item *item, int64_t key) {
    const bool is_listed = item->key_list != NULL;
    return (attni_stream_rows){
        .list = is_listed ? item->key_list + (key - item->block.begin) : NULL,
        .first = is_listed ? NULL : attni_fused_key_at(item, key),
        .stride = item->key_stride,
    };
}

static attni_stream_rows values_from(const attni_fused_item *item, int64_t key) {
    const bool is_listed = item->value_list != NULL;
    return (attni_stream_rows){
        .list = is_listed ? item->value_list + (key - item->block.begin) : NULL,
        .first = is_listed ? NULL : attni_fused_value_at(item, key),
        .stride = item->value_key_stride,
    };
}

enum { SCALES_AT_ONCE = 256 };

/* attni_lay_out_key_scales or attni_lay_out_value_scales. */
typedef void scales_source(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                           int64_t head, int64_t first, int64_t count, float *to);

/* tile[row][j] *= the scale of key first + j, or of its value, for j < count. */
static void fold_scales(const attni_fused_item *item, const attni_panel *panel,
                        scales_source *source, int64_t first, int64_t count, float *tile) {
    float scales[SCALES_AT_ONCE];
    for (int64_t done = 0; done < count; done += SCALES_AT_ONCE) {
        const int64_t part = attni_min(SCALES_AT_ONCE, count - done);
        source(item->engine->problem, &item->sequence, item->first_head, first + done, part,
               scales);
        for (int32_t lane = 0; lane < panel->count; ++lane) {
            float *row = tile + lane * tile_stride(item) + done;
            for (int64_t j = 0; j < part; ++j) {
                row[j] *= scales[j];
            }
        }
    }
}

static void score_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys) {
    const attni_stream_kernels *streams = item->engine->key_streams;
    const int64_t head_dim = item->engine->problem->head_dim;
    float *tile = row_of(item, keys, 0);
    const attni_stream_rows source = keys_from(item, keys->keys.begin);
    streams->score(tile, tile_stride(item), panel->count, panel->queries, head_dim, &source,
                   keys->count);
    if (item->engine->plan->folds_key_scales &&
        item->engine->problem->key_quantization.scale.dtype != 0) {
        fold_scales(item, panel, attni_lay_out_key_scales, keys->keys.begin, keys->count, tile);
    }
    if (keys->extra > 0) {
        const attni_stream_rows extra = {NULL, item->extra_key, item->extra_key_stride};
        item->engine->float32_streams->score(tile + keys->count, tile_stride(item), panel->count,
                                             panel->queries, head_dim, &extra, keys->extra);
    }
}

/* Where some mask may change a score of a part. */
static attni_interval changed_keys(const attni_tile_keys *keys) {
    attni_interval changed = {keys->keys.end, keys->keys.begin};
    if (!keys->are_shown) {
        return keys->keys;
    }
    for (int32_t i = 0; i < ATTNI_MAX_MASKS && keys->changed != NULL; ++i) {
        if (keys->changed[i].begin < keys->changed[i].end) {
            changed.begin = attni_min(changed.begin, keys->changed[i].begin);
            changed.end = attni_max(changed.end, keys->changed[i].end);
        }
    }
    changed.begin = attni_max(changed.begin, keys->keys.begin);
    changed.end = attni_min(changed.end, keys->keys.end);
    return changed;
}

static void apply_masks(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys, attni_interval changed, int32_t lane,
                        double excluded) {
    attni_apply_masks(item->engine->problem, &item->sequence, panel->head[lane], panel->row[lane],
                      changed, item->engine->kernels->float32,
                      row_of(item, keys, lane) + changed.begin - keys->keys.begin, excluded);
}

static void apply_alibi(const attni_fused_item *item, const attni_panel *panel,
                        const attni_tile_keys *keys, int32_t lane) {
    const attni_operand *option = &item->engine->problem->alibi_slopes;
    const int64_t stride = option->strides[item->engine->problem->batch_rank];
    const int64_t position = attni_row_position(&item->sequence.visibility, panel->row[lane]);
    item->engine->kernels->float32->alibi(
        row_of(item, keys, lane), keys->count,
        attni_read_real(option->data, panel->head[lane] * stride, option->dtype),
        (double)attni_saturating_add(position, -keys->keys.begin));
}

static void clip_row(float *row, int64_t count, int32_t begin, int32_t end, float excluded) {
    for (int64_t j = 0; j < attni_min(begin, count); ++j) {
        row[j] = excluded;
    }
    for (int64_t j = attni_max(begin, end); j < count; ++j) {
        row[j] = excluded;
    }
}

static void edit_tile(const attni_fused_item *item, attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const double excluded = attni_excluded_score(problem->normalizer);
    const attni_interval changed = changed_keys(keys);
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    attni_fused_bound_rows(panel, keys->keys.begin, keys->count, begin, end);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        float *row = row_of(item, keys, lane);
        if (problem->softcap != 0) {
            item->engine->kernels->float32->softcap(row, keys->count + keys->extra,
                                                    problem->softcap);
        }
        if (problem->alibi_slopes.is_present) {
            apply_alibi(item, panel, keys, lane);
        }
        if (changed.begin < changed.end) {
            apply_masks(item, panel, keys, changed, lane, excluded);
        }
        clip_row(row, keys->count, begin[lane], end[lane], (float)excluded);
    }
}

static float sum_of_magnitudes(const float *row, int64_t count) {
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) {
        sum += row[j] < 0 ? -row[j] : row[j];
    }
    return sum;
}

static void find_weights(const attni_fused_item *item, attni_panel *panel,
                         const attni_panel_tile *tile) {
    const attni_fused_engine *engine = item->engine;
    const int64_t count = tile->count + tile->extra;
    if (engine->problem->normalizer == ATTN_NORMALIZER_SOFTMAX) {
        engine->key_streams->exponentiate(item->tile, tile_stride(item), panel->count, count,
                                          &panel->state);
        return;
    }
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        float *row = item->tile + lane * tile_stride(item);
        if (engine->problem->normalizer == ATTN_NORMALIZER_SIGMOID) {
            const float largest = (float)engine->kernels->float32->max(row, count);
            float *max = &panel->state.max[lane];
            *max = largest > *max ? largest : *max;
            engine->kernels->float32->sigmoid(row, count);
        }
        panel->state.sum[lane] += sum_of_magnitudes(row, count);
    }
}

/* Dropout of a part's weights, row by row. */
static void drop_part(const attni_fused_item *item, const attni_panel *panel,
                      const attni_tile_keys *keys) {
    const attni_sdpa_problem *problem = item->engine->problem;
    const attni_row_kernels *kernels = item->engine->kernels->float32;
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const attni_dropout_place place =
            attni_dropout_place_of(problem, item->batch, panel->head[lane], panel->row[lane]);
        float *row = row_of(item, keys, lane);
        kernels->drop(row, keys->count, place.column + keys->keys.begin, place.row, place.head,
                      &place.stream);
        kernels->drop(row + keys->count, keys->extra, place.column + problem->src_len, place.row,
                      place.head, &place.stream);
    }
}

/* What is dropped still counts in a row's sum. */
static void normalize_tile(const attni_fused_item *item, attni_panel *panel,
                           const attni_panel_tile *tile) {
    find_weights(item, panel, tile);
    for (int64_t i = 0; i < tile->num_parts && item->engine->problem->dropout.is_present; ++i) {
        drop_part(item, panel, &tile->parts[i]);
    }
}

/* Rows of values that all rows of the panel see whole. */
static void weigh_common(const attni_fused_item *item, attni_panel *panel,
                         const attni_stream_kernels *streams, const float *tile,
                         attni_stream_rows values, int64_t count, const float *rescale) {
    const attni_fused_engine *engine = item->engine;
    streams->weigh(panel->sums, engine->plan->sum_stride, rescale, tile, tile_stride(item),
                   panel->count, &values, count, engine->problem->value_dim);
}

static void weigh_tile(attni_fused_item *item, attni_panel *panel, const attni_tile_keys *keys,
                       const float *factor) {
    const attni_fused_engine *engine = item->engine;
    const int64_t sum_stride = engine->plan->sum_stride;
    const attni_interval common = attni_fused_common_keys(panel, keys);
    const int64_t skipped = common.begin < common.end ? common.begin - keys->keys.begin : 0;
    float *tile = row_of(item, keys, 0);
    if (!panel->is_started) {
        memset(panel->sums, 0, (size_t)(panel->count * sum_stride) * sizeof(float));
        panel->is_started = true;
    }
    if (engine->plan->folds_value_scales && engine->problem->value_quantization.scale.dtype != 0) {
        /* Nobody reads these weights again. */
        fold_scales(item, panel, attni_lay_out_value_scales, keys->keys.begin + skipped,
                    common.end - common.begin, tile + skipped);
    }
    weigh_common(item, panel, engine->value_streams, tile + skipped,
                 values_from(item, keys->keys.begin + skipped), common.end - common.begin,
                 keys->number == 0 ? panel->state.rescale : attni_fused_ones);
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        attni_fused_add_own_values(item, panel, keys, attni_fused_keys_before(keys, common), lane,
                                   item->tile + lane * tile_stride(item), 1);
        attni_fused_add_own_values(item, panel, keys, attni_fused_keys_behind(keys, common), lane,
                                   item->tile + lane * tile_stride(item), 1);
    }
    if (keys->extra > 0) {
        const attni_stream_rows extra = {NULL, item->extra_value, item->extra_value_key_stride};
        weigh_common(item, panel, engine->float32_streams, tile + keys->count, extra, keys->extra,
                     attni_fused_ones);
    }
    for (int32_t lane = 0; factor != NULL && lane < panel->count; ++lane) {
        engine->kernels->float32->scale(panel->sums + lane * sum_stride, engine->problem->value_dim,
                                        factor[lane]);
    }
}

static void store_weights(const attni_fused_item *item, const attni_panel *panel,
                          float *const *rows, int64_t first, int64_t count, const float *factor,
                          bool is_added) {
    const attni_row_kernels *kernels = item->engine->kernels->float32;
    for (int32_t lane = 0; lane < panel->count; ++lane) {
        const float *weights = item->tile + lane * tile_stride(item) + first;
        if (!is_added) {
            memset(rows[lane], 0, (size_t)count * sizeof(float));
        }
        kernels->accumulate(rows[lane], weights, 1, count, factor[lane]);
    }
}

const attni_tile_steps attni_steps_by_rows = {
    .score = score_tile,
    .edit = edit_tile,
    .normalize = normalize_tile,
    .weigh = weigh_tile,
    .store_weights = store_weights,
};
