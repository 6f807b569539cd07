/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_tile.c: two products, and a row at a time what options and the normalizer do between
 * them. A row's work is on the keys it sees; what is outside is 0 in both matrices.
 */
#include "gradients/gradients_tile.h"

#include <math.h>
#include <string.h>

#include "gemm/strips.h"
#include "gradients/gradients_blocks.h"
#include "gradients/gradients_masks.h"
#include "gradients/gradients_view.h"
#include "kernels/stored_rows.h"
#include "problem/block_mask.h"
#include "problem/dropout_place.h"
#include "problem/mask_rows.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

char *attni_gradients_at(const attni_gradients_item *item, char *matrix, int64_t row, int64_t key) {
    return matrix + (row * item->tile.stride + key) * item->engine->element;
}

/* tile = factor * rows times columns, in whole strips of what each band of rows sees */
static void multiply(const attni_gradients_item *item, char *tile, const attni_gradient_lines *rows,
                     const char *columns, int64_t depth, double factor) {
    const attni_gradients_engine *engine = item->engine;
    const int64_t width = engine->strip_cols;
    attni_product_block block = {
        .x_row_stride = rows->stride,
        .x_col_stride = 1,
        .y_row_stride = item->tile.stride,
        .y_col_stride = 1,
        .strip_stride = depth * width,
        .strip_step = width,
        .depth = depth,
        .factor = factor,
    };
    for (int64_t first = 0; first < item->rows.count; first += block.rows) {
        block.rows = attni_gradients_band(item, first, item->rows.count, ATTNI_BAND_ROWS);
        const attni_interval seen = attni_gradients_band_keys(item, first, block.rows);
        const int64_t begin = seen.begin / width * width;
        block.x = attni_advance(rows->data, first * rows->stride * engine->element);
        block.y = attni_gradients_at(item, tile, first, begin);
        block.strips = columns + begin * depth * engine->element;
        block.cols =
            attni_min(attni_strips_round_up(engine->dtype, seen.end), item->keys.count) - begin;
        engine->products->multiply(&block);
    }
}

static double head_option(const attni_sdpa_problem *call, const attni_operand *operand,
                          int64_t head) {
    return attni_read_real(operand->data, head * operand->strides[call->batch_rank],
                           operand->dtype);
}

/* ALiBi and masks of the keys that a row sees; distances are rounded from the first of them. */
static void mask_row(const attni_gradients_item *item, int64_t index, char *scores) {
    const attni_sdpa_problem *call = item->view.call;
    const attni_sequence *sequence = &item->view.sequence;
    const int64_t row = item->rows.first + index;
    const attni_interval seen = item->tile.seen[index];
    const attni_interval keys = {item->keys.keys.begin + seen.begin,
                                 item->keys.keys.begin + seen.end};
    if (call->alibi_slopes.is_present) {
        const int64_t position = attni_row_position(&sequence->visibility, row);
        item->engine->rows->alibi(scores, seen.end - seen.begin,
                                  head_option(call, &call->alibi_slopes, item->rows.head),
                                  (double)attni_saturating_add(position, -keys.begin));
    }
    attni_apply_masks(call, sequence, item->rows.head, row, keys, item->engine->rows, scores,
                      -(double)INFINITY);
}

static void clear_outside(const attni_gradients_item *item, char *matrix, int64_t index) {
    const attni_interval seen = item->tile.seen[index];
    const size_t element = (size_t)item->engine->element;
    memset(attni_gradients_at(item, matrix, index, 0), 0, (size_t)seen.begin * element);
    memset(attni_gradients_at(item, matrix, index, seen.end), 0,
           (size_t)(item->keys.count - seen.end) * element);
}

static bool overlaps(attni_interval a, attni_interval b) {
    return attni_max(a.begin, b.begin) < attni_min(a.end, b.end);
}

/* What a row sees; an empty row of softmax sees nothing. */
static void see_rows(attni_gradients_item *item) {
    const bool has_lse = item->view.call->normalizer == ATTN_NORMALIZER_SOFTMAX;
    attni_gradient_tile *tile = &item->tile;
    tile->is_ragged = attni_has_blocks(item->view.call);
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const int64_t row = item->rows.first + index;
        const bool is_empty = has_lse && item->rows.lse[index] == -(double)INFINITY;
        tile->seen[index] =
            is_empty ? (attni_interval){0, 0} : attni_gradients_seen_keys(item, row);
        tile->is_ragged =
            tile->is_ragged || tile->seen[index].end - tile->seen[index].begin < item->keys.count;
    }
}

int64_t attni_gradients_band(const attni_gradients_item *item, int64_t first, int64_t count,
                             int64_t size) {
    return attni_min(count - first, item->tile.is_ragged ? size : count);
}

attni_interval attni_gradients_band_keys(const attni_gradients_item *item, int64_t first,
                                         int64_t count) {
    attni_interval keys = {item->keys.count, 0};
    for (int64_t index = first; index < first + count; ++index) {
        const attni_interval seen = item->tile.seen[index];
        if (seen.begin < seen.end) {
            keys.begin = attni_min(keys.begin, seen.begin);
            keys.end = attni_max(keys.end, seen.end);
        }
    }
    return keys.begin < keys.end ? keys : (attni_interval){0, 0};
}

attni_interval attni_gradients_band_rows(const attni_gradients_item *item, attni_interval keys) {
    attni_interval rows = {0, item->rows.count};
    while (rows.begin < rows.end && !overlaps(item->tile.seen[rows.begin], keys)) {
        ++rows.begin;
    }
    while (rows.begin < rows.end && !overlaps(item->tile.seen[rows.end - 1], keys)) {
        --rows.end;
    }
    return rows;
}

static bool has_options(const attni_sdpa_problem *call) {
    bool has_masks = false;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        has_masks = has_masks || call->masks[i].kind != ATTN_MASK_NONE;
    }
    return has_masks || attni_has_blocks(call) || call->alibi_slopes.is_present;
}

/* A row's scores after options, and after softcap alone where they are kept. Returns whether a mask
 * leaves it a key, or a NaN, which hides nothing. */
static bool finish_scores(const attni_gradients_item *item, int64_t index, bool is_masked) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = item->view.call;
    const attni_interval seen = item->tile.seen[index];
    const int64_t count = seen.end - seen.begin;
    char *scores = attni_gradients_at(item, item->tile.weights, index, seen.begin);
    clear_outside(item, item->tile.weights, index);
    if (count == 0) {
        return false;
    }
    if (call->softcap != 0) {
        engine->rows->softcap(scores, count, call->softcap);
        memcpy(attni_gradients_at(item, item->tile.capped, index, seen.begin), scores,
               (size_t)(count * engine->element));
    }
    if (!is_masked) {
        return true;
    }
    mask_row(item, index, scores);
    return engine->rows->max(scores, count) > -(double)INFINITY ||
           engine->rows->has_nan(scores, count);
}

bool attni_gradients_score(attni_gradients_item *item) {
    const attni_sdpa_problem *call = item->view.call;
    const bool is_masked = has_options(call);
    bool sees_some = false;
    see_rows(item);
    multiply(item, item->tile.weights, &item->rows.query,
             item->slot + item->engine->plan->key_columns_offset, call->head_dim, call->scale);
    for (int64_t index = 0; index < item->rows.count; ++index) {
        sees_some |= finish_scores(item, index, is_masked);
    }
    return sees_some;
}

void attni_gradients_add_weights(const attni_gradients_item *item, int64_t index, char *row) {
    enum { COLS = 64 };
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *gradients = item->view.gradients;
    const attni_operand *weights = &gradients->weights;
    const attni_interval seen = item->tile.seen[index];
    const double share = gradients->average_weights ? 1 / (double)gradients->num_heads : 1;
    const attni_source_rows from = attni_operand_rows(
        gradients, weights, item->view.sequence.batch,
        gradients->average_weights ? 0 : item->rows.head, item->rows.first + index);
    double taken[COLS];
    for (int64_t first = seen.begin; first < seen.end; first += COLS) {
        const int64_t count = attni_min(COLS, seen.end - first);
        const int64_t offset = (item->keys.keys.begin + first) * from.col_stride;
        attni_take_row(engine->set, taken,
                       attni_advance(from.data, offset * weights->element_bytes), weights->dtype,
                       from.col_stride, count);
        engine->rows->accumulate(row + (first - seen.begin) * engine->element, taken, 1, count,
                                 share);
    }
}

static void normalize(const attni_gradients_item *item, int64_t index, double factor) {
    const attni_gradients_engine *engine = item->engine;
    const attni_interval seen = item->tile.seen[index];
    const int64_t count = seen.end - seen.begin;
    const int64_t row = item->rows.first + index;
    char *scores = attni_gradients_at(item, item->tile.weights, index, seen.begin);
    char *gradient = attni_gradients_at(item, item->tile.scores, index, seen.begin);
    switch (item->view.call->normalizer) {
    case ATTN_NORMALIZER_SOFTMAX:
        engine->kernels->softmax(scores, gradient, count, item->rows.lse[index],
                                 *attni_gradients_means(item, item->rows.head, row), factor);
        break;
    case ATTN_NORMALIZER_SIGMOID:
        engine->kernels->sigmoid(scores, gradient, count, factor);
        break;
    default:
        engine->kernels->linear(scores, gradient, count, factor);
        break;
    }
}

/* Where the row's first key that is seen is, to dropout. */
static attni_dropout_place place_of(const attni_gradients_item *item, int64_t index) {
    attni_dropout_place place = attni_dropout_place_of(item->view.call, item->view.sequence.batch,
                                                       item->rows.head, item->rows.first + index);
    place.column += item->keys.keys.begin + item->tile.seen[index].begin;
    return place;
}

void attni_gradients_drop(const attni_gradients_item *item, int64_t index, char *row) {
    const attni_interval seen = item->tile.seen[index];
    if (!item->view.call->dropout.is_present) {
        return;
    }
    const attni_dropout_place place = place_of(item, index);
    item->engine->rows->drop(row, seen.end - seen.begin, place.column, place.row, place.head,
                             &place.stream);
}

/* What dropout multiplies the row's weights and their gradient with, or NULL. */
static const char *find_kept(const attni_gradients_item *item, int64_t index) {
    const attni_interval seen = item->tile.seen[index];
    if (!item->view.call->dropout.is_present) {
        return NULL;
    }
    char *kept = item->slot + item->engine->plan->kept_offset;
    const attni_dropout_place place = place_of(item, index);
    item->engine->rows->keep(kept, seen.end - seen.begin, place.column, place.row, place.head,
                             &place.stream);
    return kept;
}

/* The gradient of a row's weights is there; that of its scores takes its place. */
static void finish_row(const attni_gradients_item *item, int64_t index,
                       attni_gradient_depth depth) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = item->view.call;
    const attni_interval seen = item->tile.seen[index];
    const int64_t count = seen.end - seen.begin;
    char *weights = attni_gradients_at(item, item->tile.weights, index, seen.begin);
    char *gradient = attni_gradients_at(item, item->tile.scores, index, seen.begin);
    clear_outside(item, item->tile.scores, index);
    if (seen.begin >= seen.end) {
        return;
    }
    if (item->view.gradients->weights.is_present) {
        attni_gradients_add_weights(item, index, gradient);
    }
    const char *kept = find_kept(item, index);
    if (kept != NULL) {
        engine->rows->multiply(gradient, kept, count);
    }
    const bool feeds_masks = depth == ATTNI_TO_PRODUCTS && engine->plan->has_masks_beside;
    normalize(item, index, depth == ATTNI_TO_PRODUCTS && !feeds_masks ? call->scale : 1);
    if (feeds_masks) {
        attni_gradients_add_to_masks(item, index, gradient);
        engine->rows->scale(gradient, count, call->scale);
    }
    if (kept != NULL && depth == ATTNI_TO_PRODUCTS) { /* options do not look at weights */
        engine->rows->multiply(weights, kept, count);
    }
    if (depth == ATTNI_TO_PRODUCTS && call->softcap != 0) {
        engine->kernels->softcap(gradient,
                                 attni_gradients_at(item, item->tile.capped, index, seen.begin),
                                 count, call->softcap);
    }
}

bool attni_gradients_compute(attni_gradients_item *item, attni_gradient_depth depth) {
    if (!attni_gradients_score(item)) {
        return false;
    }
    multiply(item, item->tile.scores, &item->rows.output,
             item->slot + item->engine->plan->value_columns_offset, item->view.call->value_dim, 1);
    for (int64_t index = 0; index < item->rows.count; ++index) {
        finish_row(item, index, depth);
    }
    return true;
}
