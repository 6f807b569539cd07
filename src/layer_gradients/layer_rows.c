/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_rows.c: a task is a few rows, or a few columns of all of them.
 */
#include "layer_gradients/layer_rows.h"

#include <string.h>

#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

enum {
    TASK_ROWS = 64,
    TASK_COLS = 64,          /* of which sums fit the stack */
    SERIAL_NUMBERS = 1 << 16 /* to move: less is not worth waking a thread for */
};

attni_layer_rows attni_layer_rows_of(const attn_context *context, const attn_tensor *tensor,
                                     bool is_batch_major) {
    attni_layer_rows rows = {.set = attni_context_kernels(context),
                             .tensor = tensor,
                             .outer = is_batch_major ? 0 : 1,
                             .count = 1,
                             .cols = tensor->shape[tensor->rank - 1]};
    for (int32_t axis = 0; axis < tensor->rank - 1; ++axis) {
        rows.count *= tensor->shape[axis]; /* fits: they are rows of a tensor with columns */
    }
    return rows;
}

char *attni_layer_row(const attni_layer_rows *rows, int64_t row) {
    const attn_tensor *tensor = rows->tensor;
    int64_t offset = tensor->rank == 2 ? row * tensor->strides[0] : 0;
    if (tensor->rank == 3) {
        const int32_t inner = 1 - rows->outer;
        offset = row / tensor->shape[inner] * tensor->strides[rows->outer] +
                 row % tensor->shape[inner] * tensor->strides[inner];
    }
    return attni_advance(tensor->data, offset * (int64_t)attn_dtype_size_bytes(tensor->dtype));
}

static int64_t col_stride(const attni_layer_rows *rows) {
    return rows->tensor->strides[rows->tensor->rank - 1];
}

static int64_t element_bytes(const attni_layer_rows *rows) {
    return (int64_t)attn_dtype_size_bytes(attni_score_dtype(rows->tensor->dtype));
}

/* Rows on their way. */
typedef struct rows_move {
    const attni_layer_rows *rows;
    char *matrix;
    unsigned char *kept;
    bool is_added;
    const attni_gradient_kernels *kernels;
    const attn_tensor *sums;
} rows_move;

static rows_move move_of(const attni_layer_rows *rows, char *matrix, unsigned char *kept,
                         bool is_added) {
    return (rows_move){
        .rows = rows,
        .matrix = matrix,
        .kept = kept,
        .is_added = is_added,
        .kernels = attni_gradient_kernels_of(rows->set, attni_score_dtype(rows->tensor->dtype)),
    };
}

static attn_status run(attn_context *context, const rows_move *move, int64_t tasks,
                       attni_task task) {
    if (move->rows->count * move->rows->cols >= SERIAL_NUMBERS) {
        return attni_parallel_for(context, tasks, task, (void *)(uintptr_t)move);
    }
    for (int64_t index = 0; index < tasks; ++index) {
        task((void *)(uintptr_t)move, index);
    }
    return ATTN_OK;
}

static attn_status run_by_rows(attn_context *context, const rows_move *move, attni_task task) {
    return run(context, move, attni_divide_up(move->rows->count, TASK_ROWS), task);
}

static int64_t end_of(const attni_layer_rows *rows, int64_t task) {
    return attni_min(rows->count, (task + 1) * TASK_ROWS);
}

static char *matrix_row(const rows_move *move, int64_t row) {
    return move->matrix + row * move->rows->cols * element_bytes(move->rows);
}

static void take_task(void *data, int64_t task) {
    const rows_move *move = data;
    const attni_layer_rows *rows = move->rows;
    for (int64_t row = task * TASK_ROWS; row < end_of(rows, task); ++row) {
        char *to = matrix_row(move, row);
        if (move->kept != NULL && move->kept[row] == 0) {
            memset(to, 0, (size_t)(rows->cols * element_bytes(rows)));
        } else {
            attni_take_row(rows->set, to, attni_layer_row(rows, row), rows->tensor->dtype,
                           col_stride(rows), rows->cols);
        }
    }
}

attn_status attni_layer_take_rows(attn_context *context, const attni_layer_rows *rows, char *matrix,
                                  const unsigned char *kept) {
    const rows_move move = move_of(rows, matrix, (unsigned char *)(uintptr_t)kept, false);
    return run_by_rows(context, &move, take_task);
}

static bool is_zero(const attni_layer_rows *rows, int64_t row) {
    const char *data = attni_layer_row(rows, row);
    for (int64_t col = 0; col < rows->cols; ++col) {
        if (attni_read_real(data, col * col_stride(rows), rows->tensor->dtype) != 0) {
            return false;
        }
    }
    return true;
}

static void find_task(void *data, int64_t task) {
    const rows_move *move = data;
    for (int64_t row = task * TASK_ROWS; row < end_of(move->rows, task); ++row) {
        move->kept[row] = is_zero(move->rows, row) ? 0 : 1;
    }
}

attn_status attni_layer_find_kept(attn_context *context, const attni_layer_rows *rows,
                                  unsigned char *kept) {
    const rows_move move = move_of(rows, NULL, kept, false);
    return run_by_rows(context, &move, find_task);
}

/* `count` numbers to elements that lie `stride` apart. */
static void put(const rows_move *move, char *to, int64_t stride, int32_t dtype, const char *numbers,
                int64_t count) {
    const attni_layer_rows *rows = move->rows;
    for (int64_t first = 0; first < count; first += TASK_COLS) {
        const int64_t some = attni_min(TASK_COLS, count - first);
        const char *from = numbers + first * element_bytes(rows);
        char *at = to + first * stride * (int64_t)attn_dtype_size_bytes(dtype);
        double line[TASK_COLS];
        if (move->is_added) {
            attni_take_row(rows->set, line, at, dtype, stride, some);
            move->kernels->add(line, from, some);
            from = (const char *)line;
        }
        attni_put_row(rows->set, at, dtype, stride, from, some);
    }
}

static void put_task(void *data, int64_t task) {
    const rows_move *move = data;
    const attni_layer_rows *rows = move->rows;
    for (int64_t row = task * TASK_ROWS; row < end_of(rows, task); ++row) {
        put(move, attni_layer_row(rows, row), col_stride(rows), rows->tensor->dtype,
            matrix_row(move, row), rows->cols);
    }
}

attn_status attni_layer_put_rows(attn_context *context, const attni_layer_rows *rows,
                                 const char *matrix, bool is_added) {
    const rows_move move = move_of(rows, (char *)(uintptr_t)matrix, NULL, is_added);
    return run_by_rows(context, &move, put_task);
}

/* Some columns of all rows. */
static void sum_task(void *data, int64_t task) {
    const rows_move *move = data;
    const attni_layer_rows *rows = move->rows;
    const attn_tensor *sums = move->sums;
    const int64_t first = task * TASK_COLS;
    const int64_t count = attni_min(TASK_COLS, rows->cols - first);
    const int64_t offset =
        first * col_stride(rows) * (int64_t)attn_dtype_size_bytes(rows->tensor->dtype);
    const bool are_numbers =
        rows->tensor->dtype == attni_score_dtype(rows->tensor->dtype) && col_stride(rows) == 1;
    double sum[TASK_COLS] = {0}; /* room for either type, whose zeroes are alike */
    double line[TASK_COLS];
    for (int64_t row = 0; row < rows->count; ++row) {
        const char *from = attni_layer_row(rows, row) + offset;
        if (!are_numbers) {
            attni_take_row(rows->set, line, from, rows->tensor->dtype, col_stride(rows), count);
            from = (const char *)line;
        }
        move->kernels->add(sum, from, count);
    }
    put(move,
        (char *)sums->data + first * sums->strides[0] * (int64_t)attn_dtype_size_bytes(sums->dtype),
        sums->strides[0], sums->dtype, (const char *)sum, count);
}

attn_status attni_layer_sum_rows(attn_context *context, const attni_layer_rows *rows,
                                 const attn_tensor *sums, bool is_added) {
    rows_move move = move_of(rows, NULL, NULL, is_added);
    move.sums = sums;
    return run(context, &move, attni_divide_up(rows->cols, TASK_COLS), sum_task);
}
