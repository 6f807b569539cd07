/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_tools.c: layers on a watched allocator, and views of a caller's parameters.
 */
#include "layer_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/element.h"

attn_mha *layer_make(counting_allocator *counting, const attn_mha_config *config) {
    attn_context_config params = {.struct_size = sizeof params, .num_threads = 1};
    attn_context *context;
    attn_mha *layer;
    counting_allocator_init(counting);
    counting_allocator_use(counting, &params);
    assert_int_equal(attn_context_create(&params, &context), ATTN_OK);
    if (attn_mha_create(context, config, &layer) != ATTN_OK) {
        fail_msg("no layer: %s", attn_last_error());
    }
    attn_context_destroy(context);
    return layer;
}

void layer_end(attn_mha *layer, const counting_allocator *counting) {
    attn_mha_destroy(layer);
    assert_int_equal(counting->live_blocks, 0);
    assert_int_equal(counting->live_bytes, 0);
    assert_int_equal(counting->mistakes, 0);
}

/* C order, or the last axis slowest. */
static void set_strides(attn_tensor *view, bool last_is_slowest) {
    int64_t stride = 1;
    for (int32_t i = 0; i < view->rank; ++i) {
        const int32_t axis = last_is_slowest ? i : view->rank - 1 - i;
        view->strides[axis] = stride;
        stride *= view->shape[axis];
    }
}

attn_tensor layer_view(const attn_tensor *shape, int32_t dtype, enum value_layout layout,
                       void *memory) {
    attn_tensor view = *shape;
    int64_t last = 0;
    view.dtype = dtype;
    view.data = (char *)memory + (layout == VALUES_UNALIGNED ? 3 : 0);
    set_strides(&view, layout == VALUES_TRANSPOSED);
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        last += (view.shape[axis] - 1) * view.strides[axis];
        if (layout == VALUES_SPREAD) {
            view.strides[axis] *= 2;
        } else if (layout == VALUES_REVERSED) {
            view.strides[axis] = -view.strides[axis];
        }
    }
    if (layout == VALUES_REVERSED) {
        view.data = (char *)memory + last * (int64_t)attn_dtype_size_bytes(dtype);
    }
    return view;
}

int64_t layer_count(const attn_tensor *view) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        count *= view->shape[axis];
    }
    return count;
}

double layer_get(const attn_tensor *view, int64_t flat) {
    return attni_read_real(
        view->data, attni_offset_of(flat, view->rank, view->shape, view->strides), view->dtype);
}

void layer_set(const attn_tensor *view, int64_t flat, double value) {
    attni_write_real(view->data, attni_offset_of(flat, view->rank, view->shape, view->strides),
                     view->dtype, value);
}

static attn_tensor dense_view(int32_t dtype, int64_t rows, int64_t cols, void *memory) {
    const attn_tensor shape = {.rank = cols > 0 ? 2 : 1, .shape = {rows, cols}};
    const attn_tensor view = layer_view(&shape, dtype, VALUES_DENSE, memory);
    assert_true(layer_count(&view) <= LAYER_MOST_VALUES);
    return view;
}

void layer_load_counting(attn_mha *layer, int32_t dtype, const char *name, int64_t rows,
                         int64_t cols, double first) {
    double memory[LAYER_MOST_VALUES];
    const attn_tensor view = dense_view(dtype, rows, cols, memory);
    for (int64_t i = 0; i < layer_count(&view); ++i) {
        layer_set(&view, i, first + (double)i);
    }
    if (attn_mha_load_parameter(NULL, layer, name, &view, NULL) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

parameter_values layer_read(const attn_mha *layer, int32_t dtype, const char *name, int64_t rows,
                            int64_t cols) {
    parameter_values result;
    double memory[LAYER_MOST_VALUES];
    const attn_tensor view = dense_view(dtype, rows, cols, memory);
    if (attn_mha_read_parameter(NULL, layer, name, &view) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    result.count = layer_count(&view);
    for (int64_t i = 0; i < result.count; ++i) {
        result.values[i] = layer_get(&view, i);
    }
    return result;
}

void layer_assert_counting(const parameter_values *values, int64_t begin, int64_t end,
                           double first) {
    assert_true(end <= values->count);
    for (int64_t i = begin; i < end; ++i) {
        if (values->values[i] != first + (double)i) {
            fail_msg("value %lld: expected %g, got %g", (long long)i, first + (double)i,
                     values->values[i]);
        }
    }
}
