/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_plan.c: how large blocks are, what is copied and where it goes. Pure: shapes, strides and
 * options decide.
 */
#include "blas/blas_plan.h"

#include "base/checked_size.h"
#include "problem/block_mask.h"

enum {
    BLOCK_BYTES = 1 << 20, /* a block of scores should stay in the second-level cache */
    LARGEST_BLOCK = 256,   /* rows; more no longer makes the matrix products faster */
    LARGEST_RAGGED_BLOCK =
        64, /* where intervals differ from row to row, what rows do not share is not left to BLAS */
    SMALLEST_BLOCK = 16,
    PARALLEL_ELEMENTS = 32768 /* scores in a block that make waking the threads worthwhile */
};

static int64_t choose_row_block(const attni_sdpa_problem *problem) {
    if (problem->src_len + problem->extra_cols > INT32_MAX) {
        return 1; /* a longer row of scores has no leading dimension in BLAS, but a single row needs
                     none */
    }
    const int64_t row_bytes = (problem->src_len + problem->extra_cols) *
                              (int64_t)attn_dtype_size_bytes(problem->score_dtype);
    const bool is_ragged =
        problem->is_causal || problem->window_left >= 0 || problem->window_right >= 0;
    const int64_t largest = is_ragged ? LARGEST_RAGGED_BLOCK : LARGEST_BLOCK;
    const int64_t block =
        attni_clamp(BLOCK_BYTES / attni_max(1, row_bytes), SMALLEST_BLOCK, largest);
    return attni_max(1, attni_min(block, problem->tgt_len));
}

static attni_matrix matrix_of(const attni_operand *operand, int32_t batch_rank) {
    return (attni_matrix){.row_stride = operand->strides[batch_rank + 1],
                          .col_stride = operand->strides[batch_rank + 2]};
}

/* What is copied because the products know the score type alone. */
static int32_t packs_of_types(const attni_sdpa_problem *problem) {
    const int32_t type = problem->score_dtype;
    return (problem->query.dtype != type ? ATTNI_PACKS_QUERY : 0) |
           (problem->key.dtype != type ? ATTNI_PACKS_KEY : 0) |
           (problem->value.dtype != type ? ATTNI_PACKS_VALUE : 0) |
           (problem->output.dtype != type ? ATTNI_PACKS_OUTPUT : 0);
}

/* What is copied because its rows do not lie as one matrix. */
static int32_t packs_of_pages(const attni_sdpa_problem *problem) {
    return problem->pages.rows > 0 ? ATTNI_PACKS_KEY | ATTNI_PACKS_VALUE : 0;
}

/* What is copied because BLAS cannot read it where it lies. */
static int32_t packs_of_layouts(const attni_sdpa_problem *problem) {
    const int64_t src_rows = problem->src_len;
    const attni_matrix query = matrix_of(&problem->query, problem->batch_rank);
    const attni_matrix key = matrix_of(&problem->key, problem->batch_rank);
    const attni_matrix value = matrix_of(&problem->value, problem->batch_rank);
    const attni_matrix output = matrix_of(&problem->output, problem->batch_rank);
    const attni_blas_layout output_layout =
        attni_blas_layout_of(&output, problem->tgt_len, problem->value_dim);
    int32_t packs = 0;
    packs |= attni_blas_layout_of(&query, problem->tgt_len, problem->head_dim).readable
                 ? 0
                 : ATTNI_PACKS_QUERY;
    packs |= attni_blas_layout_of(&key, src_rows, problem->head_dim).readable ? 0 : ATTNI_PACKS_KEY;
    packs |=
        attni_blas_layout_of(&value, src_rows, problem->value_dim).readable ? 0 : ATTNI_PACKS_VALUE;
    /* Rows of output are also added to one by one, so their elements must be neighbours. */
    packs |= output_layout.readable && !output_layout.transposed ? 0 : ATTNI_PACKS_OUTPUT;
    return packs;
}

static attni_matrix dense_rows(int64_t cols) {
    return (attni_matrix){.row_stride = cols, .col_stride = 1};
}

/* A product of the engine at its largest. Smaller ones need no more scratch: what BLAS reads stays
 * readable when it shrinks. */
static attni_gemm_call largest_call(const attni_sdpa_problem *problem, const attni_blas_plan *plan,
                                    attni_matrix a, attni_matrix b, attni_matrix c, int64_t cols,
                                    int64_t inner) {
    return (attni_gemm_call){
        .backend = plan->gemm,
        .dtype = problem->score_dtype,
        .batch = 1,
        .rows = plan->row_block,
        .cols = cols,
        .inner = inner,
        .a = a,
        .b = b,
        .c = c,
    };
}

/* The engine works on one block of rows of one head at a time. */
static void lay_out(const attni_sdpa_problem *problem, attni_blas_plan *plan,
                    attni_layout *layout) {
    const size_t element = attn_dtype_size_bytes(problem->score_dtype);
    const int64_t src_rows = problem->src_len + problem->extra_cols;
    /* A row of scores is no longer than key has elements, so its bytes fit int64_t. */
    plan->scores_offset = attni_layout_add(layout, plan->row_block, (size_t)src_rows * element);
    plan->empty_offset = attni_layout_add(layout, plan->row_block, 1);
    plan->query_offset = attni_layout_add(layout, plan->widens_query ? plan->row_block : 0,
                                          (size_t)problem->head_dim * element);
    const bool packs_key = (plan->packs & ATTNI_PACKS_KEY) != 0;
    const bool packs_value = (plan->packs & ATTNI_PACKS_VALUE) != 0;
    const bool packs_output = (plan->packs & ATTNI_PACKS_OUTPUT) != 0;
    plan->key_offset = attni_layout_add(layout, packs_key ? problem->src_len : 0,
                                        (size_t)problem->head_dim * element);
    plan->value_offset = attni_layout_add(layout, packs_value ? problem->src_len : 0,
                                          (size_t)problem->value_dim * element);
    plan->output_offset = attni_layout_add(layout, packs_output ? plan->row_block : 0,
                                           (size_t)problem->value_dim * element);
    const attni_matrix scores = {.row_stride = plan->score_cols, .col_stride = 1};
    const attni_matrix query = plan->widens_query ? dense_rows(problem->head_dim)
                                                  : matrix_of(&problem->query, problem->batch_rank);
    const attni_matrix key =
        packs_key ? dense_rows(problem->head_dim) : matrix_of(&problem->key, problem->batch_rank);
    const attni_matrix value = packs_value ? dense_rows(problem->value_dim)
                                           : matrix_of(&problem->value, problem->batch_rank);
    const attni_matrix output = packs_output ? dense_rows(problem->value_dim)
                                             : matrix_of(&problem->output, problem->batch_rank);
    const attni_matrix key_transposed = {.row_stride = key.col_stride,
                                         .col_stride = key.row_stride};
    const attni_gemm_call score_call =
        largest_call(problem, plan, query, key_transposed, scores, src_rows, problem->head_dim);
    const attni_gemm_call value_call =
        largest_call(problem, plan, scores, value, output, problem->value_dim, src_rows);
    plan->gemm_offset = attni_gemm_add_scratch(&score_call, layout);
    attni_gemm_add_scratch(&value_call, layout);
}

int64_t attni_blas_block_rows(const attni_blas_plan *plan, const attni_sdpa_problem *problem,
                              int64_t first_row) {
    const int64_t left = problem->tgt_len - first_row;
    const int64_t of_one = attni_has_blocks(problem)
                               ? problem->blocks.block_rows - first_row % problem->blocks.block_rows
                               : left;
    return attni_min(plan->row_block, attni_min(left, of_one));
}

/* Blocks of a head's rows: those of a row of blocks, for all that are whole, and of the last. */
static int64_t count_blocks(const attni_sdpa_problem *problem, int64_t row_block) {
    const int64_t rows = problem->tgt_len;
    if (!attni_has_blocks(problem)) {
        return attni_divide_up(rows, row_block);
    }
    const int64_t block_rows = problem->blocks.block_rows;
    return rows / block_rows * attni_divide_up(block_rows, row_block) +
           attni_divide_up(rows % block_rows, row_block);
}

attn_status attni_blas_make_plan(const attn_context *context, const attni_sdpa_problem *problem,
                                 attni_blas_plan *plan, attni_layout *layout) {
    plan->gemm = attni_context_attention_gemm(context);
    plan->score_cols = problem->src_len + problem->extra_cols;
    plan->row_block = choose_row_block(problem);
    plan->packs = packs_of_layouts(problem);
    ATTNI_TRY(attni_gemm_check(plan->gemm));
    if (plan->gemm == ATTN_GEMM_NATIVE) {
        plan->packs &= ~ATTNI_PACKS_QUERY; /* the native product reads any layout; only what it
                                              reads many times is worth a copy */
    }
    plan->packs |= packs_of_types(problem) | packs_of_pages(problem);
    plan->widens_query = problem->query.dtype != problem->score_dtype;
    plan->sums_averages = problem->weights.is_present && problem->average_weights &&
                          problem->weights.dtype != problem->score_dtype;
    if (problem->rows_are_written) {
        plan->num_blocks =
            problem->num_batches * problem->num_heads * count_blocks(problem, plan->row_block);
    }
    const int64_t averages = plan->sums_averages ? problem->tgt_len : 0;
    plan->averages_offset =
        attni_layout_add(layout, averages, (size_t)plan->score_cols * sizeof(float));
    if (plan->num_blocks > 0) {
        plan->is_parallel = plan->score_cols >= PARALLEL_ELEMENTS / plan->row_block;
        lay_out(problem, plan, layout);
    }
    return ATTN_OK;
}
