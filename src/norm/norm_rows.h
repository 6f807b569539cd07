/* SPDX-License-Identifier: BSD-3-Clause
 *
 * norm_rows.h: one checked RMS normalisation, and its run.
 */
#ifndef ATTNI_NORM_NORM_ROWS_H
#define ATTNI_NORM_NORM_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "context/context.h"

/* A checked call. The row axes are input's without its last. */
typedef struct attni_norm_problem {
    attn_tensor input;
    attn_tensor output;
    bool has_weight;
    attn_tensor weight;                    /* dtype and data */
    int64_t weight_strides[ATTN_MAX_RANK]; /* broadcast to input's axes */
    double epsilon;
    double weight_offset;
    int32_t score_dtype;
    int32_t row_rank;
    int64_t num_rows;
    int64_t num_cols; /* E */
} attni_norm_problem;

/* What epsilon 0 stands for: PyTorch's default for a score type. */
double attni_norm_default_epsilon(int32_t score_dtype);

attn_status attni_norm_run(attn_context *context, const attni_norm_problem *problem);

/* The gradients of a normalisation with a weight, whose input and output, of the score type, have
 * consecutive elements in a row. `output` holds the gradient of what the rows became; that of the
 * rows takes its place. With x^ = input / rms(input) and g = output * (weight + offset)
 *
 *     output = (g - x^ mean(g x^)) / rms(input),  sums = sum over the rows of output x^
 *
 * A row whose gradient is 0 throughout adds nothing and stays, whatever its input holds. `sums` has
 * num_cols numbers for each of attni_norm_blocks blocks of rows, which is 1 at least; the first
 * num_cols become the sum of all, in the order of blocks. */
int64_t attni_norm_blocks(const attni_norm_problem *problem);
attn_status attni_norm_back(attn_context *context, const attni_norm_problem *problem, double *sums);

#endif
