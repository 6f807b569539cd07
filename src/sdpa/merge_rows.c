/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_rows.c: blocks of rows that follow each other on the last axis of rows, so that where a
 * tensor's rows lie is found once for all of them.
 *
 * For a row with the logits l_i = lses_i and a sink s, t the largest of them:
 *
 *     e_i = exp(l_i - t),  sum = e_1 + ... + e_count + exp(s - t),  lse = t + log(sum),
 *     output = sum_i (e_i / sum) outputs_i
 *
 * Weights are divided by the sum before they meet the outputs, so that a mean of numbers near the
 * largest one does not overflow. The e_i are computed once for the sum and once for each block of
 * columns: that costs little beside the columns, and needs no memory that grows with count.
 */
#include "sdpa/merge_rows.h"

#include <math.h>

#include "base/checked_size.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

enum {
    ROWS = 16,        /* of a block: a vector of weights */
    SUM_BYTES = 8192, /* of a block's sums, for as many columns at a time as fit */
    MOST_ELEMENT_BYTES = 8
};

/* Rows of a tensor: row r at data + r * stride elements. */
typedef struct tensor_rows {
    char *data;
    int64_t stride;
} tensor_rows;

typedef struct row_block {
    const attni_merge_problem *problem;
    const attni_kernel_set *kernels;
    int64_t index[ATTN_MAX_RANK]; /* of its first row */
    int64_t num_rows;
    double tops[ROWS]; /* t; 0 where all is -inf, NaN where it is +inf */
    double sums[ROWS];
} row_block;

/* The last axis of rows is cut into blocks. */
static int64_t blocks_of_line(const attni_merge_axes *rows) {
    return attni_divide_up(rows->shape[rows->rank - 1], ROWS);
}

int64_t attni_merge_num_blocks(const attni_merge_problem *problem) {
    const attni_merge_axes *rows = &problem->rows;
    int64_t blocks = blocks_of_line(rows);
    for (int32_t axis = 0; axis < rows->rank - 1; ++axis) {
        blocks *= rows->shape[axis];
    }
    return blocks;
}

static row_block block_at(const attni_merge_problem *problem, const attni_kernel_set *kernels,
                          int64_t number) {
    const attni_merge_axes *rows = &problem->rows;
    row_block block = {.problem = problem, .kernels = kernels};
    int32_t axis = rows->rank - 1;
    const int64_t line = blocks_of_line(rows);
    block.index[axis] = number % line * ROWS;
    block.num_rows = attni_min(ROWS, rows->shape[axis] - block.index[axis]);
    number /= line;
    while (--axis >= 0) {
        block.index[axis] = number % rows->shape[axis];
        number /= rows->shape[axis];
    }
    return block;
}

static tensor_rows rows_of(const row_block *block, const attn_tensor *tensor) {
    const attni_merge_axes *rows = &block->problem->rows;
    int64_t offset = 0;
    int64_t stride = 0;
    for (int32_t axis = 0; axis < rows->rank; ++axis) {
        stride = rows->shape[axis] > 1 ? tensor->strides[rows->axis[axis]] : 0;
        offset += block->index[axis] * stride;
    }
    const int64_t element = (int64_t)attn_dtype_size_bytes(tensor->dtype);
    return (tensor_rows){attni_advance(tensor->data, offset * element), stride};
}

/* ---- weights ---- */

static double sink_of(const row_block *block, int64_t row) {
    const attn_tensor *sinks = &block->problem->sinks;
    const tensor_rows rows = rows_of(block, sinks);
    return attni_read_real(rows.data, row * rows.stride, sinks->dtype);
}

static void find_tops(row_block *block) {
    const attni_merge_problem *problem = block->problem;
    const bool has_sinks = problem->sinks.dtype != ATTN_DTYPE_INVALID;
    for (int64_t row = 0; row < block->num_rows; ++row) {
        block->tops[row] = has_sinks ? sink_of(block, row) : -(double)INFINITY;
    }
    for (int64_t part = 0; part < problem->count; ++part) {
        const tensor_rows lses = rows_of(block, &problem->lses[part]);
        for (int64_t row = 0; row < block->num_rows; ++row) {
            const double lse = attni_read_real(lses.data, row * lses.stride, problem->score_dtype);
            block->tops[row] = lse > block->tops[row] ? lse : block->tops[row];
        }
    }
    for (int64_t row = 0; row < block->num_rows; ++row) {
        if (isinf(block->tops[row])) {
            block->tops[row] = block->tops[row] > 0 ? (double)NAN : 0;
        }
    }
}

/* The e_i of a part's rows; exactly 0 for -inf, also where t is NaN. */
static void find_exponentials(const row_block *block, int64_t part, double exponentials[ROWS]) {
    const int32_t dtype = block->problem->score_dtype;
    const tensor_rows lses = rows_of(block, &block->problem->lses[part]);
    double memory[ROWS]; /* of the score type */
    char *scores = (char *)memory;
    for (int64_t row = 0; row < block->num_rows; ++row) {
        const double lse = attni_read_real(lses.data, row * lses.stride, dtype);
        const bool is_empty = lse == -(double)INFINITY;
        attni_write_real(scores, row, dtype, is_empty ? lse : lse - block->tops[row]);
    }
    attni_kernels_of(block->kernels, dtype)->exp(scores, block->num_rows);
    for (int64_t row = 0; row < block->num_rows; ++row) {
        exponentials[row] = attni_read_real(scores, row, dtype);
    }
}

static void find_sums(row_block *block) {
    const attni_merge_problem *problem = block->problem;
    const bool has_sinks = problem->sinks.dtype != ATTN_DTYPE_INVALID;
    for (int64_t row = 0; row < block->num_rows; ++row) {
        block->sums[row] = has_sinks ? exp(sink_of(block, row) - block->tops[row]) : 0;
    }
    for (int64_t part = 0; part < problem->count; ++part) {
        double exponentials[ROWS];
        find_exponentials(block, part, exponentials);
        for (int64_t row = 0; row < block->num_rows; ++row) {
            block->sums[row] += exponentials[row];
        }
    }
}

/* What a part's rows are multiplied by: 0 where the part does not enter at all. */
static void find_weights(const row_block *block, int64_t part, double weights[ROWS]) {
    if (block->problem->lses != NULL) {
        find_exponentials(block, part, weights);
    }
    for (int64_t row = 0; row < block->num_rows; ++row) {
        if (block->problem->lses == NULL) {
            weights[row] = 1;
        } else if (weights[row] != 0) {
            weights[row] /= block->sums[row];
        }
    }
}

/* ---- columns ---- */

/* The first `count` columns behind column `first`, whose sums are kept `pitch` bytes apart. */
typedef struct column_block {
    int64_t first;
    int64_t count;
    char *sums;
    int64_t pitch;
} column_block;

/* Where the block's columns of a tensor begin, and how far apart they are. */
static char *columns_of(const column_block *columns, const attn_tensor *tensor, char *row,
                        int64_t *stride) {
    *stride = attni_stride(tensor, tensor->rank - 1);
    return row + columns->first * *stride * (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

static void add_part(const row_block *block, const column_block *columns, int64_t part) {
    const attn_tensor *partial = &block->problem->outputs[part];
    const tensor_rows rows = rows_of(block, partial);
    const int64_t row_bytes = rows.stride * (int64_t)attn_dtype_size_bytes(partial->dtype);
    int64_t stride;
    const char *from = columns_of(columns, partial, rows.data, &stride);
    double weights[ROWS];
    find_weights(block, part, weights);
    for (int64_t row = 0; row < block->num_rows; ++row) {
        if (weights[row] == 0) {
            continue;
        }
        void *sums = columns->sums + row * columns->pitch;
        if (partial->dtype == ATTN_DTYPE_FLOAT64) {
            block->kernels->float64->accumulate(sums, from + row * row_bytes, stride,
                                                columns->count, weights[row]);
        } else {
            attni_storage_kernels_of(block->kernels, partial->dtype)
                ->accumulate(sums, from + row * row_bytes, stride, columns->count,
                             (float)weights[row]);
        }
    }
}

static void put_columns(const row_block *block, const column_block *columns) {
    const attn_tensor *output = block->problem->output;
    const tensor_rows rows = rows_of(block, output);
    const int64_t row_bytes = rows.stride * (int64_t)attn_dtype_size_bytes(output->dtype);
    int64_t stride;
    char *to = columns_of(columns, output, rows.data, &stride);
    for (int64_t row = 0; row < block->num_rows; ++row) {
        char *sums = columns->sums + row * columns->pitch;
        if (output->dtype == ATTN_DTYPE_FLOAT64) {
            attni_copy_matrix((attni_strided_matrix){to + row * row_bytes, 0, stride},
                              (attni_strided_matrix){sums, 0, 1}, 1, columns->count,
                              sizeof(double));
        } else {
            attni_storage_kernels_of(block->kernels, output->dtype)
                ->narrow(to + row * row_bytes, stride, (const float *)(const void *)sums,
                         columns->count);
        }
    }
}

/* In place, columns are read of all parts before they are written. */
static void merge_columns(const row_block *block) {
    const attni_merge_problem *problem = block->problem;
    double memory[SUM_BYTES / MOST_ELEMENT_BYTES];
    const int64_t pitch = SUM_BYTES / ROWS;
    const int64_t width = pitch / (int64_t)attn_dtype_size_bytes(problem->score_dtype);
    for (int64_t first = 0; first < problem->num_cols; first += width) {
        const column_block columns = {.first = first,
                                      .count = attni_min(width, problem->num_cols - first),
                                      .sums = (char *)memory,
                                      .pitch = pitch};
        memset(memory, 0, (size_t)(block->num_rows * pitch));
        for (int64_t part = 0; part < problem->count; ++part) {
            add_part(block, &columns, part);
        }
        put_columns(block, &columns);
    }
}

static void put_lse(const row_block *block) {
    const attni_merge_problem *problem = block->problem;
    const tensor_rows rows = rows_of(block, problem->lse);
    for (int64_t row = 0; row < block->num_rows; ++row) {
        attni_write_real(rows.data, row * rows.stride, problem->score_dtype,
                         block->tops[row] + log(block->sums[row]));
    }
}

void attni_merge_block(const attni_merge_problem *problem, const attni_kernel_set *kernels,
                       int64_t number) {
    row_block block = block_at(problem, kernels, number);
    if (problem->lses != NULL) {
        find_tops(&block);
        find_sums(&block);
    }
    merge_columns(&block);
    /* Last: it may be one of lses, which the columns read. */
    if (problem->lse != NULL) {
        put_lse(&block);
    }
}
