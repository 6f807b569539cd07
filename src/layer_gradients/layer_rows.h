/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_rows.h: rows of numbers between callers' tensors and the matrices that products read and
 * write, and sums of them.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_ROWS_H
#define ATTNI_LAYER_GRADIENTS_LAYER_ROWS_H

#include <attention/tensor.h>

#include "context/context.h"

/* Rows in the order in which they lie one below the other in a matrix: of (N, rows, features) those
 * of the outer axis together, of (rows, features) or (features) as they are. */
typedef struct attni_layer_rows {
    const attni_kernel_set *set;
    const attn_tensor *tensor;
    int32_t outer; /* 0 or 1, of 3 axes */
    int64_t count;
    int64_t cols;
} attni_layer_rows;

attni_layer_rows attni_layer_rows_of(const attn_context *context, const attn_tensor *tensor,
                                     bool is_batch_major);

/* The address of a row, whose elements lie tensor->strides[rank - 1] apart. */
char *attni_layer_row(const attni_layer_rows *rows, int64_t row);

/* As a matrix of the score type, but for rows that are not kept, which are 0; kept NULL: all are. */
attn_status attni_layer_take_rows(attn_context *context, const attni_layer_rows *rows, char *matrix,
                                  const unsigned char *kept);

/* Which rows have an element that is not 0. */
attn_status attni_layer_find_kept(attn_context *context, const attni_layer_rows *rows,
                                  unsigned char *kept);

/* From a matrix of the score type, rounded once; `is_added`: to what is there. */
attn_status attni_layer_put_rows(attn_context *context, const attni_layer_rows *rows,
                                 const char *matrix, bool is_added);

/* The sum of all rows, in their order, into a tensor of one axis, likewise. */
attn_status attni_layer_sum_rows(attn_context *context, const attni_layer_rows *rows,
                                 const attn_tensor *sums, bool is_added);

#endif
