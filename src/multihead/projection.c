/* SPDX-License-Identifier: BSD-3-Clause
 *
 * projection.c: y = x W^T + b on views, as few matrix products as the layouts allow.
 */
#include "base/checked_size.h"
#include "multihead/mha_layer.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* Whether each batch's rows follow those of the batch before, a row's distance apart. */
static bool follows(const attni_matrix *matrix, int64_t rows) {
    int64_t reach;
    return attni_multiply(rows, matrix->row_stride, &reach) && matrix->batch_stride == reach;
}

/* x and y as batches of row-major matrices: (outer, inner, features), or one batch where both
 * collapse. */
static attni_gemm_call product_of(const attni_projection *projection) {
    const int32_t outer = projection->is_batch_major ? 0 : 1;
    const int32_t inner = 1 - outer;
    const attn_tensor *x = &projection->x;
    const attn_tensor *y = &projection->y;
    const attn_tensor *weight = projection->weight;
    attni_gemm_call call = {
        .backend = projection->gemm,
        .dtype = x->dtype,
        .batch = x->shape[outer],
        .rows = x->shape[inner],
        .cols = weight->shape[0],
        .inner = weight->shape[1],
        .alpha = 1,
        .beta = projection->bias != NULL ? 1 : 0,
        .a = {x->data, x->strides[outer], x->strides[inner], x->strides[2]},
        .b = {weight->data, 0, weight->strides[1], weight->strides[0]},
        .c = {y->data, y->strides[outer], y->strides[inner], y->strides[2]},
    };
    const bool collapses = follows(&call.a, call.rows) && follows(&call.c, call.rows);
    if (call.batch <= 1 || collapses) {
        call.rows *= call.batch;
        call.batch = call.rows > 0 ? 1 : 0;
    } else if (call.rows == 1) {
        /* One row per batch: the batch axis is the row axis. */
        call.rows = call.batch;
        call.batch = 1;
        call.a.row_stride = call.a.batch_stride;
        call.c.row_stride = call.c.batch_stride;
    }
    return call;
}

void attni_projection_add_scratch(const attni_projection *projection, attni_layout *layout) {
    const attni_gemm_call call = product_of(projection);
    attni_gemm_add_scratch(&call, layout);
}

void attni_projection_run(const attni_projection *projection, char *scratch) {
    const attni_gemm_call call = product_of(projection);
    const size_t element = attn_dtype_size_bytes(call.dtype);
    for (int64_t batch = 0; projection->bias != NULL && batch < call.batch; ++batch) {
        const attni_strided_matrix bias = {projection->bias->data, 0, projection->bias->strides[0]};
        const int64_t offset = batch * call.c.batch_stride * (int64_t)element;
        const attni_strided_matrix rows = {attni_advance(call.c.data, offset), call.c.row_stride,
                                           call.c.col_stride};
        attni_copy_matrix(rows, bias, call.rows, call.cols, element);
    }
    attni_gemm_run(&call, scratch);
}
