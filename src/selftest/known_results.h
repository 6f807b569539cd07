/* SPDX-License-Identifier: BSD-3-Clause
 *
 * known_results.h: the checks of attn_selftest. Each computes something known with a context's
 * settings and returns ATTN_OK, ATTN_ERROR_SELFTEST with a line that tells which number is wrong,
 * or what the calls inside it failed with. A check has memory of its own, so that any number may
 * run at the same time.
 */
#ifndef ATTNI_SELFTEST_KNOWN_RESULTS_H
#define ATTNI_SELFTEST_KNOWN_RESULTS_H

#include <stdint.h>

#include <attention/tensor.h>

#include "base/workspace.h"
#include "context/context.h"
#include "tensor/tensor_check.h"

/* Which of the forms of every product, which of the calls of attention, of caches and of gradients:
 * first, first + step, ... A check of weights or a layer has no forms: it is run whole. */
typedef struct attni_selftest_forms {
    int32_t first;
    int32_t step;
} attni_selftest_forms;

/* integer_products.c: products by ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE. */
attn_status attni_selftest_products(attn_context *context, int32_t dtype, int32_t backend,
                                    attni_selftest_forms forms);

/* integer_attention.c: attention with the scores as weights. Where inputs have 16 bits, the output
 * is float32, here and of a layer, so that it is not rounded to them. */
attn_status attni_selftest_attention(attn_context *context, int32_t dtype,
                                     attni_selftest_forms forms);

/* integer_caches.c: attention over integers with scales; of float32. */
attn_status attni_selftest_caches(attn_context *context, int32_t dtype, attni_selftest_forms forms);

/* integer_gradients.c: the backward pass, of float32 and float64. */
attn_status attni_selftest_gradients(attn_context *context, int32_t dtype,
                                     attni_selftest_forms forms);

/* known_weights.c: softmax, and attention with it. */
attn_status attni_selftest_weights(attn_context *context, int32_t dtype,
                                   attni_selftest_forms forms);

/* known_layer.c: multi-head attention. */
attn_status attni_selftest_layer(attn_context *context, int32_t dtype, attni_selftest_forms forms);

/* What a check asks attni_selftest_place for. */
typedef struct attni_selftest_shape {
    int32_t dtype;
    int32_t rank;
    int64_t shape[4];
} attni_selftest_shape;

/* known_tensors.c: contiguous tensors in one block of memory, which the caller releases, zeroed.
 * Fails with ATTN_ERROR_MEMORY, and then there is nothing to release. */
attn_status attni_selftest_place(attn_context *context, const attni_selftest_shape *shapes,
                                 int32_t count, attn_tensor *tensors, attni_workspace *memory);

/* known_tensors.c: fails unless got is within `bound` of expected, as NaN is not; element (row,
 * col) of `what`. */
attn_status attni_selftest_compare(const char *what, int32_t dtype, int64_t row, int64_t col,
                                   double expected, double got, double bound);

/* An integer from -4 to 4 that looks like chance: element (row, col) of matrix `which`. */
static inline int32_t attni_selftest_integer(uint32_t which, int64_t row, int64_t col) {
    const uint32_t mixed =
        (which * 40503u + (uint32_t)row * 2654435761u) ^ ((uint32_t)col * 2246822519u + 374761393u);
    return (int32_t)((mixed * 3266489917u >> 8) % 9) - 4;
}

/* u of the bounds in the headers, in the widest of the rounding modes. */
static inline double attni_selftest_rounding(int32_t dtype) {
    return 8 * (dtype == ATTN_DTYPE_FLOAT64 ? 0x1p-53 : 0x1p-24);
}

static inline const char *attni_selftest_type_name(int32_t dtype) {
    return attni_dtype_name(dtype);
}

#endif
