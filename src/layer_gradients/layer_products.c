/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_products.c: two matrix products for each projection, on the layouts that there are.
 *
 * dy is read as it lies, whatever the strides of its columns, if its rows follow one another. The
 * native product has its right matrices in strips: x is put there row by row, whatever its type, and
 * W from the strips in which the layer keeps it. BLAS reads dense copies.
 */
#include "layer_gradients/layer_products.h"

#include <string.h>

#include "base/checked_size.h"
#include "gemm/strips.h"
#include "layer_gradients/layer_rows.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

static const int32_t weight_slots[ATTNI_NUM_PROJECTIONS] = {ATTNI_Q_WEIGHT, ATTNI_K_WEIGHT,
                                                            ATTNI_V_WEIGHT, ATTNI_O_WEIGHT};

static const attni_mha_slot *weight_of(const attn_mha *layer, int32_t projection) {
    return &layer->slots[weight_slots[projection]];
}

/* ---- plan ---- */

/* Whether rows of the outer axis follow one another, a row's distance apart. */
static bool are_one_matrix(const attn_tensor *rows, int32_t outer) {
    const int32_t inner = 1 - outer;
    int64_t reach;
    return rows->shape[outer] <= 1 || rows->shape[inner] <= 1 ||
           (attni_multiply(rows->shape[inner], rows->strides[inner], &reach) &&
            rows->strides[outer] == reach);
}

static int64_t row_distance(const attn_tensor *rows, int32_t outer) {
    return rows->shape[1 - outer] > 1 ? rows->strides[1 - outer] : rows->strides[outer];
}

static int64_t count_rows(const attn_tensor *rows) {
    return rows->shape[0] * rows->shape[1]; /* fits: the tensor has that many rows */
}

static size_t add_matrix(attni_layout *step, bool is_wanted, int64_t rows, int64_t cols,
                         int32_t dtype) {
    int64_t bytes = 0;
    if (is_wanted && !attni_multiply(cols, (int64_t)attn_dtype_size_bytes(dtype), &bytes)) {
        step->overflow = true;
    }
    return attni_layout_add(step, is_wanted ? rows : 0, (size_t)bytes);
}

/* dx = dy W. */
static void plan_to_rows(const attni_layer_problem *problem, const attni_kernel_set *set,
                         int32_t backend, const attni_mha_slot *slot, attni_layer_product *product,
                         attni_layout *step) {
    const attn_tensor *weight = &slot->view;
    const attn_tensor *dx = &product->rows_gradient;
    const int32_t dtype = problem->call.layer->score_dtype;
    const int32_t outer = problem->call.is_batch_major ? 0 : 1;
    const bool is_native = backend == ATTN_GEMM_NATIVE;
    const int64_t in = weight->shape[1];
    attni_gemm_call call = {
        .backend = backend,
        .dtype = dtype,
        .batch = dx->shape[outer],
        .rows = dx->shape[1 - outer],
        .cols = in,
        .inner = weight->shape[0],
        .alpha = 1,
        .b = {weight->data, 0, weight->strides[0], weight->strides[1]},
        .c = {dx->data, dx->strides[outer], dx->strides[1 - outer], dx->strides[2]},
    };
    const int64_t distance =
        product->copies_gradient ? call.inner : row_distance(&product->gradient, outer);
    call.a = (attni_matrix){product->gradient.data, 0, distance,
                            product->copies_gradient ? 1 : product->gradient.strides[2]};
    (void)attni_multiply(distance, call.rows, &call.a.batch_stride); /* reached if it fits */
    product->has_rows_apart = dx->dtype != dtype || product->adds_to_rows;
    if (product->has_rows_apart) {
        call.c = (attni_matrix){NULL, 0, in, 1};
        (void)attni_multiply(in, call.rows, &call.c.batch_stride);
    }
    if (is_native && weight->dtype != dtype) {
        call.narrow_b = weight->dtype;
    }
    call.kernels = attni_product_kernels_of(set, attni_gemm_b_dtype(&call));
    attni_gemm_collapse(&call);
    const int32_t b_dtype = attni_gemm_b_dtype(&call);
    if (is_native && slot->in_strips) {
        product->turned_offset =
            add_matrix(step, true, attni_strips_round_up(b_dtype, in), call.inner, b_dtype);
    } else if (is_native) {
        product->turned_offset = attni_layout_add(step, attni_gemm_strips_bytes(&call), 1);
    } else if (slot->in_strips || weight->dtype != dtype) {
        call.b = (attni_matrix){NULL, 0, in, 1};
        product->turned_offset = add_matrix(step, true, call.inner, in, dtype);
    }
    product->results_offset = add_matrix(step, product->has_rows_apart, count_rows(dx), in, dtype);
    product->rows_scratch_offset = attni_gemm_add_scratch(&call, step);
    product->to_rows = call;
}

/* dW = dy^T x. */
static void plan_to_weight(const attni_layer_problem *problem, const attni_kernel_set *set,
                           int32_t backend, attni_layer_product *product, attni_layout *step) {
    const attn_tensor *rows = &product->rows;
    const attn_tensor *dw = &product->weight;
    const int32_t dtype = problem->call.layer->score_dtype;
    const int32_t outer = problem->call.is_batch_major ? 0 : 1;
    const bool is_native = backend == ATTN_GEMM_NATIVE;
    const int64_t out = dw->shape[0];
    const int64_t in = dw->shape[1];
    attni_gemm_call call = {
        .backend = backend,
        .dtype = dtype,
        .batch = 1,
        .rows = out,
        .cols = in,
        .inner = count_rows(rows),
        .alpha = 1,
        .b = {NULL, 0, in, 1},
        .c = {dw->data, 0, dw->strides[0], dw->strides[1]},
    };
    call.a = product->copies_gradient
                 ? (attni_matrix){NULL, 0, 1, out}
                 : (attni_matrix){product->gradient.data, 0, product->gradient.strides[2],
                                  row_distance(&product->gradient, outer)};
    product->has_weight_apart = dw->dtype != dtype || problem->accumulates;
    if (product->has_weight_apart) {
        call.c = (attni_matrix){NULL, 0, in, 1};
    }
    if (is_native && rows->dtype != dtype) {
        call.narrow_b = rows->dtype;
    }
    const int32_t b_dtype = attni_gemm_b_dtype(&call);
    call.kernels = attni_product_kernels_of(set, b_dtype);
    product->kept_offset = attni_layout_add(step, call.inner, 1);
    product->packed_offset =
        add_matrix(step, true, is_native ? attni_strips_round_up(b_dtype, in) : in, call.inner,
                   is_native ? b_dtype : dtype);
    product->sums_offset = add_matrix(step, product->has_weight_apart, out, in, dtype);
    product->weight_scratch_offset = attni_gemm_add_scratch(&call, step);
    product->to_weight = call;
}

void attni_layer_product_plan(const attn_context *context, const attni_layer_problem *problem,
                              int32_t projection, attni_layer_product *product,
                              attni_layout *step) {
    const attni_kernel_set *set = attni_context_kernels(context);
    const int32_t backend = attni_context_projection_gemm(context);
    const attn_tensor *gradient = &product->gradient;
    const int32_t outer = problem->call.is_batch_major ? 0 : 1;
    const int32_t dtype = problem->call.layer->score_dtype;
    const bool is_used = product->rows_gradient.rank > 0 || product->weight.rank > 0;
    product->copies_gradient =
        is_used && (gradient->dtype != dtype || !are_one_matrix(gradient, outer));
    product->gradient_offset =
        add_matrix(step, product->copies_gradient, count_rows(gradient), gradient->shape[2], dtype);
    if (product->rows_gradient.rank > 0) {
        plan_to_rows(problem, set, backend, weight_of(problem->call.layer, projection), product,
                     step);
    }
    if (product->weight.rank > 0) {
        plan_to_weight(problem, set, backend, product, step);
    }
}

/* ---- what products read ---- */

/* One projection on its way. */
typedef struct product_run {
    attn_context *context;
    const attni_layer_problem *problem;
    attni_layer_product *product;
    const attni_mha_slot *slot; /* of the weight */
    char *scratch;              /* of the step */
    bool is_native;
} product_run;

static attni_layer_rows rows_of(const product_run *run, const attn_tensor *tensor) {
    return attni_layer_rows_of(run->context, tensor, run->problem->call.is_batch_major);
}

static attn_status copy_gradient(const product_run *run) {
    attni_layer_product *product = run->product;
    if (!product->copies_gradient) {
        return ATTN_OK;
    }
    const attni_layer_rows rows = rows_of(run, &product->gradient);
    char *matrix = run->scratch + product->gradient_offset;
    product->to_rows.a.data = matrix;
    product->to_weight.a.data = matrix;
    return attni_layer_take_rows(run->context, &rows, matrix, NULL);
}

static void turn_strip(void *data, int64_t index) {
    const product_run *run = data;
    const attni_gemm_call *call = &run->product->to_rows;
    attni_strips_turn(call->kernels, attni_gemm_b_dtype(call),
                      run->scratch + run->product->turned_offset, run->slot->owned, call->cols,
                      call->inner, index);
}

/* The weight as rows of dx are made with it. */
static attn_status take_weight(const product_run *run) {
    attni_gemm_call *call = &run->product->to_rows;
    char *turned = run->scratch + run->product->turned_offset;
    const int32_t b_dtype = attni_gemm_b_dtype(call);
    if (run->is_native && run->slot->in_strips) {
        call->strips = turned;
        return attni_parallel_for(run->context,
                                  attni_divide_up(call->cols, attni_strip_cols(b_dtype)),
                                  turn_strip, (void *)(uintptr_t)run);
    }
    if (run->is_native) {
        call->strips_memory = attni_gemm_strips_bytes(call) > 0 ? turned : NULL;
        return ATTN_OK;
    }
    if (call->b.data == NULL) {
        attn_tensor dense = run->slot->view;
        dense.data = turned;
        dense.dtype = call->dtype;
        attni_make_contiguous(&dense);
        call->b.data = turned;
        if (run->slot->in_strips) {
            attni_strips_unpack(&dense, run->slot->view.dtype, run->slot->owned);
        } else {
            attni_copy_tensor(&dense, &run->slot->view);
        }
    }
    return ATTN_OK;
}

/* Strip `index` of the rows of x, of the outer axis one after the other. */
static void pack_strip(void *data, int64_t index) {
    const product_run *run = data;
    const attni_layer_product *product = run->product;
    const attni_gemm_call *call = &product->to_weight;
    const int32_t b_dtype = attni_gemm_b_dtype(call);
    const int64_t element = (int64_t)attn_dtype_size_bytes(b_dtype);
    const int64_t width = attni_strip_cols(b_dtype);
    const int64_t row_bytes = width * element;
    const int64_t first_col = index * width;
    const attni_layer_rows rows = rows_of(run, &product->rows);
    const int32_t inner = 1 - rows.outer;
    const int64_t count = product->rows.shape[inner];
    char *strip = run->scratch + product->packed_offset + index * call->inner * row_bytes;
    for (int64_t row = 0; row < rows.count; row += count) {
        call->kernels->pack(strip + row * row_bytes,
                            attni_advance(attni_layer_row(&rows, row),
                                          first_col * product->rows.strides[2] * element),
                            product->rows.strides[inner], product->rows.strides[2], count,
                            attni_min(width, call->cols - first_col));
    }
    const unsigned char *kept = (unsigned char *)run->scratch + product->kept_offset;
    for (int64_t row = 0; row < rows.count; ++row) {
        if (kept[row] == 0) {
            memset(strip + row * row_bytes, 0, (size_t)row_bytes);
        }
    }
}

/* The rows of x as the weight's gradient is made with them. */
static attn_status take_rows(const product_run *run) {
    attni_layer_product *product = run->product;
    attni_gemm_call *call = &product->to_weight;
    const attni_layer_rows gradient = rows_of(run, &product->gradient);
    const attni_layer_rows rows = rows_of(run, &product->rows);
    unsigned char *kept = (unsigned char *)run->scratch + product->kept_offset;
    char *packed = run->scratch + product->packed_offset;
    ATTNI_TRY(attni_layer_find_kept(run->context, &gradient, kept));
    if (run->is_native) {
        call->strips = packed;
        return attni_parallel_for(
            run->context, attni_divide_up(call->cols, attni_strip_cols(attni_gemm_b_dtype(call))),
            pack_strip, (void *)(uintptr_t)run);
    }
    call->b.data = packed;
    return attni_layer_take_rows(run->context, &rows, packed, kept);
}

static attn_status prepare(const product_run *run) {
    attni_layer_product *product = run->product;
    ATTNI_TRY(copy_gradient(run));
    if (product->rows_gradient.rank > 0) {
        ATTNI_TRY(take_weight(run));
        if (product->has_rows_apart) {
            product->to_rows.c.data = run->scratch + product->results_offset;
        }
    }
    if (product->weight.rank > 0) {
        ATTNI_TRY(take_rows(run));
        if (product->has_weight_apart) {
            product->to_weight.c.data = run->scratch + product->sums_offset;
        }
    }
    return ATTN_OK;
}

/* ---- results ---- */

static attn_status finish(const product_run *run) {
    const attni_layer_product *product = run->product;
    const bool is_added = run->problem->accumulates;
    if (product->rows_gradient.rank > 0 && product->has_rows_apart) {
        const attni_layer_rows rows = rows_of(run, &product->rows_gradient);
        ATTNI_TRY(attni_layer_put_rows(run->context, &rows, product->to_rows.c.data,
                                       product->adds_to_rows));
    }
    if (product->weight.rank > 0 && product->has_weight_apart) {
        const attni_layer_rows rows = rows_of(run, &product->weight);
        ATTNI_TRY(attni_layer_put_rows(run->context, &rows, product->to_weight.c.data, is_added));
    }
    if (product->bias.rank > 0) {
        const attni_layer_rows rows = rows_of(run, &product->gradient);
        ATTNI_TRY(attni_layer_sum_rows(run->context, &rows, &product->bias, is_added));
    }
    return ATTN_OK;
}

/* ---- all of them ---- */

static int32_t list_calls(const attni_layer_product *products, int32_t count,
                          attni_gemm_call calls[ATTNI_GEMM_MOST_TOGETHER]) {
    int32_t num_calls = 0;
    for (int32_t i = 0; i < count; ++i) {
        if (products[i].rows_gradient.rank > 0) {
            calls[num_calls++] = products[i].to_rows;
        }
        if (products[i].weight.rank > 0) {
            calls[num_calls++] = products[i].to_weight;
        }
    }
    return num_calls;
}

bool attni_layer_products_want_threads(const attni_layer_product *products, int32_t count) {
    attni_gemm_call calls[ATTNI_GEMM_MOST_TOGETHER];
    return attni_gemm_wants_threads(calls, list_calls(products, count, calls));
}

static void run_by_blas(const attni_layer_product *product, char *scratch) {
    if (product->rows_gradient.rank > 0) {
        attni_gemm_run(&product->to_rows, scratch + product->rows_scratch_offset);
    }
    if (product->weight.rank > 0) {
        attni_gemm_run(&product->to_weight, scratch + product->weight_scratch_offset);
    }
}

attn_status attni_layer_products_run(attn_context *context, const attni_layer_problem *problem,
                                     attni_layer_plan *plan, int32_t first, int32_t count,
                                     char *scratch) {
    const attn_mha *layer = problem->call.layer;
    const bool is_native = attni_context_projection_gemm(context) == ATTN_GEMM_NATIVE;
    attni_layer_product *products = &plan->products[first];
    product_run runs[ATTNI_NUM_PROJECTIONS];
    for (int32_t i = 0; i < count; ++i) {
        runs[i] = (product_run){context, problem,  &products[i], weight_of(layer, first + i),
                                scratch, is_native};
        ATTNI_TRY(prepare(&runs[i]));
    }
    if (is_native) {
        attni_gemm_call calls[ATTNI_GEMM_MOST_TOGETHER];
        const int32_t num_calls = list_calls(products, count, calls);
        ATTNI_TRY(attni_gemm_native_together(context, calls, num_calls));
    }
    for (int32_t i = 0; i < count; ++i) {
        if (!is_native) {
            run_by_blas(&products[i], scratch);
        }
        ATTNI_TRY(finish(&runs[i]));
    }
    return ATTN_OK;
}
