/* SPDX-License-Identifier: BSD-3-Clause
 *
 * projection.c: y = x W^T + b on views, as few matrix products as the layouts allow.
 */
#include "base/checked_size.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"

/* The slots of each projection. */
static const int32_t weight_slots[ATTNI_NUM_PROJECTIONS] = {ATTNI_Q_WEIGHT, ATTNI_K_WEIGHT,
                                                            ATTNI_V_WEIGHT, ATTNI_O_WEIGHT};
static const int32_t bias_slots[ATTNI_NUM_PROJECTIONS] = {ATTNI_Q_BIAS, ATTNI_K_BIAS, ATTNI_V_BIAS,
                                                          ATTNI_O_BIAS};

const attni_mha_slot *attni_projection_weight(const attn_mha *layer, int32_t projection) {
    return &layer->slots[weight_slots[projection]];
}

/* Whether each batch's rows follow those of the batch before, a row's distance apart. */
static bool follows(const attni_matrix *matrix, int64_t rows) {
    int64_t reach;
    return attni_multiply(rows, matrix->row_stride, &reach) && matrix->batch_stride == reach;
}

/* One batch of rows instead of many, where the layouts allow it. */
static void collapse_batches(attni_gemm_call *call) {
    const bool collapses = follows(&call->a, call->rows) && follows(&call->c, call->rows);
    if (call->batch <= 1 || collapses) {
        call->rows *= call->batch;
        call->batch = call->rows > 0 ? 1 : 0;
    } else if (call->rows == 1) {
        /* One row per batch: the batch axis is the row axis. */
        call->rows = call->batch;
        call->batch = 1;
        call->a.row_stride = call->a.batch_stride;
        call->c.row_stride = call->c.batch_stride;
    }
}

attni_gemm_call attni_projection_call(const attni_mha_problem *problem, int32_t projection,
                                      int32_t backend, const attni_product_kernels *kernels,
                                      const attn_tensor *x, const attn_tensor *y) {
    const attn_mha *layer = problem->layer;
    const attni_mha_slot *slot = attni_projection_weight(layer, projection);
    const attn_tensor *weight = &slot->view;
    const attn_tensor *bias = &layer->slots[bias_slots[projection]].view;
    const int32_t outer = problem->is_batch_major ? 0 : 1;
    const int32_t inner = 1 - outer;
    attni_gemm_call call = {
        .backend = backend,
        .dtype = layer->dtype,
        .batch = x->shape[outer],
        .rows = x->shape[inner],
        .cols = weight->shape[0],
        .inner = weight->shape[1],
        .alpha = 1,
        .a = {x->data, x->strides[outer], x->strides[inner], x->strides[2]},
        .b = {weight->data, 0, weight->strides[1], weight->strides[0]},
        .c = {y->data, y->strides[outer], y->strides[inner], y->strides[2]},
        .bias = layer->has_bias ? bias->data : NULL,
        .bias_stride = bias->strides[0],
        .kernels = kernels,
        .strips = slot->in_strips ? slot->owned : NULL,
    };
    collapse_batches(&call);
    return call;
}

/* BLAS cannot read strips. */
static bool needs_dense_copy(const attni_mha_slot *weight, const attni_gemm_call *call) {
    return weight->in_strips && call->backend == ATTN_GEMM_BLAS;
}

/* Bytes of the strips of a bound weight, 0 where they are not worth it. */
static int64_t strips_bytes(const attni_mha_slot *weight, const attni_gemm_call *call) {
    const bool has_strips = weight->in_strips || call->backend == ATTN_GEMM_BLAS;
    return has_strips ? 0 : attni_gemm_strips_bytes(call);
}

void attni_projection_add_scratch(const attn_mha *layer, int32_t projection,
                                  const attni_gemm_call *call, attni_layout *layout) {
    const attni_mha_slot *weight = attni_projection_weight(layer, projection);
    const size_t element = attn_dtype_size_bytes(call->dtype);
    if (needs_dense_copy(weight, call)) {
        attni_layout_add(layout, call->cols, (size_t)call->inner * element);
    }
    attni_layout_add(layout, strips_bytes(weight, call), 1);
    attni_gemm_add_scratch(call, layout);
}

static void run_by_blas(const attni_mha_slot *weight, const attni_gemm_call *planned,
                        char *scratch) {
    attni_gemm_call call = *planned;
    if (needs_dense_copy(weight, &call)) {
        attni_layout layout = {0};
        attni_layout_add(&layout, call.cols,
                         (size_t)call.inner * attn_dtype_size_bytes(call.dtype));
        attn_tensor dense = weight->view;
        dense.data = scratch;
        attni_strips_unpack(&dense, weight->owned);
        call.b.data = scratch;
        call.strips = NULL;
        scratch += layout.bytes;
    }
    attni_gemm_run(&call, scratch);
}

attn_status attni_projection_run(attn_context *context, const attn_mha *layer, attni_mha_plan *plan,
                                 int32_t first, int32_t count, char *scratch) {
    const bool is_native = plan->projections[first].backend == ATTN_GEMM_NATIVE;
    for (int32_t i = first; i < first + count; ++i) {
        const attni_mha_slot *weight = attni_projection_weight(layer, i);
        attni_gemm_call *call = &plan->projections[i];
        char *own_scratch = scratch + plan->projection_offsets[i];
        if (!is_native) {
            run_by_blas(weight, call, own_scratch);
        } else if (strips_bytes(weight, call) > 0) {
            call->strips_memory = own_scratch;
        }
    }
    return is_native ? attni_gemm_native_together(context, &plan->projections[first], count)
                     : ATTN_OK;
}
