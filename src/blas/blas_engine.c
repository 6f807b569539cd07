/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_engine.c: attention by matrix products, one block of query rows at a time:
 *
 *     scores  = scale * Q K^T      over the keys that some row of the block sees
 *     weights = normalise(scores)  row by row, over the keys that the row sees
 *     output  = weights * V        by a product over the keys all rows see; the others row by row
 *
 * With a block mask a block's rows are of one row of blocks, and both products are taken over each
 * stretch of keys that it shows them.
 *
 * The last split is what keeps a value that a row must not see out of it: 0 * NaN is NaN, so a
 * weight of 0 would not.
 *
 * BLAS is called by the calling thread only, never from inside a parallel region; rows are
 * normalised on the context's threads.
 */
#include "blas/blas_engine.h"

#include <string.h>

#include "blas/blas_matrices.h"
#include "blas/blas_plan.h"
#include "blas/blas_rows.h"
#include "problem/batch_sequence.h"
#include "problem/block_mask.h"
#include "problem/quantized_rows.h"

/* Rows normalised as one task; fixed, so that results cannot depend on the number of threads. */
enum { TASK_ROWS = 8 };

/* attni_source_keys or attni_source_values. */
typedef attni_source_rows rows_source(const attni_sdpa_problem *problem,
                                      const attni_sequence *sequence, int64_t head, int64_t first);

/* Key or value: where it is, and how its rows are found. */
typedef struct rows_of {
    const attni_operand *operand;
    rows_source *source;
    attni_dequantizer *dequantize;
    int64_t group; /* heads that have the same rows */
    int64_t cols;
} rows_of;

/* Copies some keys, or what belongs to them, side by side. */
static void pack_keys(const attni_blas_engine *engine, const rows_of *of, int64_t head,
                      attni_interval keys, attni_matrix to) {
    if (attni_is_quantized(of->operand->dtype)) {
        of->dequantize(engine->set, engine->problem, &engine->sequence, head, keys.begin,
                       keys.end - keys.begin, (float *)(void *)to.data, of->cols);
        return;
    }
    for (int64_t key = keys.begin; key < keys.end;) {
        const attni_source_rows run = of->source(engine->problem, &engine->sequence, head, key);
        const int64_t count = attni_min(run.count, keys.end - key);
        const attni_matrix rows = attni_rows_from(engine, to, key - keys.begin);
        attni_widen_rows(engine, of->operand, attni_matrix_of(run), count, of->cols, rows.data);
        key += count;
    }
}

/* Those that some row of the head sees, each where it is among all that are seen. */
static void pack_seen(const attni_blas_engine *engine, const rows_of *of, int64_t head,
                      attni_matrix dense) {
    const attni_interval seen = engine->seen;
    const attni_block_rows rows = {
        engine->problem, engine->batch, {head, head + 1}, {0, engine->problem->tgt_len}};
    attni_interval part = attni_first_shown(&rows, seen);
    for (; part.begin < part.end;
         part = attni_first_shown(&rows, (attni_interval){part.end, seen.end})) {
        pack_keys(engine, of, head, part, attni_rows_from(engine, dense, part.begin - seen.begin));
    }
}

/* The keys that are seen, or their values, copied if the products cannot read them. Heads that share their keys share the copy; quantised ones may share
 * elements and have other scales, and a block mask may show other keys to each. */
static void take_rows(const attni_blas_engine *engine, const rows_of *of, int64_t head,
                      char *packed, const char **packed_from, attni_matrix *rows) {
    const attni_sdpa_problem *problem = engine->problem;
    *rows = attni_matrix_of(of->source(problem, &engine->sequence, head, engine->seen.begin));
    if (packed == NULL) {
        return;
    }
    const attni_matrix dense = {.data = packed, .row_stride = of->cols, .col_stride = 1};
    const bool has_others = (attni_is_quantized(of->operand->dtype) && head % of->group == 0) ||
                            attni_has_blocks(problem);
    if (*packed_from != rows->data || has_others) {
        *packed_from = rows->data;
        pack_seen(engine, of, head, dense);
    }
    *rows = dense;
}

static void start_batch(attni_blas_engine *engine, int64_t batch) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->batch = batch;
    engine->sequence = attni_batch_sequence(problem, batch);
    engine->seen = attni_rows_union(&engine->sequence.visibility, 0, problem->tgt_len);
    engine->key_packed_from = NULL;
    engine->value_packed_from = NULL;
}

static void start_head(attni_blas_engine *engine, int64_t head) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->head = head;
    engine->query = attni_operand_matrix(engine, &problem->query, head);
    engine->output = attni_operand_matrix(engine, &problem->output, head);
    const rows_of keys = {&problem->key, attni_source_keys, attni_dequantize_keys,
                          problem->key_group, problem->head_dim};
    const rows_of values = {&problem->value, attni_source_values, attni_dequantize_values,
                            problem->value_group, problem->value_dim};
    take_rows(engine, &keys, head, engine->packed_key, &engine->key_packed_from, &engine->key);
    take_rows(engine, &values, head, engine->packed_value, &engine->value_packed_from,
              &engine->value);
    if (problem->extra_cols > 0) {
        engine->extra_key = attni_matrix_of(attni_extra_keys(problem, engine->batch, head));
        engine->extra_value = attni_matrix_of(attni_extra_values(problem, engine->batch, head));
    }
}

static attni_matrix transposed(attni_matrix matrix) {
    return (attni_matrix){
        .data = matrix.data, .row_stride = matrix.col_stride, .col_stride = matrix.row_stride};
}

static const attni_product_kernels *product_kernels(const attni_blas_engine *engine) {
    return attni_product_kernels_of(engine->set, engine->problem->score_dtype);
}

/* scores[:, first_col ...] = scale * Q K^T for `count` rows of `keys`. */
static void score_columns(const attni_blas_engine *engine, attni_matrix keys, int64_t first_col,
                          int64_t count) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_gemm_call call = {
        .backend = engine->plan->gemm,
        .dtype = problem->score_dtype,
        .batch = 1,
        .rows = engine->num_rows,
        .cols = count,
        .inner = problem->head_dim,
        /* BLAS takes alpha = 0 as "do not read", and would lose a NaN: finish_scores does scale 0.
         */
        .alpha = problem->scale == 0 ? 1 : problem->scale,
        .a = engine->block_query,
        .b = transposed(keys),
        .c = {.data = attni_scores_at(engine, 0, first_col),
              .row_stride = engine->plan->score_cols,
              .col_stride = 1},
        .kernels = product_kernels(engine),
    };
    attni_gemm_run(&call, engine->gemm_scratch);
}

static void weigh_rows(void *data, int64_t task) {
    const attni_blas_engine *engine = data;
    const int64_t first = task * TASK_ROWS;
    const int64_t end = attni_min(engine->num_rows, first + TASK_ROWS);
    for (int64_t index = first; index < end; ++index) {
        attni_weigh_row(engine, index);
    }
}

static attn_status weigh_block(attni_blas_engine *engine) {
    const int64_t tasks = attni_divide_up(engine->num_rows, TASK_ROWS);
    if (engine->plan->is_parallel) {
        return attni_parallel_for(engine->context, tasks, weigh_rows, engine);
    }
    for (int64_t task = 0; task < tasks; ++task) {
        weigh_rows(engine, task);
    }
    return ATTN_OK;
}

/* to += weights of the keys [begin, end) * their values, for row `index` of the block. */
static void add_values(const attni_blas_engine *engine, char *to, int64_t index, int64_t begin,
                       int64_t end) {
    const attni_sdpa_problem *problem = engine->problem;
    for (int64_t key = begin; key < end; ++key) {
        const char *weight = attni_scores_at(engine, index, key - engine->block_keys.begin);
        const attni_matrix value = attni_rows_from(engine, engine->value, key - engine->seen.begin);
        engine->kernels->accumulate(to, value.data, value.col_stride, problem->value_dim,
                                    attni_read_real(weight, 0, problem->score_dtype));
    }
}

static char *block_output_row(const attni_blas_engine *engine, int64_t index) {
    return engine->block_output + index * engine->block_output_stride * engine->element;
}

/* The next stretch of the block's keys, from key `begin` on, that the block mask shows its rows. */
static attni_interval next_part(const attni_blas_engine *engine, int64_t begin) {
    const attni_block_rows rows = {engine->problem,
                                   engine->batch,
                                   {engine->head, engine->head + 1},
                                   {engine->first_row, engine->first_row + engine->num_rows}};
    return attni_first_shown(&rows, (attni_interval){begin, engine->block_keys.end});
}

/* Adds to each row the values of those keys that it sees. */
static void add_own_values(const attni_blas_engine *engine, int64_t begin, int64_t end) {
    for (int64_t index = 0; index < engine->num_rows && begin < end; ++index) {
        const attni_interval keys =
            attni_row_interval(&engine->sequence.visibility, engine->first_row + index);
        add_values(engine, block_output_row(engine, index), index, attni_max(begin, keys.begin),
                   attni_min(end, keys.end));
    }
}

static void clear_output(const attni_blas_engine *engine) {
    for (int64_t index = 0; index < engine->num_rows; ++index) {
        memset(block_output_row(engine, index), 0,
               (size_t)(engine->problem->value_dim * engine->element));
    }
}

/* The extra columns; a row that sees nothing is 0. */
static void finish_output(const attni_blas_engine *engine, int64_t index) {
    const attni_sdpa_problem *problem = engine->problem;
    char *to = block_output_row(engine, index);
    for (int64_t extra = 0; extra < problem->extra_cols; ++extra) {
        const char *weight = attni_scores_at(engine, index, attni_block_cols(engine) + extra);
        const attni_matrix value = attni_rows_from(engine, engine->extra_value, extra);
        engine->kernels->accumulate(to, value.data, value.col_stride, problem->value_dim,
                                    attni_read_real(weight, 0, problem->score_dtype));
    }
    if (engine->empty[index]) {
        memset(to, 0, (size_t)(problem->value_dim * engine->element));
    }
}

/* weights * V of the keys that all rows of the block see. */
static void add_common_values(const attni_blas_engine *engine, attni_interval common,
                              bool is_added) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_gemm_call call = {
        .backend = engine->plan->gemm,
        .dtype = problem->score_dtype,
        .batch = 1,
        .rows = engine->num_rows,
        .cols = problem->value_dim,
        .inner = common.end - common.begin,
        .alpha = 1,
        .beta = is_added ? 1 : 0,
        .a = {.data = attni_scores_at(engine, 0, common.begin - engine->block_keys.begin),
              .row_stride = engine->plan->score_cols,
              .col_stride = 1},
        .b = attni_rows_from(engine, engine->value, common.begin - engine->seen.begin),
        .c = {.data = engine->block_output,
              .row_stride = engine->block_output_stride,
              .col_stride = 1},
        .kernels = product_kernels(engine),
    };
    attni_gemm_run(&call, engine->gemm_scratch);
}

/* weights * V of a part of the block's keys; is_added, which is returned for the next, says that
 * rows hold sums already. */
static bool weigh_part(const attni_blas_engine *engine, attni_interval part, bool is_added) {
    const attni_interval all = attni_rows_common(&engine->sequence.visibility, engine->first_row,
                                                 engine->first_row + engine->num_rows);
    const attni_interval common =
        attni_interval_between(attni_max(all.begin, part.begin), attni_min(all.end, part.end));
    const bool has_common = common.begin < common.end;
    const int64_t before = has_common ? common.begin : part.end;
    if (!is_added && before > part.begin) {
        clear_output(engine);
        is_added = true;
    }
    add_own_values(engine, part.begin, before);
    if (has_common) {
        add_common_values(engine, common, is_added);
        add_own_values(engine, common.end, part.end);
    }
    return true;
}

/* The block of output: weights * V, in the order of the keys, so that a row's sum does not depend
 * on the rows it shares a block with. */
static void weigh_values(attni_blas_engine *engine) {
    const attni_sdpa_problem *problem = engine->problem;
    const attni_matrix target =
        attni_stored_rows(&problem->output, engine->output, engine->first_row);
    const bool is_staged = engine->output_block != NULL;
    bool is_added = false;
    engine->block_output = is_staged ? engine->output_block : target.data;
    engine->block_output_stride = is_staged ? problem->value_dim : target.row_stride;
    attni_interval part = next_part(engine, engine->block_keys.begin);
    for (; part.begin < part.end; part = next_part(engine, part.end)) {
        is_added = weigh_part(engine, part, is_added);
    }
    if (!is_added) {
        clear_output(engine);
    }
    for (int64_t index = 0; index < engine->num_rows; ++index) {
        finish_output(engine, index);
    }
    if (is_staged) {
        attni_narrow_rows(engine, &problem->output, target, engine->num_rows, problem->value_dim,
                          engine->output_block);
    }
}

static void take_query(attni_blas_engine *engine) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->block_query = attni_stored_rows(&problem->query, engine->query, engine->first_row);
    if (engine->packed_query != NULL) {
        attni_widen_rows(engine, &problem->query, engine->block_query, engine->num_rows,
                         problem->head_dim, engine->packed_query);
        engine->block_query = (attni_matrix){
            .data = engine->packed_query, .row_stride = problem->head_dim, .col_stride = 1};
    }
}

static attn_status run_block(attni_blas_engine *engine, int64_t first_row) {
    const attni_sdpa_problem *problem = engine->problem;
    engine->first_row = first_row;
    engine->num_rows = attni_blas_block_rows(engine->plan, problem, first_row);
    engine->block_keys =
        attni_rows_union(&engine->sequence.visibility, first_row, first_row + engine->num_rows);
    take_query(engine);
    attni_interval part = next_part(engine, engine->block_keys.begin);
    for (; part.begin < part.end; part = next_part(engine, part.end)) {
        score_columns(engine, attni_rows_from(engine, engine->key, part.begin - engine->seen.begin),
                      part.begin - engine->block_keys.begin, part.end - part.begin);
    }
    if (problem->extra_cols > 0) {
        score_columns(engine, engine->extra_key, attni_block_cols(engine), problem->extra_cols);
    }
    ATTNI_TRY(weigh_block(engine));
    if (problem->value_dim > 0) {
        weigh_values(engine);
    }
    return ATTN_OK;
}

static attn_status run_head(attni_blas_engine *engine, int64_t head, int64_t *num_blocks) {
    start_head(engine, head);
    if (engine->problem->weights.is_present && !engine->problem->average_weights) {
        attni_clear_weights(engine, head);
    }
    for (int64_t row = 0; row < engine->problem->tgt_len; row += engine->num_rows) {
        ATTNI_TRY(run_block(engine, row));
        ++*num_blocks;
    }
    return ATTN_OK;
}

static char *piece(char *scratch, bool wanted, size_t offset) {
    return wanted ? scratch + offset : NULL;
}

attn_status attni_blas_run(attn_context *context, const attni_sdpa_problem *problem,
                           const attni_blas_plan *plan, char *scratch, int64_t *num_blocks) {
    attni_blas_engine engine = {
        .context = context,
        .problem = problem,
        .plan = plan,
        .set = attni_context_kernels(context),
        .kernels = attni_kernels_of(attni_context_kernels(context), problem->score_dtype),
        .element = (int64_t)attn_dtype_size_bytes(problem->score_dtype),
        .averages = piece(scratch, plan->sums_averages, plan->averages_offset),
    };
    const bool has_blocks = plan->num_blocks > 0;
    if (has_blocks) {
        engine.scores = scratch + plan->scores_offset;
        engine.empty = (unsigned char *)scratch + plan->empty_offset;
        engine.gemm_scratch = scratch + plan->gemm_offset;
        engine.packed_query = piece(scratch, plan->widens_query, plan->query_offset);
        engine.packed_key = piece(scratch, (plan->packs & ATTNI_PACKS_KEY) != 0, plan->key_offset);
        engine.packed_value =
            piece(scratch, (plan->packs & ATTNI_PACKS_VALUE) != 0, plan->value_offset);
        engine.output_block =
            piece(scratch, (plan->packs & ATTNI_PACKS_OUTPUT) != 0, plan->output_offset);
    }
    const bool has_averages = problem->weights.is_present && problem->average_weights;
    const bool clears = has_averages && problem->tgt_len > 0 && plan->score_cols > 0;
    const bool has_work = has_blocks || clears;
    if (plan->is_parallel) {
        /* From here on outputs are written, and a failure could not leave them untouched. */
        ATTNI_TRY(attni_start_threads(context));
    }
    for (int64_t batch = 0; has_work && batch < problem->num_batches; ++batch) {
        start_batch(&engine, batch);
        if (clears) {
            attni_clear_weights(&engine, 0);
        }
        for (int64_t head = 0; has_blocks && head < problem->num_heads; ++head) {
            ATTNI_TRY(run_head(&engine, head, num_blocks));
        }
        if (clears && plan->sums_averages) {
            attni_store_averages(&engine);
        }
    }
    return ATTN_OK;
}
