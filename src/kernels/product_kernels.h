/* SPDX-License-Identifier: BSD-3-Clause
 *
 * product_kernels.h: matrix products y = factor * (start + x w), in float32 and float64; in float32
 * w may be stored in 16 bits or as int8, and there is a table for each of the types it is stored in.
 * An integer is the number it is: a scale of its column comes after the sum.
 *
 * w is read from STRIPS, copies of so many of its columns side by side as 64 bytes hold of the
 * type that is computed in, 16 or 8, whatever the instruction set: strip[k][c] = w(k, first + c),
 * zero where w has no such column. A step along k then is one cache line of w and one element of
 * each row of x, which lies wherever it lies.
 *
 * EVERY ELEMENT OF y IS ONE SUM IN THE ORDER OF k, from `start` on, each step rounded to the
 * element type (once where the instruction set multiplies and adds in one). So neither the shapes
 * nor how the work is cut up, along rows, columns or k, changes a bit of a result.
 *
 * Kernels get checked pointers and sizes, cannot fail and do not allocate. Pointers may have any
 * alignment, strides are in elements and may have any sign.
 */
#ifndef ATTNI_KERNELS_PRODUCT_KERNELS_H
#define ATTNI_KERNELS_PRODUCT_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ATTNI_STRIP_BYTES = 64,   /* of one k, half of them where w has 16 bits, a quarter of int8 */
    ATTNI_STRIPS_AT_ONCE = 2, /* work on so many neighbouring strips, or a multiple, is fastest */
    ATTNI_ROWS_AT_ONCE = 12   /* and on a multiple of so many rows, that being one for 6 and 4 */
};

typedef struct attni_product_block {
    /* Element (r, k) of x at x + r * x_row_stride + k * x_col_stride, and y likewise. */
    const void *x;
    int64_t x_row_stride;
    int64_t x_col_stride;
    void *y;
    int64_t y_row_stride;
    int64_t y_col_stride;

    const void *strips;
    int64_t strip_stride; /* elements from the beginning of a strip to that of the next */
    int64_t strip_step;   /* and from one k of a strip to the next */

    int64_t rows;  /* of x and y */
    int64_t cols;  /* of y; those of the first strip come first */
    int64_t depth; /* columns of x: the terms of a sum */

    /* What the sums begin with: y itself if is_added, else the elements of bias, one for each
     * column, else 0 where that is NULL. */
    bool is_added;
    const void *bias;
    int64_t bias_stride;

    double factor;
} attni_product_block;

typedef struct attni_product_kernels {
    void (*multiply)(const attni_product_block *block);

    /* strip[k][c] = w[k * k_stride + c * col_stride] for k < depth, 0 from c = cols on. */
    void (*pack)(void *strip, const void *w, int64_t k_stride, int64_t col_stride, int64_t depth,
                 int64_t cols);

    /* y = y * scales + bias for the block's rows and cols: a scale and an element of bias for each
     * column, scales side by side. Nothing else of the block is looked at. */
    void (*scale)(const attni_product_block *block, const void *scales);
} attni_product_kernels;

#endif
