/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_native.c: the library's own product: any strides, any alignment. The kernels read B in
 * strips; one that is not kept in them is copied, some strips and a stretch of the inner axis at a
 * time, to a buffer that stays in the caches.
 *
 * Every element of C is one sum in the order of the inner axis, however the work is cut up here, so
 * that results depend on nothing but their operands (see product_kernels.h).
 */
#include "base/checked_size.h"
#include "gemm/gemm.h"
#include "gemm/strips.h"
#include "tensor/element.h"

enum {
    DEPTH_BLOCK = 256, /* terms of a sum at a time: a strip of them is half a first-level cache */
    ROW_BLOCK = 96,    /* rows of A whose DEPTH_BLOCK terms stay in the second-level cache */
    COPIED_STRIPS = 4, /* so many at a time read A seldom enough from beyond that cache */
    COPIED_STRIP_BYTES = DEPTH_BLOCK * ATTNI_STRIP_BYTES
};

static char *element_at(const attni_matrix *matrix, int64_t row, int64_t col, int64_t element) {
    return attni_advance(matrix->data,
                         (row * matrix->row_stride + col * matrix->col_stride) * element);
}

static const char *bias_of(const attni_gemm_call *call, const attni_gemm_part *part) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(call->dtype);
    return call->bias == NULL ? NULL
                              : attni_advance((char *)(uintptr_t)call->bias,
                                              part->col * call->bias_stride * element);
}

/* Terms [first, first + depth) of the sums of a part, whose strips begin at `strips`. The last
 * terms bring alpha. */
static void multiply(const attni_gemm_call *call, const attni_gemm_part *part, const char *strips,
                     int64_t strip_stride, int64_t first, int64_t depth) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(call->dtype);
    attni_product_block block = {
        .x_row_stride = call->a.data == NULL ? 0 : call->a.row_stride, /* NULL: depth is 0 */
        .x_col_stride = call->a.col_stride,
        .y_row_stride = call->c.row_stride,
        .y_col_stride = call->c.col_stride,
        .strips = strips,
        .strip_stride = strip_stride,
        .strip_step = attni_strip_cols(attni_gemm_b_dtype(call)),
        .cols = part->cols,
        .depth = depth,
        .is_added = first > 0 || call->beta != 0,
        .bias = call->scales != NULL ? NULL : bias_of(call, part),
        .bias_stride = call->bias_stride,
        .factor = first + depth < call->inner ? 1 : call->alpha,
    };
    for (int64_t done = 0; done < part->rows; done += ROW_BLOCK) {
        block.rows = attni_min(ROW_BLOCK, part->rows - done);
        block.x = element_at(&call->a, part->row + done, first, element);
        block.y = element_at(&call->c, part->row + done, part->col, element);
        call->kernels->multiply(&block);
    }
}

/* A part of few columns, whose strips are copied first. */
static void copy_and_multiply(const attni_gemm_call *call, const attni_gemm_part *part) {
    _Alignas(ATTNI_STRIP_BYTES) char buffer[COPIED_STRIPS * COPIED_STRIP_BYTES];
    const int64_t element = (int64_t)attn_dtype_size_bytes(attni_gemm_b_dtype(call));
    const int64_t width = attni_strip_cols(attni_gemm_b_dtype(call));
    int64_t first = 0;
    do {
        const int64_t depth = attni_min(DEPTH_BLOCK, call->inner - first);
        for (int64_t col = 0; col < part->cols; col += width) {
            call->kernels->pack(buffer + col / width * COPIED_STRIP_BYTES,
                                element_at(&call->b, first, part->col + col, element),
                                call->b.row_stride, call->b.col_stride, depth,
                                attni_min(width, part->cols - col));
        }
        multiply(call, part, buffer, COPIED_STRIP_BYTES / element, first, depth);
        first += depth;
    } while (first < call->inner);
}

static void multiply_strips(const attni_gemm_call *call, const attni_gemm_part *part) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(attni_gemm_b_dtype(call));
    const int64_t width = attni_strip_cols(attni_gemm_b_dtype(call));
    int64_t first = 0;
    do {
        const int64_t depth = attni_min(DEPTH_BLOCK, call->inner - first);
        const int64_t offset = part->col * call->inner + first * width;
        multiply(call, part, call->strips + offset * element, width * call->inner, first, depth);
        first += depth;
    } while (first < call->inner);
}

/* What is left to do to sums of integers: their scales, then the bias. */
static void scale_columns(const attni_gemm_call *call, const attni_gemm_part *part) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(call->dtype);
    const attni_product_block block = {
        .y = element_at(&call->c, part->row, part->col, element),
        .y_row_stride = call->c.row_stride,
        .y_col_stride = call->c.col_stride,
        .rows = part->rows,
        .cols = part->cols,
        .bias = bias_of(call, part),
        .bias_stride = call->bias_stride,
    };
    call->kernels->scale(&block, call->scales + part->col);
}

static void multiply_copied(const attni_gemm_call *call, const attni_gemm_part *part) {
    const int64_t step = COPIED_STRIPS * attni_strip_cols(attni_gemm_b_dtype(call));
    for (int64_t col = 0; col < part->cols; col += step) {
        attni_gemm_part few = *part;
        few.col += col;
        few.cols = attni_min(step, part->cols - col);
        copy_and_multiply(call, &few);
    }
}

void attni_gemm_native_part(const attni_gemm_call *call, const attni_gemm_part *part) {
    const int64_t element = (int64_t)attn_dtype_size_bytes(call->dtype);
    attni_gemm_call one = *call;
    one.a.data = attni_advance(call->a.data, part->batch * call->a.batch_stride * element);
    one.b.data =
        attni_advance(call->b.data, part->batch * call->b.batch_stride *
                                        (int64_t)attn_dtype_size_bytes(attni_gemm_b_dtype(call)));
    one.c.data = attni_advance(call->c.data, part->batch * call->c.batch_stride * element);
    (call->strips != NULL ? multiply_strips : multiply_copied)(&one, part);
    if (call->scales != NULL) {
        scale_columns(&one, part);
    }
}

/* ---- parts ---- */

enum {
    COPYING_ROWS = 12 * ROW_BLOCK,          /* of a part that copies its columns of B */
    COL_GRANULE = 2 * ATTNI_STRIPS_AT_ONCE, /* strips */
    MOST_PARTS = 64,    /* enough for many threads; fewer, longer ones read memory better */
    PART_WORK = 1 << 18 /* multiply-adds of the shortest part worth dealing out */
};

/* Reading an element of B takes as long as multiplying it with so many rows. */
enum { READ_WORK = 8 };

double attni_gemm_work(const attni_gemm_call *call) {
    return (double)call->batch * ((double)call->rows + READ_WORK) * (double)call->cols *
           ((double)call->inner + 1);
}

static int64_t even_block(int64_t length, int64_t num_blocks, int64_t granule) {
    const int64_t even = attni_divide_up(length, num_blocks);
    return attni_max(1, attni_divide_up(even, granule)) * granule;
}

attni_gemm_grid attni_gemm_cut(const attni_gemm_call *call) {
    if (call->batch == 0 || call->rows == 0 || call->cols == 0) {
        return (attni_gemm_grid){0};
    }
    const int64_t most_rows = call->strips != NULL ? ROW_BLOCK : COPYING_ROWS;
    const int64_t row_blocks = attni_divide_up(call->rows, most_rows);
    const double wanted = attni_gemm_work(call) / PART_WORK;
    const int64_t num_parts = wanted < MOST_PARTS ? (int64_t)wanted : MOST_PARTS;
    const int64_t col_blocks = attni_max(1, num_parts / (call->batch * row_blocks));
    attni_gemm_grid grid = {
        .row_block = even_block(call->rows, row_blocks, ATTNI_ROWS_AT_ONCE),
        .col_block = even_block(call->cols, col_blocks,
                                COL_GRANULE * attni_strip_cols(attni_gemm_b_dtype(call))),
    };
    grid.row_blocks = attni_divide_up(call->rows, grid.row_block);
    grid.col_blocks = attni_divide_up(call->cols, grid.col_block);
    grid.num_parts = call->batch * grid.row_blocks * grid.col_blocks;
    return grid;
}

attni_gemm_part attni_gemm_part_of(const attni_gemm_call *call, const attni_gemm_grid *grid,
                                   int64_t index) {
    attni_gemm_part part = {
        .col = index % grid->col_blocks * grid->col_block,
        .row = index / grid->col_blocks % grid->row_blocks * grid->row_block,
        .batch = index / grid->col_blocks / grid->row_blocks,
    };
    part.rows = attni_min(grid->row_block, call->rows - part.row);
    part.cols = attni_min(grid->col_block, call->cols - part.col);
    return part;
}

void attni_gemm_native(const attni_gemm_call *call) {
    const attni_gemm_grid grid = attni_gemm_cut(call);
    for (int64_t index = 0; index < grid.num_parts; ++index) {
        const attni_gemm_part part = attni_gemm_part_of(call, &grid, index);
        attni_gemm_native_part(call, &part);
    }
}
