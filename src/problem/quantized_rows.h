/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_rows.h: rows of quantised keys and values as the numbers they mean. Here blocks, pages
 * and zeros end: an engine gets float32 side by side.
 */
#ifndef ATTNI_PROBLEM_QUANTIZED_ROWS_H
#define ATTNI_PROBLEM_QUANTIZED_ROWS_H

#include "kernels/kernel_select.h"
#include "problem/batch_sequence.h"
#include "problem/sdpa_problem.h"

/* Rows of query head `head`, from number `first` on, to `to`, `stride` floats apart. */
typedef void attni_dequantizer(const attni_kernel_set *set, const attni_sdpa_problem *problem,
                               const attni_sequence *sequence, int64_t head, int64_t first,
                               int64_t count, float *to, int64_t stride);

attni_dequantizer attni_dequantize_keys;
attni_dequantizer attni_dequantize_values;

/* A row of key or value, for its scales and zeros. */
typedef struct attni_number_row {
    int64_t batch;
    int64_t head; /* its own */
    int64_t page;
    int64_t row; /* of the tensor, or of the page */
} attni_number_row;

/* Row `row` of a sequence. */
attni_number_row attni_number_row_of(const attni_sdpa_problem *problem,
                                     const attni_sequence *sequence, int64_t head, int64_t row);

/* Where the number of column `col` is, in elements. */
int64_t attni_number_offset(const attni_sdpa_problem *problem, const attni_block_numbers *numbers,
                            const attni_number_row *at, int64_t col);

/* Numbers of `count` columns from `first` on, or `absent` where nothing was given. */
void attni_lay_out_numbers(const attni_sdpa_problem *problem, const attni_block_numbers *numbers,
                           const attni_number_row *at, int64_t first, int64_t count, float absent,
                           float *to);

/* Whether rows of an operand are integers without zero that have at most one scale each: then it
 * may be multiplied with what is summed of a row instead. By shapes and types alone. */
bool attni_scales_rows(const attni_sdpa_problem *problem, const attni_operand *operand,
                       const attni_quantization *quantization);

/* These scales, of `count` rows of a query head from number `first` on. */
void attni_lay_out_key_scales(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                              int64_t head, int64_t first, int64_t count, float *to);
void attni_lay_out_value_scales(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                                int64_t head, int64_t first, int64_t count, float *to);

/* What stands for a zero that is not given: the middle of integers without sign. */
float attni_middle_of(int32_t dtype);

#endif
