/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_rows.c: rows are dequantised a piece of their columns at a time. Columns that have the
 * same scale and zero are a piece; where few have, numbers are laid out column by column, so that
 * one for the tensor, each head, row, channel or block are one path. They are found anew only for
 * rows that have others.
 */
#include "problem/quantized_rows.h"

#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

enum { PIECE = 128 /* columns; whole elements of every type */ };

/* Key or value, and one of its own heads. */
typedef struct quantized_operand {
    const attni_kernel_set *set;
    const attni_sdpa_problem *problem;
    const attni_operand *operand;
    const attni_quantization *quantization;
    int64_t page_stride;
    int64_t head;
    int64_t cols;
} quantized_operand;

float attni_middle_of(int32_t dtype) {
    return dtype == ATTN_DTYPE_UINT8 ? 128.0F : dtype == ATTN_DTYPE_UINT4X2 ? 8.0F : 0.0F;
}

/* Where there is one number for all, or none, there is no step either. */
static int64_t axis_offset(int64_t at, int64_t step, int64_t stride) {
    return stride == 0 ? 0 : at / step * stride;
}

int64_t attni_number_offset(const attni_sdpa_problem *problem, const attni_block_numbers *numbers,
                            const attni_number_row *at, int64_t col) {
    const int32_t rank = problem->batch_rank;
    const int64_t *strides = numbers->strides;
    const int64_t *steps = numbers->steps;
    int64_t offset = axis_offset(at->page, numbers->page_step, numbers->page_stride) +
                     axis_offset(at->head, steps[rank], strides[rank]) +
                     axis_offset(at->row, steps[rank + 1], strides[rank + 1]) +
                     axis_offset(col, steps[rank + 2], strides[rank + 2]);
    int64_t batch = at->batch + problem->first_batch;
    for (int32_t axis = rank - 1; axis >= 0; --axis) {
        const int64_t index = axis > 0 ? batch % problem->batch_shape[axis] : batch;
        batch = axis > 0 ? batch / problem->batch_shape[axis] : 0;
        offset += axis_offset(index, steps[axis], strides[axis]);
    }
    return offset;
}

attni_number_row attni_number_row_of(const attni_sdpa_problem *problem,
                                     const attni_sequence *sequence, int64_t head, int64_t row) {
    const attni_pages *pages = &problem->pages;
    attni_number_row at = {sequence->batch, head, 0, sequence->first_row + row};
    if (pages->rows > 0) {
        at.page = attni_page_of(problem, sequence, row / pages->rows);
        at.row = row % pages->rows;
    }
    return at;
}

void attni_lay_out_numbers(const attni_sdpa_problem *problem, const attni_block_numbers *numbers,
                           const attni_number_row *at, int64_t first, int64_t count, float absent,
                           float *to) {
    const int32_t col_axis = problem->batch_rank + 2;
    for (int64_t done = 0; done < count;) {
        int64_t end = count;
        float number = absent;
        if (numbers->dtype != 0) {
            const int64_t step =
                numbers->strides[col_axis] == 0 ? INT64_MAX : numbers->steps[col_axis];
            const int64_t offset = attni_number_offset(problem, numbers, at, first + done);
            number = (float)attni_read_real(numbers->data, offset, numbers->dtype);
            end = done + attni_min(count - done, step - (first + done) % step);
        }
        for (; done < end; ++done) {
            to[done] = number;
        }
    }
}

/* Whether two rows, of the same tensor, or page, have the same numbers. */
static bool is_same_block(const attni_sdpa_problem *problem, const attni_block_numbers *numbers,
                          int64_t row, int64_t other) {
    const int32_t axis = problem->batch_rank + 1;
    return numbers->strides[axis] == 0 ||
           row / numbers->steps[axis] == other / numbers->steps[axis];
}

/* Columns of a row that have the same number. */
static int64_t columns_alike(const attni_sdpa_problem *problem,
                             const attni_block_numbers *numbers) {
    const int32_t axis = problem->batch_rank + 2;
    return numbers->dtype == 0 || numbers->strides[axis] == 0 ? INT64_MAX : numbers->steps[axis];
}

enum { FEW_ALIKE = 16, MOST_NUMBERS = PIECE / FEW_ALIKE };

/* Columns of a row; those of each `alike` of them have one scale and one zero. */
typedef struct column_piece {
    int64_t first;
    int64_t count;
    int64_t alike;
} column_piece;

/* Those from `first` on, where a scale and a zero begin. Few that are alike count as none. */
static column_piece piece_from(const quantized_operand *from, int64_t first) {
    const attni_quantization *quantization = from->quantization;
    const int64_t left = from->cols - first;
    const int64_t alike = attni_min(columns_alike(from->problem, &quantization->scale),
                                    columns_alike(from->problem, &quantization->zero));
    const bool are_elements = alike % attn_dtype_values(from->operand->dtype) == 0;
    if (alike >= left) {
        return (column_piece){first, left, INT64_MAX};
    }
    if (alike < FEW_ALIKE || !are_elements) {
        return (column_piece){first, attni_min(left, PIECE), 1};
    }
    const int64_t most = alike < PIECE ? PIECE / alike * alike : alike;
    return (column_piece){first, attni_min(left, most), alike};
}

/* The scales or zeros of a piece in a row: of each column, or of each that are alike. Where rows
 * have their own, these are found by their offsets in the first row, a stride apart. */
typedef struct number_walk {
    const attni_block_numbers *numbers;
    float absent;
    int64_t count;
    bool is_by_row;
    int64_t stride;
    int64_t offsets[MOST_NUMBERS];
    float laid_out[PIECE];
} number_walk;

static int64_t column_of(const column_piece *piece, int64_t number) {
    return number == 0 ? piece->first : piece->first + number * piece->alike;
}

static void start_walk(const quantized_operand *from, const attni_block_numbers *numbers,
                       const attni_number_row *at, const column_piece *piece, number_walk *walk) {
    const int32_t axis = from->problem->batch_rank + 1;
    walk->numbers = numbers;
    walk->count = piece->alike >= piece->count ? 1 : attni_divide_up(piece->count, piece->alike);
    walk->stride = numbers->strides[axis];
    walk->is_by_row =
        piece->alike > 1 && numbers->dtype != 0 && walk->stride != 0 && numbers->steps[axis] == 1;
    for (int64_t i = 0; walk->is_by_row && i < walk->count; ++i) {
        walk->offsets[i] = attni_number_offset(from->problem, numbers, at, column_of(piece, i));
    }
}

/* For the row at->row, which follows the one before it. */
static void step_walk(const quantized_operand *from, const attni_number_row *at, bool is_first,
                      const column_piece *piece, number_walk *walk) {
    const attni_block_numbers *numbers = walk->numbers;
    if (walk->is_by_row) {
        for (int64_t i = 0; i < walk->count; ++i) {
            walk->laid_out[i] =
                (float)attni_read_real(numbers->data, walk->offsets[i], numbers->dtype);
            walk->offsets[i] += walk->stride;
        }
        return;
    }
    if (!is_first && is_same_block(from->problem, numbers, at->row, at->row - 1)) {
        return;
    }
    if (piece->alike == 1) {
        attni_lay_out_numbers(from->problem, numbers, at, piece->first, piece->count, walk->absent,
                              walk->laid_out);
        return;
    }
    for (int64_t i = 0; i < walk->count; ++i) {
        attni_lay_out_numbers(from->problem, numbers, at, column_of(piece, i), 1, walk->absent,
                              walk->laid_out + i);
    }
}

/* Some columns of rows that lie side by side; at->row is the first one. */
static void dequantize_piece(const quantized_operand *from, const attni_source_rows *rows,
                             attni_number_row at, int64_t num_rows, const column_piece *piece,
                             float *to, int64_t stride) {
    const attni_operand *operand = from->operand;
    const int64_t element = piece->first / attn_dtype_values(operand->dtype);
    number_walk scales, zeros;
    scales.absent = 1;
    zeros.absent = attni_middle_of(operand->dtype);
    start_walk(from, &from->quantization->scale, &at, piece, &scales);
    start_walk(from, &from->quantization->zero, &at, piece, &zeros);
    const attni_value_numbers numbers = {scales.laid_out, zeros.laid_out, piece->alike};
    for (int64_t r = 0; r < num_rows; ++r, ++at.row) {
        step_walk(from, &at, r == 0, piece, &scales);
        step_walk(from, &at, r == 0, piece, &zeros);
        const int64_t offset = r * rows->row_stride + element * rows->col_stride;
        attni_take_quantized_row(from->set, to + r * stride,
                                 attni_advance(rows->data, offset * operand->element_bytes),
                                 operand->dtype, rows->col_stride, piece->count, numbers);
    }
}

/* Of rows `first` and on, which lie in one run of rows, each of one scale. */
static void lay_out_run(const attni_sdpa_problem *problem, const attni_block_numbers *scales,
                        attni_number_row at, int64_t count, float *to) {
    const int32_t axis = problem->batch_rank + 1;
    const int64_t stride = scales->strides[axis];
    const int64_t step = stride == 0 ? INT64_MAX : scales->steps[axis];
    for (int64_t done = 0; done < count;) {
        const int64_t offset = attni_number_offset(problem, scales, &at, 0);
        const int64_t left = attni_min(count - done, step - at.row % step);
        if (step == 1) {
            for (; done < count; ++done) {
                to[done] =
                    (float)attni_read_real(scales->data, offset + done * stride, scales->dtype);
            }
            return;
        }
        const float scale = (float)attni_read_real(scales->data, offset, scales->dtype);
        for (const int64_t end = done + left; done < end; ++done) {
            to[done] = scale;
        }
        at.row += left;
    }
}

static void lay_out_row_scales(const attni_sdpa_problem *problem, const attni_block_numbers *scales,
                               const attni_sequence *sequence, int64_t head, int64_t first,
                               int64_t count, float *to) {
    const int64_t page = problem->pages.rows;
    for (int64_t done = 0; done < count;) {
        const int64_t row = first + done;
        const int64_t of_run = page > 0 ? attni_min(count - done, page - row % page) : count;
        lay_out_run(problem, scales, attni_number_row_of(problem, sequence, head, row), of_run,
                    to + done);
        done += of_run;
    }
}

void attni_lay_out_key_scales(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                              int64_t head, int64_t first, int64_t count, float *to) {
    lay_out_row_scales(problem, &problem->key_quantization.scale, sequence,
                       head / problem->key_group, first, count, to);
}

void attni_lay_out_value_scales(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                                int64_t head, int64_t first, int64_t count, float *to) {
    lay_out_row_scales(problem, &problem->value_quantization.scale, sequence,
                       head / problem->value_group, first, count, to);
}

bool attni_scales_rows(const attni_sdpa_problem *problem, const attni_operand *operand,
                       const attni_quantization *quantization) {
    const bool is_of_rows = quantization->scale.cols == 1 || quantization->scale.dtype == 0;
    return problem->score_dtype == ATTN_DTYPE_FLOAT32 && operand->dtype == ATTN_DTYPE_INT8 &&
           quantization->zero.dtype == 0 && is_of_rows;
}

static void dequantize_rows(const quantized_operand *from, const attni_sequence *sequence,
                            int64_t first, int64_t count, float *to, int64_t stride) {
    for (int64_t done = 0; done < count;) {
        const int64_t row = first + done;
        const attni_source_rows rows = attni_sequence_rows(
            from->problem, from->operand, from->page_stride, sequence, from->head, row);
        const int64_t of_run = attni_min(rows.count, count - done);
        const attni_number_row at = attni_number_row_of(from->problem, sequence, from->head, row);
        for (int64_t col = 0; col < from->cols;) {
            const column_piece piece = piece_from(from, col);
            dequantize_piece(from, &rows, at, of_run, &piece, to + done * stride + col, stride);
            col += piece.count;
        }
        done += of_run;
    }
}

void attni_dequantize_keys(const attni_kernel_set *set, const attni_sdpa_problem *problem,
                           const attni_sequence *sequence, int64_t head, int64_t first,
                           int64_t count, float *to, int64_t stride) {
    const quantized_operand keys = {.set = set,
                                    .problem = problem,
                                    .operand = &problem->key,
                                    .quantization = &problem->key_quantization,
                                    .page_stride = problem->pages.key_stride,
                                    .head = head / problem->key_group,
                                    .cols = problem->head_dim};
    dequantize_rows(&keys, sequence, first, count, to, stride);
}

void attni_dequantize_values(const attni_kernel_set *set, const attni_sdpa_problem *problem,
                             const attni_sequence *sequence, int64_t head, int64_t first,
                             int64_t count, float *to, int64_t stride) {
    const quantized_operand values = {.set = set,
                                      .problem = problem,
                                      .operand = &problem->value,
                                      .quantization = &problem->value_quantization,
                                      .page_stride = problem->pages.value_stride,
                                      .head = head / problem->value_group,
                                      .cols = problem->value_dim};
    dequantize_rows(&values, sequence, first, count, to, stride);
}
