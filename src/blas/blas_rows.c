/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_rows.c: one row of the BLAS engine: its scores are finished and normalised, and what
 * the caller asked for is stored. Rows of a block are independent and may run on different threads.
 */
#include "blas/blas_rows.h"

#include <string.h>

#include "blas/blas_matrices.h"
#include "problem/block_mask.h"
#include "problem/dropout_place.h"
#include "problem/mask_rows.h"
#include "softmax/row_weights.h"

static double head_option(const attni_blas_engine *engine, const attni_operand *operand) {
    const int64_t offset = engine->head * operand->strides[engine->problem->batch_rank];
    return attni_read_real(operand->data, offset, operand->dtype);
}

/* Where the weights of a head are written: to the output, or averages to their sums. */
static attni_matrix weights_matrix(const attni_blas_engine *engine, int64_t head) {
    if (engine->averages != NULL) {
        return (attni_matrix){
            .data = engine->averages, .row_stride = engine->plan->score_cols, .col_stride = 1};
    }
    return attni_operand_matrix(engine, &engine->problem->weights, head);
}

void attni_store_averages(const attni_blas_engine *engine) {
    const attni_sdpa_problem *problem = engine->problem;
    attni_narrow_rows(engine, &problem->weights, attni_operand_matrix(engine, &problem->weights, 0),
                      problem->tgt_len, engine->plan->score_cols, engine->averages);
}

/* to += share * weights. Averages that lie apart are gathered for it, so that one kernel rounds
 * the sum in every layout. */
static void add_share(const attni_blas_engine *engine, attni_matrix to, const char *weights,
                      int64_t count) {
    enum { GATHERED = 64 };
    double gathered[GATHERED];
    const double share = 1.0 / (double)engine->problem->num_heads;
    if (to.col_stride == 1) {
        engine->kernels->accumulate(to.data, weights, 1, count, share);
        return;
    }
    for (int64_t first = 0; first < count; first += GATHERED) {
        const int64_t cols = attni_min(GATHERED, count - first);
        const attni_matrix apart = attni_moved(engine, to, first * to.col_stride);
        const attni_strided_matrix dense = {(char *)gathered, cols, 1};
        attni_copy_matrix(dense, attni_matrix_layout(&apart), 1, cols, (size_t)engine->element);
        engine->kernels->accumulate(gathered, weights + first * engine->element, 1, cols, share);
        attni_copy_matrix(attni_matrix_layout(&apart), dense, 1, cols, (size_t)engine->element);
    }
}

/* Weights go to columns [first_col, first_col + count) of row `row` of the weights output. */
static void write_weights(const attni_blas_engine *engine, int64_t row, int64_t first_col,
                          const char *weights, int64_t count) {
    const attni_sdpa_problem *problem = engine->problem;
    attni_matrix target = weights_matrix(engine, engine->head);
    const int64_t bytes =
        engine->averages != NULL ? engine->element : problem->weights.element_bytes;
    target.data = attni_advance(target.data,
                                (row * target.row_stride + first_col * target.col_stride) * bytes);
    if (problem->average_weights) {
        add_share(engine, target, weights, count);
        return;
    }
    attni_narrow_rows(engine, &problem->weights, target, 1, count, weights);
}

/* No product has written what a row does not see through the block mask. */
static void clear_hidden(const attni_blas_engine *engine, int64_t row, attni_interval keys,
                         char *scores) {
    attni_interval left = keys;
    while (left.begin < left.end) {
        const attni_block_stretch stretch =
            attni_block_stretch_of(engine->problem, engine->batch, engine->head, row, left);
        if (stretch.block == ATTN_BLOCK_HIDDEN) {
            memset(scores + (left.begin - keys.begin) * engine->element, 0,
                   (size_t)((stretch.keys.end - left.begin) * engine->element));
        }
        left.begin = stretch.keys.end;
    }
}

/* Scale 0, softcap, ALiBi and masks, in this order; the extra columns take part in the first two.
 */
static void finish_scores(const attni_blas_engine *engine, int64_t row, attni_interval keys,
                          const attni_row *scores) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_row_kernels *kernels = engine->kernels;
    const int64_t count = scores->keys.count;
    clear_hidden(engine, row, keys, scores->keys.scores);
    if (problem->scale == 0) {
        kernels->scale(scores->keys.scores, count, 0);
        kernels->scale(scores->extra.scores, scores->extra.count, 0);
    }
    if (problem->softcap != 0) {
        kernels->softcap(scores->keys.scores, count, problem->softcap);
        kernels->softcap(scores->extra.scores, scores->extra.count, problem->softcap);
    }
    if (problem->alibi_slopes.is_present) {
        const int64_t distance = attni_saturating_add(
            attni_row_position(&engine->sequence.visibility, row), -keys.begin);
        kernels->alibi(scores->keys.scores, count, head_option(engine, &problem->alibi_slopes),
                       (double)distance);
    }
    if (count > 0) {
        attni_apply_masks(problem, &engine->sequence, engine->head, row, keys, kernels,
                          scores->keys.scores, attni_excluded_score(problem->normalizer));
    }
}

static void drop(const attni_blas_engine *engine, int64_t row, int64_t column,
                 const attni_stretch *weights) {
    const attni_dropout_place place =
        attni_dropout_place_of(engine->problem, engine->batch, engine->head, row);
    engine->kernels->drop(weights->scores, weights->count, place.column + column, place.row,
                          place.head, &place.stream);
}

void attni_weigh_row(const attni_blas_engine *engine, int64_t index) {
    const attni_sdpa_problem *problem = engine->problem;
    const int64_t row = engine->first_row + index;
    const attni_interval keys = attni_row_interval(&engine->sequence.visibility, row);
    const int64_t first_col = keys.begin < keys.end ? keys.begin - engine->block_keys.begin : 0;
    const attni_row scores = {
        .keys = {attni_scores_at(engine, index, first_col), keys.end - keys.begin},
        .extra = {attni_scores_at(engine, index, attni_block_cols(engine)), problem->extra_cols},
    };
    finish_scores(engine, row, keys, &scores);
    double sink = 0;
    const bool has_sink = problem->sinks.is_present;
    if (has_sink) {
        sink = head_option(engine, &problem->sinks);
    }
    const attni_row_result result =
        attni_normalize_row(engine->kernels, problem->normalizer, &scores, has_sink ? &sink : NULL);
    engine->empty[index] = result.is_empty;
    if (problem->dropout.is_present) {
        drop(engine, row, keys.begin, &scores.keys);
        drop(engine, row, problem->src_len, &scores.extra);
    }
    if (problem->lse.is_present) {
        const int64_t offset =
            attni_head_offset(problem, problem->lse.strides, engine->batch, engine->head) +
            row * problem->lse.strides[problem->batch_rank + 1];
        attni_write_real(problem->lse.data, offset, problem->lse.dtype, result.lse);
    }
    if (problem->weights.is_present) {
        write_weights(engine, row, keys.begin, scores.keys.scores, scores.keys.count);
        write_weights(engine, row, problem->src_len, scores.extra.scores, scores.extra.count);
    }
}

void attni_clear_weights(const attni_blas_engine *engine, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_operand *operand = &problem->weights;
    const int64_t cols = problem->src_len + problem->extra_cols;
    if (engine->averages != NULL) {
        memset(engine->averages, 0, (size_t)(problem->tgt_len * cols * engine->element));
        return;
    }
    const attni_matrix weights = attni_operand_matrix(engine, operand, head);
    for (int64_t row = 0; row < problem->tgt_len && cols > 0; ++row) {
        const attni_matrix target = attni_stored_rows(operand, weights, row);
        if (weights.col_stride == 1) {
            memset(target.data, 0, (size_t)(cols * operand->element_bytes));
            continue;
        }
        for (int64_t col = 0; col < cols; ++col) {
            attni_write_real(target.data, col * weights.col_stride, operand->dtype, 0);
        }
    }
}
