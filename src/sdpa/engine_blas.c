/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_blas.c: attention by matrix products, one block of query rows at a time:
 *
 *     scores  = scale * Q K^T      over the keys that some row of the block sees
 *     weights = normalise(scores)  row by row, over the keys that the row sees
 *     output  = weights * V        by a product over the keys that every row sees, and row by row over the others
 *
 * The last split is what keeps a value that a row must not see out of it: 0 * NaN is NaN, so a weight of 0 would not.
 *
 * BLAS is called by the calling thread only, never from inside a parallel region; rows are normalised on the context's threads.
 */
#include <string.h>

#include "gemm/gemm.h"
#include "sdpa/sdpa_problem.h"
#include "softmax/row_weights.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

enum {
    TASK_ROWS = 8,             /* rows normalised as one task; fixed, so that results cannot depend on the number of threads */
    PARALLEL_ELEMENTS = 32768  /* scores in a block that make waking the threads worthwhile */
};

/* The state of one call, from the outermost loop inwards. */
typedef struct blas_engine {
    attn_context *context;
    const attni_sdpa_problem *problem;
    const attni_sdpa_plan *plan;
    const attni_row_kernels *kernels;
    int64_t element; /* bytes */
    char *scores;
    unsigned char *empty;
    char *gemm_scratch;
    char *packed_key;
    char *packed_value;
    char *output_block;

    /* one batch and head */
    int64_t batch;
    int64_t head;
    attni_visibility visibility;
    attni_interval seen;      /* keys that some row sees */
    attni_matrix query;
    attni_matrix key;         /* row j is key seen.begin + j; extra columns' rows follow in extra_key */
    attni_matrix value;
    attni_matrix extra_key;
    attni_matrix extra_value;
    attni_matrix output;
    const char *key_packed_from; /* what packed_key holds a copy of, or NULL */
    const char *value_packed_from;

    /* one block of rows */
    int64_t first_row;
    int64_t num_rows;
    attni_interval block_keys; /* keys that some row of the block sees: the columns of its scores, the extra ones after them */
    char *block_output;        /* where rows of the block's output are added up */
    int64_t block_output_stride;
} blas_engine;

static int64_t operand_offset(const blas_engine *engine, const attni_operand *operand, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    return attni_offset_of(engine->batch, problem->batch_rank, problem->batch_shape, operand->strides) +
           head * operand->strides[problem->batch_rank];
}

/* A matrix moved on by some elements; that of an empty tensor has no address to move. */
static attni_matrix moved(const blas_engine *engine, attni_matrix matrix, int64_t elements) {
    if (matrix.data != NULL) {
        matrix.data += elements * engine->element;
    }
    return matrix;
}

static attni_matrix rows_from(const blas_engine *engine, attni_matrix matrix, int64_t row) {
    return moved(engine, matrix, row * matrix.row_stride);
}

static attni_matrix operand_matrix(const blas_engine *engine, const attni_operand *operand, int64_t head) {
    const int32_t row_axis = engine->problem->batch_rank + 1;
    const attni_matrix first = {
        .data = operand->data,
        .row_stride = operand->strides[row_axis],
        .col_stride = operand->strides[row_axis + 1],
    };
    return moved(engine, first, operand_offset(engine, operand, head));
}

static attni_strided_matrix layout_of(const attni_matrix *matrix) {
    return (attni_strided_matrix){matrix->data, matrix->row_stride, matrix->col_stride};
}

static double head_option(const blas_engine *engine, const attni_operand *operand) {
    const int64_t offset = engine->head * operand->strides[engine->problem->batch_rank];
    return attni_read_real(operand->data, offset, operand->dtype);
}

static int64_t batch_option(const blas_engine *engine, const attni_operand *operand, int64_t absent) {
    return operand->is_present ? attni_read_int64(operand->data, operand_offset(engine, operand, 0)) : absent;
}

/* Splits a (S + extra, cols) operand into the keys that are seen and the extra rows, copied if BLAS cannot read it. Heads that share
 * their keys share the copy. */
static void take_rows(const blas_engine *engine, attni_matrix source, int64_t cols, char *packed, const char **packed_from,
                      attni_matrix *rows, attni_matrix *extra) {
    const attni_sdpa_problem *problem = engine->problem;
    *rows = rows_from(engine, source, engine->seen.begin);
    *extra = rows_from(engine, source, problem->src_len);
    if (packed == NULL) {
        return;
    }
    const int64_t seen = engine->seen.end - engine->seen.begin;
    const attni_matrix dense = {.data = packed, .row_stride = cols, .col_stride = 1};
    const attni_matrix dense_extra = rows_from(engine, dense, seen);
    if (*packed_from != source.data) {
        attni_copy_matrix(layout_of(&dense), layout_of(rows), seen, cols, (size_t)engine->element);
        attni_copy_matrix(layout_of(&dense_extra), layout_of(extra), problem->extra_cols, cols, (size_t)engine->element);
        *packed_from = source.data;
    }
    *rows = dense;
    *extra = dense_extra;
}

static void start_batch(blas_engine *engine, int64_t batch) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->batch = batch;
    engine->visibility = (attni_visibility){
        .is_causal = problem->is_causal,
        .window_left = problem->window_left,
        .window_right = problem->window_right,
        .query_offset = batch_option(engine, &problem->query_offset, 0),
        .key_length = batch_option(engine, &problem->key_lengths, problem->src_len),
    };
    engine->seen = problem->tgt_len > 0 ? attni_rows_union(&engine->visibility, 0, problem->tgt_len) : (attni_interval){0, 0};
    engine->key_packed_from = NULL;
    engine->value_packed_from = NULL;
}

static void start_head(blas_engine *engine, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->head = head;
    engine->query = operand_matrix(engine, &problem->query, head);
    engine->output = operand_matrix(engine, &problem->output, head);
    take_rows(engine, operand_matrix(engine, &problem->key, head / problem->key_group), problem->head_dim, engine->packed_key,
              &engine->key_packed_from, &engine->key, &engine->extra_key);
    take_rows(engine, operand_matrix(engine, &problem->value, head / problem->value_group), problem->value_dim, engine->packed_value,
              &engine->value_packed_from, &engine->value, &engine->extra_value);
}

static int64_t block_cols(const blas_engine *engine) {
    return engine->block_keys.end - engine->block_keys.begin;
}

/* Scores of block row `row` for its first key or, past all keys, its extra columns. */
static char *scores_at(const blas_engine *engine, int64_t row, int64_t col) {
    return engine->scores + (row * engine->plan->score_cols + col) * engine->element;
}

static attni_matrix transposed(attni_matrix matrix) {
    return (attni_matrix){.data = matrix.data, .row_stride = matrix.col_stride, .col_stride = matrix.row_stride};
}

/* scores[:, first_col ...] = scale * Q K^T for `count` rows of `keys`. */
static void score_columns(const blas_engine *engine, attni_matrix keys, int64_t first_col, int64_t count) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_gemm_call call = {
        .backend = engine->plan->gemm,
        .dtype = problem->dtype,
        .batch = 1,
        .rows = engine->num_rows,
        .cols = count,
        .inner = problem->head_dim,
        .alpha = problem->scale == 0 ? 1 : problem->scale, /* BLAS takes alpha = 0 as "do not read", and would lose a NaN */
        .a = rows_from(engine, engine->query, engine->first_row),
        .b = transposed(keys),
        .c = {.data = scores_at(engine, 0, first_col), .row_stride = engine->plan->score_cols, .col_stride = 1},
    };
    attni_gemm_run(&call, engine->gemm_scratch);
}

/* Weights go to columns [first_col, first_col + count) of row `row` of the weights output. */
static void write_weights(const blas_engine *engine, int64_t row, int64_t first_col, const char *weights, int64_t count) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_matrix matrix = operand_matrix(engine, &problem->weights, engine->head);
    const attni_matrix target = moved(engine, matrix, row * matrix.row_stride + first_col * matrix.col_stride);
    if (!problem->average_weights) {
        const attni_strided_matrix from = {(char *)(uintptr_t)weights, 0, 1};
        attni_copy_matrix(layout_of(&target), from, 1, count, (size_t)engine->element);
        return;
    }
    const double share = 1.0 / (double)problem->num_heads;
    if (target.col_stride == 1) {
        engine->kernels->accumulate(target.data, weights, 1, count, share);
        return;
    }
    for (int64_t col = 0; col < count; ++col) {
        const int64_t offset = col * target.col_stride;
        const double sum = attni_read_real(target.data, offset, problem->dtype) + share * attni_read_real(weights, col, problem->dtype);
        attni_write_real(target.data, offset, problem->dtype, sum);
    }
}

/* The dense masks on the scores of one row's keys. A later additive mask must not bring back what an earlier one excluded. */
static void mask_scores(const blas_engine *engine, int64_t row, attni_interval keys, attni_stretch scores) {
    const attni_sdpa_problem *problem = engine->problem;
    const double excluded = attni_excluded_score(problem->normalizer);
    int64_t offsets[ATTNI_MAX_MASKS];
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        const attni_mask *mask = &problem->masks[i];
        const int64_t *strides = &mask->strides[problem->batch_rank];
        offsets[i] = attni_offset_of(engine->batch, problem->batch_rank, problem->batch_shape, mask->strides) +
                     engine->head * strides[0] + row * strides[1] + keys.begin * strides[2];
        if (mask->kind == ATTN_MASK_NONE) {
            continue;
        }
        attni_mask_apply(mask, offsets[i], strides[2], engine->kernels, scores.scores, scores.count, excluded);
        for (int32_t earlier = 0; earlier < i && mask->kind == ATTN_MASK_ADDITIVE; ++earlier) {
            const attni_mask *first = &problem->masks[earlier];
            if (first->kind != ATTN_MASK_NONE) {
                attni_mask_exclude(first, offsets[earlier], first->strides[problem->batch_rank + 2], engine->kernels, scores.scores,
                                   scores.count, excluded);
            }
        }
    }
}

/* Scale 0, softcap, ALiBi and masks, in this order; the extra columns take part in the first two. */
static void finish_scores(const blas_engine *engine, int64_t row, attni_interval keys, const attni_row *scores) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_row_kernels *kernels = engine->kernels;
    const int64_t count = scores->keys.count;
    if (problem->scale == 0) {
        kernels->scale(scores->keys.scores, count, 0);
        kernels->scale(scores->extra.scores, scores->extra.count, 0);
    }
    if (problem->softcap != 0) {
        kernels->softcap(scores->keys.scores, count, problem->softcap);
        kernels->softcap(scores->extra.scores, scores->extra.count, problem->softcap);
    }
    if (problem->alibi_slopes.is_present) {
        const int64_t distance = attni_saturating_add(attni_row_position(&engine->visibility, row), -keys.begin);
        kernels->alibi(scores->keys.scores, count, head_option(engine, &problem->alibi_slopes), (double)distance);
    }
    mask_scores(engine, row, keys, scores->keys);
}

/* Turns row `index` of the block from scores into weights and hands out what the caller asked for. */
static void weigh_row(const blas_engine *engine, int64_t index) {
    const attni_sdpa_problem *problem = engine->problem;
    const int64_t row = engine->first_row + index;
    const attni_interval keys = attni_row_interval(&engine->visibility, row);
    const int64_t first_col = keys.begin < keys.end ? keys.begin - engine->block_keys.begin : 0;
    const attni_row scores = {
        .keys = {scores_at(engine, index, first_col), keys.end - keys.begin},
        .extra = {scores_at(engine, index, block_cols(engine)), problem->extra_cols},
    };
    finish_scores(engine, row, keys, &scores);
    double sink = 0;
    const bool has_sink = problem->sinks.is_present;
    if (has_sink) {
        sink = head_option(engine, &problem->sinks);
    }
    const attni_row_result result = attni_normalize_row(engine->kernels, problem->normalizer, &scores, has_sink ? &sink : NULL);
    engine->empty[index] = result.is_empty;
    if (problem->lse.is_present) {
        const int64_t offset = operand_offset(engine, &problem->lse, engine->head) + row * problem->lse.strides[problem->batch_rank + 1];
        attni_write_real(problem->lse.data, offset, problem->dtype, result.lse);
    }
    if (problem->weights.is_present) {
        write_weights(engine, row, keys.begin, scores.keys.scores, scores.keys.count);
        write_weights(engine, row, problem->src_len, scores.extra.scores, scores.extra.count);
    }
}

static void weigh_rows(void *data, int64_t task) {
    const blas_engine *engine = data;
    const int64_t first = task * TASK_ROWS;
    const int64_t end = attni_min(engine->num_rows, first + TASK_ROWS);
    for (int64_t index = first; index < end; ++index) {
        weigh_row(engine, index);
    }
}

static attn_status weigh_block(blas_engine *engine) {
    const int64_t tasks = attni_divide_up(engine->num_rows, TASK_ROWS);
    if (engine->num_rows * (block_cols(engine) + engine->problem->extra_cols) >= PARALLEL_ELEMENTS) {
        return attni_parallel_for(engine->context, tasks, weigh_rows, engine);
    }
    for (int64_t task = 0; task < tasks; ++task) {
        weigh_rows(engine, task);
    }
    return ATTN_OK;
}

/* to += weights of the keys [begin, end) * their values, for row `index` of the block. */
static void add_values(const blas_engine *engine, char *to, int64_t index, int64_t begin, int64_t end) {
    const attni_sdpa_problem *problem = engine->problem;
    for (int64_t key = begin; key < end; ++key) {
        const char *weight = scores_at(engine, index, key - engine->block_keys.begin);
        const attni_matrix value = rows_from(engine, engine->value, key - engine->seen.begin);
        engine->kernels->accumulate(to, value.data, value.col_stride, problem->value_dim, attni_read_real(weight, 0, problem->dtype));
    }
}

/* What the row sees beyond the keys all rows of the block see, and the extra columns. */
static void add_own_values(const blas_engine *engine, int64_t index, attni_interval common) {
    const attni_sdpa_problem *problem = engine->problem;
    char *to = engine->block_output + index * engine->block_output_stride * engine->element;
    const attni_interval keys = attni_row_interval(&engine->visibility, engine->first_row + index);
    const bool has_common = common.begin < common.end;
    add_values(engine, to, index, keys.begin, has_common ? common.begin : keys.end);
    add_values(engine, to, index, has_common ? common.end : keys.end, keys.end);
    for (int64_t extra = 0; extra < problem->extra_cols; ++extra) {
        const char *weight = scores_at(engine, index, block_cols(engine) + extra);
        const attni_matrix value = rows_from(engine, engine->extra_value, extra);
        engine->kernels->accumulate(to, value.data, value.col_stride, problem->value_dim, attni_read_real(weight, 0, problem->dtype));
    }
    if (engine->empty[index]) {
        memset(to, 0, (size_t)(problem->value_dim * engine->element));
    }
}

/* The block of output: weights * V. */
static void weigh_values(blas_engine *engine) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_interval common = attni_rows_common(&engine->visibility, engine->first_row, engine->first_row + engine->num_rows);
    const attni_matrix target = rows_from(engine, engine->output, engine->first_row);
    const bool is_staged = engine->output_block != NULL;
    engine->block_output = is_staged ? engine->output_block : target.data;
    engine->block_output_stride = is_staged ? problem->value_dim : target.row_stride;
    const attni_gemm_call call = {
        .backend = engine->plan->gemm,
        .dtype = problem->dtype,
        .batch = 1,
        .rows = engine->num_rows,
        .cols = problem->value_dim,
        .inner = common.end - common.begin,
        .alpha = 1,
        .a = {.data = scores_at(engine, 0, common.end > common.begin ? common.begin - engine->block_keys.begin : 0),
              .row_stride = engine->plan->score_cols,
              .col_stride = 1},
        .b = rows_from(engine, engine->value, common.end > common.begin ? common.begin - engine->seen.begin : 0),
        .c = {.data = engine->block_output, .row_stride = engine->block_output_stride, .col_stride = 1},
    };
    attni_gemm_run(&call, engine->gemm_scratch);
    for (int64_t index = 0; index < engine->num_rows; ++index) {
        add_own_values(engine, index, common);
    }
    if (is_staged) {
        const attni_strided_matrix from = {engine->output_block, problem->value_dim, 1};
        attni_copy_matrix(layout_of(&target), from, engine->num_rows, problem->value_dim, (size_t)engine->element);
    }
}

static attn_status run_block(blas_engine *engine, int64_t first_row) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->first_row = first_row;
    engine->num_rows = attni_min(engine->plan->row_block, problem->tgt_len - first_row);
    engine->block_keys = attni_rows_union(&engine->visibility, first_row, first_row + engine->num_rows);
    const int64_t skipped = block_cols(engine) > 0 ? engine->block_keys.begin - engine->seen.begin : 0;
    score_columns(engine, rows_from(engine, engine->key, skipped), 0, block_cols(engine));
    score_columns(engine, engine->extra_key, block_cols(engine), problem->extra_cols);
    ATTNI_TRY(weigh_block(engine));
    weigh_values(engine);
    return ATTN_OK;
}

/* Weights start from 0: hidden positions stay so, and averages are added up head by head. */
static void clear_weights(const blas_engine *engine, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_matrix weights = operand_matrix(engine, &problem->weights, head);
    const int64_t cols = problem->src_len + problem->extra_cols;
    for (int64_t row = 0; row < problem->tgt_len && cols > 0; ++row) {
        const attni_matrix target = rows_from(engine, weights, row);
        if (weights.col_stride == 1) {
            memset(target.data, 0, (size_t)(cols * engine->element));
            continue;
        }
        for (int64_t col = 0; col < cols; ++col) {
            attni_write_real(target.data, col * weights.col_stride, problem->dtype, 0);
        }
    }
}

static attn_status run_head(blas_engine *engine, int64_t head, int64_t *num_blocks) {
    start_head(engine, head);
    if (engine->problem->weights.is_present && !engine->problem->average_weights) {
        clear_weights(engine, head);
    }
    for (int64_t row = 0; row < engine->problem->tgt_len; row += engine->plan->row_block) {
        ATTNI_TRY(run_block(engine, row));
        ++*num_blocks;
    }
    return ATTN_OK;
}

static char *piece(char *scratch, bool wanted, size_t offset) {
    return wanted ? scratch + offset : NULL;
}

attn_status attni_engine_blas_run(attn_context *context, const attni_sdpa_problem *problem, const attni_sdpa_plan *plan, char *scratch,
                                  int64_t *num_blocks) {
    blas_engine engine = {
        .context = context,
        .problem = problem,
        .plan = plan,
        .kernels = attni_kernels_of(attni_context_kernels(context), problem->dtype),
        .element = (int64_t)attn_dtype_size_bytes(problem->dtype),
    };
    if (plan->num_blocks > 0) {
        engine.scores = scratch + plan->scores_offset;
        engine.empty = (unsigned char *)scratch + plan->empty_offset;
        engine.gemm_scratch = scratch + plan->gemm_offset;
        engine.packed_key = piece(scratch, (plan->packs & ATTNI_PACKS_KEY) != 0, plan->key_offset);
        engine.packed_value = piece(scratch, (plan->packs & ATTNI_PACKS_VALUE) != 0, plan->value_offset);
        engine.output_block = piece(scratch, (plan->packs & ATTNI_PACKS_OUTPUT) != 0, plan->output_offset);
    }
    for (int64_t batch = 0; batch < problem->num_batches; ++batch) {
        start_batch(&engine, batch);
        if (problem->weights.is_present && problem->average_weights) {
            clear_weights(&engine, 0);
        }
        for (int64_t head = 0; head < problem->num_heads; ++head) {
            ATTNI_TRY(run_head(&engine, head, num_blocks));
        }
    }
    return ATTN_OK;
}
