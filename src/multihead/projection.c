/* SPDX-License-Identifier: BSD-3-Clause
 *
 * projection.c: y = x W^T + b on views, as few matrix products as the layouts allow. Products are
 * of the score type; what is stored otherwise is copied for them, but for weights of 16 bits, which
 * the native product reads as they are.
 */
#include "base/checked_size.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* The slots of each projection. */
static const int32_t weight_slots[ATTNI_NUM_PROJECTIONS] = {ATTNI_Q_WEIGHT, ATTNI_K_WEIGHT,
                                                            ATTNI_V_WEIGHT, ATTNI_O_WEIGHT};
static const int32_t bias_slots[ATTNI_NUM_PROJECTIONS] = {ATTNI_Q_BIAS, ATTNI_K_BIAS, ATTNI_V_BIAS,
                                                          ATTNI_O_BIAS};

const attni_mha_slot *attni_projection_weight(const attn_mha *layer, int32_t projection) {
    return &layer->slots[weight_slots[projection]];
}

/* Of the score type: the view itself, or a dense one in its place, without memory as yet. */
static attn_tensor as_computed(const attni_mha_problem *problem, const attn_tensor *stored) {
    const int32_t outer = problem->is_batch_major ? 0 : 1;
    attn_tensor view = *stored;
    if (stored->dtype == problem->layer->score_dtype) {
        return view;
    }
    view.dtype = problem->layer->score_dtype;
    view.data = NULL;
    view.strides[2] = 1;
    view.strides[1 - outer] = stored->shape[2];
    view.strides[outer] = stored->shape[2] * stored->shape[1 - outer]; /* fits: so do the bytes */
    return view;
}

/* BLAS reads no strips and nothing that is stored in 16 bits. */
static bool needs_dense_copy(const attni_mha_slot *weight, const attni_gemm_call *call) {
    return call->backend == ATTN_GEMM_BLAS &&
           (weight->in_strips || weight->view.dtype != call->dtype);
}

static void plan_weight(const attni_mha_slot *slot, const attni_kernel_set *kernels,
                        attni_gemm_call *call) {
    const attn_tensor *weight = &slot->view;
    const bool is_native = call->backend == ATTN_GEMM_NATIVE;
    call->b = (attni_matrix){weight->data, 0, weight->strides[1], weight->strides[0]};
    if (needs_dense_copy(slot, call)) {
        call->b = (attni_matrix){NULL, 0, 1, weight->shape[1]};
    }
    if (is_native && weight->dtype != call->dtype) {
        call->narrow_b = weight->dtype;
    }
    call->kernels = attni_product_kernels_of(kernels, attni_gemm_b_dtype(call));
    call->strips = slot->in_strips ? slot->owned : NULL;
}

void attni_projection_plan(const attni_mha_problem *problem, int32_t projection, int32_t backend,
                           const attni_kernel_set *kernels, const attn_tensor *x,
                           const attn_tensor *y, attni_mha_plan *plan) {
    const attn_mha *layer = problem->layer;
    const attni_mha_slot *slot = attni_projection_weight(layer, projection);
    const attn_tensor *bias = &layer->slots[bias_slots[projection]].view;
    const attn_tensor input = as_computed(problem, x);
    const attn_tensor output = as_computed(problem, y);
    const int32_t outer = problem->is_batch_major ? 0 : 1;
    const int32_t inner = 1 - outer;
    attni_gemm_call call = {
        .backend = backend,
        .dtype = layer->score_dtype,
        .batch = x->shape[outer],
        .rows = x->shape[inner],
        .cols = slot->view.shape[0],
        .inner = slot->view.shape[1],
        .alpha = 1,
        .a = {input.data, input.strides[outer], input.strides[inner], input.strides[2]},
        .c = {output.data, output.strides[outer], output.strides[inner], output.strides[2]},
        .bias = layer->has_bias ? bias->data : NULL,
        .bias_stride = bias->strides[0],
    };
    plan_weight(slot, kernels, &call);
    attni_gemm_collapse(&call);
    plan->projections[projection] = call;
    plan->copies[projection] = (attni_mha_copies){
        .widens_input = x->dtype != layer->score_dtype,
        .narrows_output = y->dtype != layer->score_dtype,
        .widens_bias = layer->has_bias && layer->parameter_dtype != layer->score_dtype,
        .input = *x,
        .output = *y,
    };
}

/* Bytes of the strips of a bound weight, 0 where they are not worth it. */
static int64_t strips_bytes(const attni_mha_slot *weight, const attni_gemm_call *call) {
    const bool has_strips = weight->in_strips || call->backend == ATTN_GEMM_BLAS;
    return has_strips ? 0 : attni_gemm_strips_bytes(call);
}

/* A dense copy of (N, rows, features) in the score type. */
static size_t add_copy(bool is_wanted, const attn_tensor *view, size_t element,
                       attni_layout *layout) {
    int64_t rows = 0;
    if (is_wanted && !attni_multiply(view->shape[0], view->shape[1], &rows)) {
        layout->overflow = true;
    }
    int64_t row_bytes = 0;
    if (is_wanted && !attni_multiply(view->shape[2], (int64_t)element, &row_bytes)) {
        layout->overflow = true;
    }
    return attni_layout_add(layout, rows, (size_t)row_bytes);
}

void attni_projection_add_scratch(const attn_mha *layer, int32_t projection, attni_mha_plan *plan,
                                  attni_layout *layout) {
    const attni_mha_slot *weight = attni_projection_weight(layer, projection);
    const attni_gemm_call *call = &plan->projections[projection];
    attni_mha_copies *copies = &plan->copies[projection];
    const size_t element = attn_dtype_size_bytes(call->dtype);
    const size_t base = layout->bytes;
    copies->input_offset = add_copy(copies->widens_input, &copies->input, element, layout) - base;
    copies->output_offset =
        add_copy(copies->narrows_output, &copies->output, element, layout) - base;
    copies->bias_offset =
        attni_layout_add(layout, copies->widens_bias ? call->cols : 0, element) - base;
    copies->product_offset = attni_layout_add(layout, 0, 1) - base;
    if (needs_dense_copy(weight, call)) {
        attni_layout_add(layout, call->cols, (size_t)call->inner * element);
    }
    attni_layout_add(layout, strips_bytes(weight, call), 1);
    attni_gemm_add_scratch(call, layout);
}

/* ---- copies ---- */

/* Rows that make a task of widening or narrowing. */
enum { TASK_ROWS = 64 };

/* A tensor as it is stored and its dense copy, on their way from one to the other. */
typedef struct conversion {
    const attni_storage_kernels *storage;
    const attn_tensor *stored; /* (N, rows, features) */
    int32_t outer;             /* the axis that is outermost in the copy */
    float *dense;
    bool is_widening;
} conversion;

static void convert_rows(void *data, int64_t task) {
    const conversion *c = data;
    const attn_tensor *stored = c->stored;
    const int32_t inner = 1 - c->outer;
    const int64_t rows = stored->shape[0] * stored->shape[1];
    const int64_t end = attni_min(rows, (task + 1) * TASK_ROWS);
    for (int64_t row = task * TASK_ROWS; row < end; ++row) {
        const int64_t offset = row / stored->shape[inner] * stored->strides[c->outer] +
                               row % stored->shape[inner] * stored->strides[inner];
        char *at = attni_advance(stored->data, offset * c->storage->element_bytes);
        float *dense = c->dense + row * stored->shape[2];
        if (c->is_widening) {
            c->storage->widen(dense, at, stored->strides[2], stored->shape[2]);
        } else {
            c->storage->narrow(at, stored->strides[2], dense, stored->shape[2]);
        }
    }
}

/* With threads where the projection itself is worth them. */
static attn_status convert(attn_context *context, const conversion *c, bool by_threads) {
    const int64_t tasks = attni_divide_up(c->stored->shape[0] * c->stored->shape[1], TASK_ROWS);
    if (by_threads) {
        return attni_parallel_for(context, tasks, convert_rows, (void *)(uintptr_t)c);
    }
    for (int64_t task = 0; task < tasks; ++task) {
        convert_rows((void *)(uintptr_t)c, task);
    }
    return ATTN_OK;
}

static conversion conversion_of(const attn_context *context, const attn_tensor *stored,
                                bool is_batch_major, char *dense, bool is_widening) {
    return (conversion){
        .storage = attni_storage_kernels_of(attni_context_kernels(context), stored->dtype),
        .stored = stored,
        .outer = is_batch_major ? 0 : 1,
        .dense = (float *)(void *)dense,
        .is_widening = is_widening,
    };
}

static attn_status copy_inputs(attn_context *context, const attn_mha *layer, int32_t projection,
                               attni_mha_plan *plan, bool by_threads, char *scratch) {
    const attni_mha_copies *copies = &plan->copies[projection];
    attni_gemm_call *call = &plan->projections[projection];
    if (copies->narrows_output) {
        call->c.data = scratch + copies->output_offset;
    }
    if (copies->widens_bias) {
        const attn_tensor *bias = &layer->slots[bias_slots[projection]].view;
        float *wide = (float *)(void *)(scratch + copies->bias_offset);
        attni_storage_kernels_of(attni_context_kernels(context), bias->dtype)
            ->widen(wide, bias->data, bias->strides[0], bias->shape[0]);
        call->bias = (const char *)wide;
        call->bias_stride = 1;
    }
    if (!copies->widens_input) {
        return ATTN_OK;
    }
    call->a.data = scratch + copies->input_offset;
    const conversion widening =
        conversion_of(context, &copies->input, plan->is_batch_major, call->a.data, true);
    return convert(context, &widening, by_threads);
}

static attn_status copy_output(attn_context *context, int32_t projection,
                               const attni_mha_plan *plan, bool by_threads, char *scratch) {
    const attni_mha_copies *copies = &plan->copies[projection];
    if (!copies->narrows_output) {
        return ATTN_OK;
    }
    const conversion narrowing = conversion_of(context, &copies->output, plan->is_batch_major,
                                               scratch + copies->output_offset, false);
    return convert(context, &narrowing, by_threads);
}

/* ---- running ---- */

static void run_by_blas(const attni_mha_slot *weight, const attni_gemm_call *planned,
                        char *scratch) {
    attni_gemm_call call = *planned;
    if (needs_dense_copy(weight, &call)) {
        attni_layout layout = {0};
        attni_layout_add(&layout, call.cols,
                         (size_t)call.inner * attn_dtype_size_bytes(call.dtype));
        attn_tensor dense = weight->view;
        dense.data = scratch;
        dense.dtype = call.dtype;
        attni_make_contiguous(&dense);
        if (weight->in_strips) {
            attni_strips_unpack(&dense, weight->view.dtype, weight->owned);
        } else {
            attni_copy_tensor(&dense, &weight->view);
        }
        call.b.data = scratch;
        call.strips = NULL;
        scratch += layout.bytes;
    }
    attni_gemm_run(&call, scratch);
}

attn_status attni_projection_run(attn_context *context, const attn_mha *layer, attni_mha_plan *plan,
                                 int32_t first, int32_t count, char *scratch) {
    attni_gemm_call *calls = &plan->projections[first];
    const bool is_native = calls->backend == ATTN_GEMM_NATIVE;
    const bool by_threads = is_native && attni_gemm_wants_threads(calls, count);
    for (int32_t i = first; i < first + count; ++i) {
        const attni_mha_slot *weight = attni_projection_weight(layer, i);
        attni_gemm_call *call = &plan->projections[i];
        char *own_scratch = scratch + plan->projection_offsets[i];
        char *product_scratch = own_scratch + plan->copies[i].product_offset;
        ATTNI_TRY(copy_inputs(context, layer, i, plan, by_threads, own_scratch));
        if (!is_native) {
            run_by_blas(weight, call, product_scratch);
        } else if (strips_bytes(weight, call) > 0) {
            call->strips_memory = product_scratch;
        }
    }
    if (is_native) {
        ATTNI_TRY(attni_gemm_native_together(context, calls, count));
    }
    for (int32_t i = first; i < first + count; ++i) {
        ATTNI_TRY(copy_output(context, i, plan, by_threads, scratch + plan->projection_offsets[i]));
    }
    return ATTN_OK;
}
