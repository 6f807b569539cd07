/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_scores.c: scores of a block of rows, a block of keys at a time: the product goes to the
 * output, and what the stage adds to it is done there while it is in the caches.
 *
 * Blocks of keys begin at multiples of their length, counted from key 0. Distances are rounded from
 * the first key of a block that a row sees, and are so the same beside any rows, in any layout and
 * at any capacity.
 */
#include "sdpa/sdpa_scores.h"

#include <math.h>

#include "base/checked_size.h"
#include "gemm/gemm.h"
#include "gemm/strips.h"
#include "problem/batch_sequence.h"
#include "problem/block_mask.h"
#include "problem/mask_rows.h"
#include "problem/quantized_rows.h"
#include "problem/source_rows.h"
#include "softmax/row_weights.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

enum {
    ROW_BLOCK = 96, /* rows that share the copy of their keys in strips */
    KEY_BLOCK = 256 /* keys of which scores are computed and finished at a time */
};

typedef struct scores_run {
    const attni_sdpa_problem *problem;
    const attni_scores_plan *plan;
    const attni_kernel_set *set;
    const attni_row_kernels *kernels; /* of the set, for the score type */
    int64_t element;                  /* bytes of the score type */
    char *scratch;
} scores_run;

/* A block of rows of one head. */
typedef struct score_rows {
    attni_sequence sequence;
    int64_t head;
    int64_t first;
    int64_t count;
    attni_source_rows query; /* of the score type */
    attni_source_rows out;
    char *gathered; /* the keys at hand, where they lie in pages or are quantised */
    char *strips;   /* of them */
} score_rows;

/* ---- rows in ---- */

static attni_source_rows query_rows(const scores_run *run, const score_rows *rows, char *memory) {
    const attni_sdpa_problem *problem = run->problem;
    const attni_operand *query = &problem->query;
    const attni_source_rows stored =
        attni_operand_rows(problem, query, rows->sequence.batch, rows->head, rows->first);
    if (query->dtype == problem->score_dtype) {
        return stored;
    }
    const attni_storage_kernels *storage = attni_storage_kernels_of(run->set, query->dtype);
    const int64_t row_bytes = stored.row_stride * query->element_bytes;
    for (int64_t row = 0; row < rows->count; ++row) {
        storage->widen((float *)(void *)memory + row * problem->head_dim,
                       attni_advance(stored.data, row * row_bytes), stored.col_stride,
                       problem->head_dim);
    }
    return (attni_source_rows){memory, problem->head_dim, 1, rows->count};
}

static score_rows rows_of_item(const scores_run *run, int64_t item, char *slot) {
    const attni_sdpa_problem *problem = run->problem;
    const int64_t matrix = item / run->plan->row_blocks;
    score_rows rows = {
        .sequence = attni_batch_sequence(problem, matrix / problem->num_heads),
        .head = matrix % problem->num_heads,
        .first = item % run->plan->row_blocks * ROW_BLOCK,
        .gathered = slot + run->plan->gathered_offset,
        .strips = slot + run->plan->keys_offset,
    };
    rows.count = attni_min(ROW_BLOCK, problem->tgt_len - rows.first);
    rows.query = query_rows(run, &rows, slot + run->plan->query_offset);
    rows.out =
        attni_operand_rows(problem, &problem->scores, rows.sequence.batch, rows.head, rows.first);
    return rows;
}

/* ---- scores ---- */

/* Score (row, column `col`) of the block's rows. */
static char *score_at(const scores_run *run, const score_rows *rows, int64_t row, int64_t col) {
    return attni_advance(rows->out.data,
                         (row * rows->out.row_stride + col * rows->out.col_stride) * run->element);
}

/* The type in which the product reads keys. */
static int32_t read_dtype(const attni_sdpa_problem *problem) {
    return attni_is_quantized(problem->key.dtype) ? ATTN_DTYPE_FLOAT32 : problem->key.dtype;
}

/* `count` rows of key from `first` on as one matrix: those in pages are gathered, quantised ones
 * become numbers. */
static attni_source_rows take_keys(const scores_run *run, const score_rows *rows, int64_t first,
                                   int64_t count) {
    const attni_sdpa_problem *problem = run->problem;
    const attni_source_rows keys = attni_source_keys(problem, &rows->sequence, rows->head, first);
    if (attni_is_quantized(problem->key.dtype)) {
        attni_dequantize_keys(run->set, problem, &rows->sequence, rows->head, first, count,
                              (float *)(void *)rows->gathered, problem->head_dim);
        return (attni_source_rows){rows->gathered, problem->head_dim, 1, count};
    }
    if (keys.count >= count) {
        return keys;
    }
    for (int64_t done = 0; done < count;) {
        const attni_source_rows page =
            attni_source_keys(problem, &rows->sequence, rows->head, first + done);
        const int64_t of_page = attni_min(page.count, count - done);
        const attni_strided_matrix from = {page.data, page.row_stride, page.col_stride};
        char *to = rows->gathered + done * problem->head_dim * problem->key.element_bytes;
        attni_copy_matrix((attni_strided_matrix){to, problem->head_dim, 1}, from, of_page,
                          problem->head_dim, (size_t)problem->key.element_bytes);
        done += of_page;
    }
    return (attni_source_rows){rows->gathered, problem->head_dim, 1, count};
}

/* K^T in the order in which the product reads it. */
static void pack_keys(const scores_run *run, const score_rows *rows, attni_source_rows keys,
                      int32_t dtype, int64_t count) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(dtype);
    const int64_t head_dim = run->problem->head_dim;
    const int64_t width = attni_strip_cols(dtype);
    const attni_product_kernels *kernels = attni_product_kernels_of(run->set, dtype);
    for (int64_t first = 0; first < count; first += width) {
        kernels->pack(rows->strips + first * head_dim * element,
                      attni_advance(keys.data, first * keys.row_stride * element), keys.col_stride,
                      keys.row_stride, head_dim, attni_min(width, count - first));
    }
}

/* scale * Q K^T of `count` rows of key from `first` on, or of the extra ones, which stand behind key
 * S - 1; they are as many columns. */
static void multiply(const scores_run *run, const score_rows *rows, int64_t first, int64_t count,
                     bool is_extra) {
    const attni_sdpa_problem *problem = run->problem;
    const int32_t key_dtype = is_extra ? problem->score_dtype : read_dtype(problem);
    const attni_source_rows keys = is_extra
                                       ? attni_extra_keys(problem, rows->sequence.batch, rows->head)
                                       : take_keys(run, rows, first, count);
    pack_keys(run, rows, keys, key_dtype, count);
    const bool is_narrow = key_dtype != problem->score_dtype;
    const attni_gemm_call call = {
        .backend = ATTN_GEMM_NATIVE,
        .dtype = problem->score_dtype,
        .narrow_b = is_narrow ? key_dtype : 0,
        .batch = 1,
        .rows = rows->count,
        .cols = count,
        .inner = problem->head_dim,
        .alpha = problem->scale,
        .a = {.data = rows->query.data,
              .row_stride = rows->query.row_stride,
              .col_stride = rows->query.col_stride},
        .c = {.data = score_at(run, rows, 0, first),
              .row_stride = rows->out.row_stride,
              .col_stride = rows->out.col_stride},
        .kernels = attni_product_kernels_of(run->set, key_dtype),
        .strips = rows->strips,
    };
    const attni_gemm_part all = {.rows = call.rows, .cols = call.cols};
    attni_gemm_native_part(&call, &all);
}

/* What is written where nothing is computed. */
static double hidden_score(const attni_sdpa_problem *problem) {
    return problem->score_stage == ATTN_SCORE_MASKED ? -(double)INFINITY : 0;
}

/* Columns [begin, end) of a row that is `stride` apart. */
static void hide(const scores_run *run, char *row, int64_t stride, int64_t begin, int64_t end) {
    for (int64_t col = begin; col < end; ++col) {
        attni_write_real(row, col * stride, run->problem->score_dtype, hidden_score(run->problem));
    }
}

/* ALiBi and masks of a row's scores of `keys`, which are alike for it. Distances are rounded from the
 * first of them. */
static void mask_keys(const scores_run *run, const score_rows *rows, int64_t row,
                      attni_interval keys, char *scores) {
    const attni_sdpa_problem *problem = run->problem;
    const int64_t count = keys.end - keys.begin;
    if (problem->alibi_slopes.is_present) {
        const attni_operand *slopes = &problem->alibi_slopes;
        const int64_t offset = rows->head * slopes->strides[problem->batch_rank];
        const int64_t position = attni_row_position(&rows->sequence.visibility, row);
        run->kernels->alibi(scores, count, attni_read_real(slopes->data, offset, slopes->dtype),
                            (double)attni_saturating_add(position, -keys.begin));
    }
    attni_apply_masks(problem, &rows->sequence, rows->head, row, keys, run->kernels, scores,
                      hidden_score(problem));
}

/* The same of those that the row sees, on scores of keys that are side by side; the others are
 * hidden. */
static void mask_row(const scores_run *run, const score_rows *rows, int64_t index,
                     attni_interval keys, char *scores) {
    const int64_t row = rows->first + index;
    const int64_t count = keys.end - keys.begin;
    const attni_interval seen = attni_row_interval(&rows->sequence.visibility, row);
    const int64_t begin = attni_clamp(seen.begin - keys.begin, 0, count);
    const int64_t end = attni_clamp(seen.end - keys.begin, 0, count);
    attni_interval left = attni_interval_between(keys.begin + begin, keys.begin + end);
    hide(run, scores, 1, 0, begin);
    while (left.begin < left.end) {
        const attni_block_stretch stretch =
            attni_block_stretch_of(run->problem, rows->sequence.batch, rows->head, row, left);
        mask_keys(run, rows, row, stretch.keys, scores + (left.begin - keys.begin) * run->element);
        left.begin = stretch.keys.end;
    }
    hide(run, scores, 1, end, count);
}

/* What the stage adds to a row's scores of `keys`, of which the extra columns only have softcap. */
static void finish_row(const scores_run *run, const score_rows *rows, int64_t index,
                       attni_interval keys, bool is_extra, char *scores) {
    const attni_sdpa_problem *problem = run->problem;
    if (problem->softcap != 0) {
        run->kernels->softcap(scores, keys.end - keys.begin, problem->softcap);
    }
    if (problem->score_stage == ATTN_SCORE_MASKED && !is_extra) {
        mask_row(run, rows, index, keys, scores);
    }
}

/* The same of all rows; where columns lie apart a row goes through a copy. */
static void finish(const scores_run *run, const score_rows *rows, attni_interval keys,
                   bool is_extra) {
    double copied[KEY_BLOCK];
    const int64_t count = keys.end - keys.begin;
    const size_t bytes = (size_t)run->element;
    const attni_strided_matrix dense = {(char *)copied, count, 1};
    const bool is_apart = rows->out.col_stride != 1;
    for (int64_t index = 0; index < rows->count; ++index) {
        char *scores = score_at(run, rows, index, keys.begin);
        const attni_strided_matrix apart = {scores, 0, rows->out.col_stride};
        if (is_apart) {
            attni_copy_matrix(dense, apart, 1, count, bytes);
        }
        finish_row(run, rows, index, keys, is_extra, is_apart ? dense.data : scores);
        if (is_apart) {
            attni_copy_matrix(apart, dense, 1, count, bytes);
        }
    }
}

/* Scores of keys that lie in one block of keys. */
static void score_block(const scores_run *run, const score_rows *rows, attni_interval keys,
                        bool is_extra) {
    const attni_sdpa_problem *problem = run->problem;
    multiply(run, rows, keys.begin, keys.end - keys.begin, is_extra);
    if (problem->score_stage == ATTN_SCORE_MASKED ||
        (problem->score_stage == ATTN_SCORE_CAPPED && problem->softcap != 0)) {
        finish(run, rows, keys, is_extra);
    }
}

/* Keys that scores are computed of: those that some row sees, or before the mask all that exist. */
static attni_interval scored_keys(const scores_run *run, const score_rows *rows) {
    if (run->problem->score_stage == ATTN_SCORE_MASKED) {
        return attni_rows_union(&rows->sequence.visibility, rows->first, rows->first + rows->count);
    }
    return (attni_interval){0, rows->sequence.visibility.key_length};
}

/* What is written of `keys` where nothing is computed. */
static void hide_keys(const scores_run *run, const score_rows *rows, int64_t begin, int64_t end) {
    for (int64_t index = 0; index < rows->count && begin < end; ++index) {
        hide(run, score_at(run, rows, index, 0), rows->out.col_stride, begin, end);
    }
}

/* Scores of keys that lie in one block of keys: of those that the block mask shows some row, or
 * before the mask of all. */
static void score_shown(const scores_run *run, const score_rows *rows, attni_interval keys) {
    const attni_block_rows shown_to = {run->problem,
                                       rows->sequence.batch,
                                       {rows->head, rows->head + 1},
                                       {rows->first, rows->first + rows->count}};
    if (run->problem->score_stage != ATTN_SCORE_MASKED) {
        score_block(run, rows, keys, false);
        return;
    }
    while (keys.begin < keys.end) {
        const attni_interval part = attni_first_shown(&shown_to, keys);
        hide_keys(run, rows, keys.begin, part.begin);
        if (part.begin < part.end) {
            score_block(run, rows, part, false);
        }
        keys.begin = part.end;
    }
}

static void run_item(void *data, int32_t slot, int64_t item) {
    const scores_run *run = data;
    const attni_scores_plan *plan = run->plan;
    const attni_sdpa_problem *problem = run->problem;
    char *memory = run->scratch + plan->slots_offset + (size_t)slot * plan->slot_bytes;
    const score_rows rows = rows_of_item(run, item, memory);
    const attni_interval keys = scored_keys(run, &rows);
    for (int64_t begin = keys.begin; begin < keys.end;) {
        const int64_t past = (begin / KEY_BLOCK + 1) * KEY_BLOCK;
        const attni_interval block = {begin, attni_min(past, keys.end)};
        score_shown(run, &rows, block);
        begin = block.end;
    }
    hide_keys(run, &rows, 0, keys.begin);
    hide_keys(run, &rows, keys.end, problem->src_len);
    if (problem->extra_cols > 0) {
        const attni_interval extra = {problem->src_len, problem->src_len + problem->extra_cols};
        score_block(run, &rows, extra, true);
    }
}

/* ---- the whole ---- */

/* A row of query has fewer than 2^62 elements, so its bytes fit. */
static void lay_out(const attni_sdpa_problem *problem, attni_scores_plan *plan,
                    attni_layout *layout) {
    const bool is_copied = problem->query.dtype != problem->score_dtype;
    const int64_t rows = is_copied ? attni_min(ROW_BLOCK, problem->tgt_len) : 0;
    const size_t head_dim = (size_t)problem->head_dim;
    const size_t key_bytes = attn_dtype_size_bytes(read_dtype(problem));
    const bool gathers = problem->pages.rows > 0 || attni_is_quantized(problem->key.dtype);
    attni_layout slot = {0};
    plan->query_offset =
        attni_layout_add(&slot, rows, head_dim * attn_dtype_size_bytes(problem->score_dtype));
    /* Of E = 0, too: the product knows strips by their address. */
    plan->keys_offset =
        attni_layout_add(&slot, KEY_BLOCK, (head_dim > 0 ? head_dim : 1) * key_bytes);
    plan->gathered_offset = attni_layout_add(&slot, gathers ? KEY_BLOCK : 0, head_dim * key_bytes);
    plan->slot_bytes = slot.bytes;
    layout->overflow |= slot.overflow;
    plan->slots_offset = attni_layout_add(layout, plan->num_slots, plan->slot_bytes);
}

void attni_scores_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                            attni_scores_plan *plan, attni_layout *layout) {
    const int64_t cols = problem->src_len + problem->extra_cols;
    *plan = (attni_scores_plan){.num_slots = 1};
    if (!problem->scores.is_present || cols == 0) {
        return;
    }
    plan->row_blocks = attni_divide_up(problem->tgt_len, ROW_BLOCK);
    /* Fits: scores have as many rows, and their size was checked. */
    plan->num_items = problem->num_batches * problem->num_heads * plan->row_blocks;
    if (plan->num_items == 0) {
        return;
    }
    const double work = (double)problem->num_batches * (double)problem->num_heads *
                        (double)problem->tgt_len * (double)cols * (double)problem->head_dim;
    plan->num_slots = work < ATTNI_SERIAL_WORK ? 1 : attni_context_slots(context, plan->num_items);
    lay_out(problem, plan, layout);
}

void attni_scores_bound_runs(const attn_context *context, const attni_sdpa_problem *problem,
                             const attni_scores_plan *plan, attni_layout *layout) {
    attni_scores_plan most = *plan;
    if (plan->num_items > 0) {
        most.num_slots = attni_context_slots(context, INT64_MAX);
        lay_out(problem, &most, layout);
    }
}

attn_status attni_scores_run(attn_context *context, const attni_sdpa_problem *problem,
                             const attni_scores_plan *plan, char *scratch) {
    const attni_kernel_set *set = attni_context_kernels(context);
    scores_run run = {
        .problem = problem,
        .plan = plan,
        .set = set,
        .kernels = attni_kernels_of(set, problem->score_dtype),
        .element = (int64_t)attn_dtype_size_bytes(problem->score_dtype),
        .scratch = scratch,
    };
    return attni_parallel_items(context, plan->num_slots, plan->num_items, run_item, &run);
}
