/* SPDX-License-Identifier: BSD-3-Clause
 *
 * strips.h: a right matrix kept in the order the native product reads it (product_kernels.h): strip
 * after strip of 64 bytes' worth of the columns' sums, each with all its k, the last one filled up
 * with zeroes. The order is the same for every set of kernels.
 */
#ifndef ATTNI_GEMM_STRIPS_H
#define ATTNI_GEMM_STRIPS_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "kernels/product_kernels.h"

/* Columns of a strip of a type: 16, or 8 of float64. */
int64_t attni_strip_cols(int32_t dtype);

/* Columns of whole strips that hold `cols` >= 0; not above INT64_MAX for cols that memory holds. */
int64_t attni_strips_round_up(int32_t dtype, int64_t cols);

/* Where element (k, col) is, in elements, among strips of `inner` values of k. */
int64_t attni_strips_offset(int32_t dtype, int64_t inner, int64_t k, int64_t col);

/* The strips of the transpose of a (cols, inner) matrix of any float type, converted to dtype:
 * `strips`, aligned to ATTNI_STRIP_BYTES, has attni_strips_round_up(cols) * inner elements. */
void attni_strips_pack(char *strips, int32_t dtype, const attn_tensor *matrix);

/* The strips of a matrix from those of its transpose, one of them: `from` are strips of (inner,
 * cols), `to` becomes strip `index` of (cols, inner), which has `cols` values of k. */
void attni_strips_turn(const attni_product_kernels *kernels, int32_t dtype, char *to,
                       const char *from, int64_t inner, int64_t cols, int64_t index);

/* And back, from strips of dtype: to a matrix of any float type and layout. */
void attni_strips_unpack(const attn_tensor *matrix, int32_t dtype, const char *strips);

#endif
