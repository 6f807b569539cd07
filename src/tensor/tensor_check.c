/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_check.c: validity, dtype, rank and shape of views, with messages that say what was
 * expected and what was found.
 */
#include "tensor/tensor_check.h"

#include <stdio.h>

#include "base/checked_size.h"
#include "tensor/element.h"

enum { DTYPE_TEXT_BYTES = 32 };

/* Appends to `text` and returns the new length, which never passes the end. */
static size_t append_axis(char *text, size_t bytes, size_t length, attni_axis axis, bool first) {
    const char *comma = first ? "" : ", ";
    int written;
    if (axis.name != NULL && axis.length == ATTNI_ANY_LENGTH) {
        written = snprintf(text + length, bytes - length, "%s%s", comma, axis.name);
    } else {
        written =
            snprintf(text + length, bytes - length, "%s%s%s%lld", comma, axis.name ? axis.name : "",
                     axis.name ? "=" : "", (long long)axis.length);
    }
    const size_t end = length + (written > 0 ? (size_t)written : 0);
    return end < bytes ? end : bytes - 1;
}

const char *attni_shape_text(char *text, int32_t rank, const int64_t *shape) {
    size_t length = (size_t)snprintf(text, ATTNI_SHAPE_TEXT_BYTES, "(");
    for (int32_t axis = 0; axis < rank; ++axis) {
        length = append_axis(text, ATTNI_SHAPE_TEXT_BYTES, length, (attni_axis){NULL, shape[axis]},
                             axis == 0);
    }
    (void)snprintf(text + length, ATTNI_SHAPE_TEXT_BYTES - length, ")");
    return text;
}

static const char *axes_text(char *text, size_t bytes, const attni_axis *axes, int32_t count) {
    size_t length = (size_t)snprintf(text, bytes, "(");
    for (int32_t axis = 0; axis < count; ++axis) {
        length = append_axis(text, bytes, length, axes[axis], axis == 0);
    }
    (void)snprintf(text + length, bytes - length, ")");
    return text;
}

/* Bytes from the lowest to past the highest element must fit int64_t, so that no later address
 * computation can overflow. */
attn_status attni_check_extent(const char *name, const attn_tensor *tensor) {
    int64_t count = 1;
    int64_t reach = 1;
    bool fits = true;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        const int64_t length = tensor->shape[axis];
        if (length < 0) {
            return attni_fail(ATTN_ERROR_VALUE,
                              "%s: expected lengths of 0 and up, got %lld on axis %d", name,
                              (long long)length, axis);
        }
        /* An empty view has no elements, but its other axes still bound outputs and loops. */
        fits = fits && attni_multiply(count, length > 0 ? length : 1, &count);
        const int64_t stride = attni_stride(tensor, axis);
        int64_t span = 0;
        fits = fits && stride != INT64_MIN &&
               attni_multiply(stride < 0 ? -stride : stride, length > 1 ? length - 1 : 0, &span) &&
               attni_add(reach, span, &reach);
    }
    const int64_t element = (int64_t)attn_dtype_size_bytes(tensor->dtype);
    int64_t bytes;
    fits = fits && attni_multiply(count, element, &bytes) && attni_multiply(reach, element, &bytes);
    if (!fits) {
        char text[ATTNI_SHAPE_TEXT_BYTES];
        return attni_fail(ATTN_ERROR_OVERFLOW, "%s: shape %s with its strides exceeds 2^63 bytes",
                          name, attni_shape_text(text, tensor->rank, tensor->shape));
    }
    return ATTN_OK;
}

void attni_make_contiguous(attn_tensor *view) {
    int64_t stride = 1;
    for (int32_t axis = view->rank - 1; axis >= 0; --axis) {
        view->strides[axis] = stride;
        if (!attni_multiply(stride, attni_max(view->shape[axis], 1), &stride)) {
            stride = INT64_MAX;
        }
    }
}

static bool is_empty(const attn_tensor *tensor) {
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        if (tensor->shape[axis] == 0) {
            return true;
        }
    }
    return false;
}

attn_status attni_check_tensor(const char *name, const attn_tensor *tensor,
                               attni_data_rule data_rule) {
    if (tensor == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a tensor, got NULL", name);
    }
    if (attn_dtype_size_bytes(tensor->dtype) == 0) {
        return attni_fail_dtype(name, tensor->dtype, "a dtype of enum attn_dtype");
    }
    ATTNI_TRY(attni_check_rank(name, tensor, 0, ATTN_MAX_RANK));
    ATTNI_TRY(attni_check_extent(name, tensor));
    if (data_rule == ATTNI_DATA_REQUIRED && tensor->data == NULL && !is_empty(tensor)) {
        char text[ATTNI_SHAPE_TEXT_BYTES];
        return attni_fail(ATTN_ERROR_NULL, "%s: expected data for shape %s, got NULL", name,
                          attni_shape_text(text, tensor->rank, tensor->shape));
    }
    return ATTN_OK;
}

attn_status attni_check_rank(const char *name, const attn_tensor *tensor, int32_t lowest,
                             int32_t highest) {
    if (tensor->rank >= lowest && tensor->rank <= highest) {
        return ATTN_OK;
    }
    /* A rank that no view can have is a bad value; a view of the wrong rank is a wrong shape. */
    const attn_status status =
        tensor->rank < 0 || tensor->rank > ATTN_MAX_RANK ? ATTN_ERROR_VALUE : ATTN_ERROR_SHAPE;
    if (lowest == highest) {
        return attni_fail(status, "%s: expected rank %d, got %d", name, (int)lowest,
                          (int)tensor->rank);
    }
    return attni_fail(status, "%s: expected rank %d to %d, got %d", name, (int)lowest, (int)highest,
                      (int)tensor->rank);
}

attn_status attni_check_dtype(const char *name, const attn_tensor *tensor, int32_t expected) {
    if (tensor->dtype == expected) {
        return ATTN_OK;
    }
    char text[DTYPE_TEXT_BYTES];
    (void)snprintf(text, sizeof text, "dtype %s", attni_dtype_name(expected));
    return attni_fail_dtype(name, tensor->dtype, text);
}

attn_status attni_check_index(const char *name, const attn_tensor *tensor) {
    if (tensor->dtype == ATTN_DTYPE_INT64 || tensor->dtype == ATTN_DTYPE_INT32) {
        return ATTN_OK;
    }
    return attni_fail_dtype(name, tensor->dtype, "dtype int64 or int32");
}

static bool is_float(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT32 || dtype == ATTN_DTYPE_FLOAT64 ||
           dtype == ATTN_DTYPE_BFLOAT16 || dtype == ATTN_DTYPE_FLOAT16;
}

attn_status attni_check_float(const char *name, const attn_tensor *tensor) {
    if (is_float(tensor->dtype)) {
        return ATTN_OK;
    }
    return attni_fail_dtype(name, tensor->dtype, "dtype float32, float64, bfloat16 or float16");
}

attn_status attni_check_weight(const char *name, const attn_tensor *tensor) {
    if (is_float(tensor->dtype) || tensor->dtype == ATTN_DTYPE_INT8) {
        return ATTN_OK;
    }
    return attni_fail_dtype(name, tensor->dtype,
                            "dtype float32, float64, bfloat16, float16 or int8");
}

attn_status attni_check_cached(const char *name, const attn_tensor *tensor) {
    if (is_float(tensor->dtype) || attni_is_quantized(tensor->dtype)) {
        return ATTN_OK;
    }
    return attni_fail_dtype(name, tensor->dtype,
                            "dtype float32, float64, bfloat16, float16, int8, uint8, int4x2, "
                            "uint4x2, q8_0 or q4_0");
}

attn_status attni_check_narrow_float(const char *name, const attn_tensor *tensor) {
    if (is_float(tensor->dtype) && tensor->dtype != ATTN_DTYPE_FLOAT64) {
        return ATTN_OK;
    }
    return attni_fail_dtype(name, tensor->dtype, "dtype float32, bfloat16 or float16");
}

attn_status attni_check_either(const char *name, const attn_tensor *tensor, int32_t first,
                               int32_t second) {
    if (tensor->dtype == first || tensor->dtype == second) {
        return ATTN_OK;
    }
    char text[2 * DTYPE_TEXT_BYTES];
    (void)snprintf(text, sizeof text, first == second ? "dtype %s" : "dtype %s or %s",
                   attni_dtype_name(first), attni_dtype_name(second));
    return attni_fail_dtype(name, tensor->dtype, text);
}

attn_status attni_check_float_option(const char *name, const attn_tensor *tensor, int32_t dtype) {
    return attni_check_either(name, tensor, ATTN_DTYPE_FLOAT32, dtype);
}

attn_status attni_check_beside(const char *name, const attn_tensor *tensor, int32_t dtype) {
    if (dtype == ATTN_DTYPE_FLOAT64) {
        return attni_check_dtype(name, tensor, dtype);
    }
    return attni_check_narrow_float(name, tensor);
}

attn_status attni_check_result(const char *name, const attn_tensor *tensor, int32_t dtype) {
    return attni_check_either(name, tensor, dtype, attni_score_dtype(dtype));
}

attn_status attni_check_shape(const char *name, const attn_tensor *tensor, const attni_axis *axes,
                              int32_t count) {
    bool same = tensor->rank == count;
    for (int32_t axis = 0; same && axis < count; ++axis) {
        same = axes[axis].length == ATTNI_ANY_LENGTH || tensor->shape[axis] == axes[axis].length;
    }
    if (same) {
        return ATTN_OK;
    }
    char expected[2 * ATTNI_SHAPE_TEXT_BYTES];
    char found[ATTNI_SHAPE_TEXT_BYTES];
    return attni_fail(ATTN_ERROR_SHAPE, "%s: expected shape %s, got %s", name,
                      axes_text(expected, sizeof expected, axes, count),
                      attni_shape_text(found, tensor->rank, tensor->shape));
}

attn_status attni_broadcast_strides(const char *name, const attn_tensor *tensor,
                                    const attni_axis *axes, int32_t count, int64_t *strides) {
    const int32_t missing = count - tensor->rank;
    bool fits = missing >= 0;
    for (int32_t axis = 0; fits && axis < count; ++axis) {
        const int64_t length = axis < missing ? 1 : tensor->shape[axis - missing];
        fits = length == 1 || length == axes[axis].length;
        strides[axis] = length == 1 ? 0 : tensor->strides[axis - missing];
    }
    if (fits) {
        return ATTN_OK;
    }
    char expected[2 * ATTNI_SHAPE_TEXT_BYTES];
    char found[ATTNI_SHAPE_TEXT_BYTES];
    return attni_fail(ATTN_ERROR_SHAPE, "%s: expected a shape that broadcasts to %s, got %s", name,
                      axes_text(expected, sizeof expected, axes, count),
                      attni_shape_text(found, tensor->rank, tensor->shape));
}

/* Elements that repeat along an axis are looked at once. */
attn_status attni_check_indices(const char *name, const attn_tensor *indices, const char *label,
                                int64_t lowest, int64_t highest) {
    attn_tensor view = attni_canonical(indices);
    attn_tensor numbering = view; /* of the elements that errors name */
    attni_make_contiguous(&numbering);
    int64_t count = 1;
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        view.shape[axis] =
            view.strides[axis] == 0 ? attni_min(view.shape[axis], 1) : view.shape[axis];
        count *= view.shape[axis];
    }
    for (int64_t i = 0; i < count; ++i) {
        const int64_t offset = attni_offset_of(i, view.rank, view.shape, view.strides);
        const int64_t index = attni_read_index(view.data, offset, view.dtype);
        if (index < lowest || index > highest) {
            return attni_fail(
                ATTN_ERROR_VALUE, "%s: expected %lld to %s%lld, got %lld at element %lld", name,
                (long long)lowest, label, (long long)highest, (long long)index,
                (long long)attni_offset_of(i, view.rank, view.shape, numbering.strides));
        }
    }
    return ATTN_OK;
}

attn_status attni_check_lengths(const char *name, const attn_tensor *lengths, int64_t highest) {
    return attni_check_indices(name, lengths, "S=", 0, highest);
}
