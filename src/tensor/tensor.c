/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor.c: the public functions on views. They do stride arithmetic only; none touches an element.
 */
#include <attention/tensor.h>

#include "base/checked_size.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

/* Checks everything but data and copies `candidate` to *tensor. */
static attn_status publish(const attn_tensor *candidate, attn_tensor *tensor) {
    ATTNI_TRY(attni_check_tensor("tensor", candidate, ATTNI_DATA_IGNORED));
    *tensor = *candidate;
    return ATTN_OK;
}

static attn_status start_tensor(attn_tensor *tensor, void *data, int32_t dtype, int32_t rank,
                                const int64_t *shape, attn_tensor *candidate) {
    if (tensor == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "tensor: expected a struct to fill, got NULL");
    }
    *candidate = (attn_tensor){.data = data, .dtype = dtype, .rank = rank};
    ATTNI_TRY(attni_check_rank("tensor", candidate, 0, ATTN_MAX_RANK));
    if (shape == NULL && rank > 0) {
        return attni_fail(ATTN_ERROR_NULL, "shape: expected %d lengths, got NULL", (int)rank);
    }
    for (int32_t axis = 0; axis < rank; ++axis) {
        candidate->shape[axis] = shape[axis];
    }
    return ATTN_OK;
}

attn_status attn_tensor_init(attn_tensor *tensor, void *data, int32_t dtype, int32_t rank,
                             const int64_t *shape) {
    attni_error_clear();
    attn_tensor candidate;
    ATTNI_TRY(start_tensor(tensor, data, dtype, rank, shape, &candidate));
    attni_make_contiguous(&candidate);
    return publish(&candidate, tensor);
}

attn_status attn_tensor_init_strided(attn_tensor *tensor, void *data, int32_t dtype, int32_t rank,
                                     const int64_t *shape, const int64_t *strides) {
    attni_error_clear();
    attn_tensor candidate;
    ATTNI_TRY(start_tensor(tensor, data, dtype, rank, shape, &candidate));
    if (strides == NULL && rank > 0) {
        return attni_fail(ATTN_ERROR_NULL, "strides: expected %d strides, got NULL", (int)rank);
    }
    for (int32_t axis = 0; axis < rank; ++axis) {
        candidate.strides[axis] = strides[axis];
    }
    return publish(&candidate, tensor);
}

attn_status attn_tensor_count(const attn_tensor *tensor, int64_t *count) {
    attni_error_clear();
    if (count == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "count: expected a place for the result, got NULL");
    }
    ATTNI_TRY(attni_check_tensor("tensor", tensor, ATTNI_DATA_IGNORED));
    int64_t product = 1;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        product *= tensor->shape[axis];
    }
    *count = product;
    return ATTN_OK;
}

int32_t attn_tensor_is_contiguous(const attn_tensor *tensor) {
    if (tensor == NULL || tensor->rank < 0 || tensor->rank > ATTN_MAX_RANK) {
        return 0;
    }
    int64_t dense = 1;
    bool matches = true;
    for (int32_t axis = tensor->rank - 1; axis >= 0; --axis) {
        if (tensor->shape[axis] == 0) {
            return 1;
        }
        matches = matches && (tensor->shape[axis] == 1 || tensor->strides[axis] == dense) &&
                  attni_multiply(dense, tensor->shape[axis], &dense);
    }
    return matches ? 1 : 0;
}

/* Checks what every view function checks, and counts a negative axis from the end. */
static attn_status start_view(const attn_tensor *tensor, attn_tensor *view) {
    ATTNI_TRY(attni_check_tensor("tensor", tensor, ATTNI_DATA_IGNORED));
    if (view == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "view: expected a struct to fill, got NULL");
    }
    return ATTN_OK;
}

static attn_status resolve_axis(const char *name, const attn_tensor *tensor, int32_t given,
                                int32_t *axis) {
    const int32_t resolved = given < 0 ? given + tensor->rank : given;
    if (resolved < 0 || resolved >= tensor->rank) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected an axis of a rank-%d tensor, got %d",
                          name, (int)tensor->rank, (int)given);
    }
    *axis = resolved;
    return ATTN_OK;
}

attn_status attn_tensor_transpose(const attn_tensor *tensor, int32_t axis_a, int32_t axis_b,
                                  attn_tensor *view) {
    attni_error_clear();
    ATTNI_TRY(start_view(tensor, view));
    int32_t a = 0;
    int32_t b = 0;
    ATTNI_TRY(resolve_axis("axis_a", tensor, axis_a, &a));
    ATTNI_TRY(resolve_axis("axis_b", tensor, axis_b, &b));
    attn_tensor result = *tensor;
    result.shape[a] = tensor->shape[b];
    result.strides[a] = tensor->strides[b];
    result.shape[b] = tensor->shape[a];
    result.strides[b] = tensor->strides[a];
    *view = result;
    return ATTN_OK;
}

/* Whether start, start + step, ... (length of them, > 0) all lie in [0, extent). */
static bool positions_inside(int64_t start, int64_t length, int64_t step, int64_t extent) {
    if (start < 0 || start >= extent) {
        return false;
    }
    int64_t last;
    return attni_multiply(length - 1, step, &last) && attni_add(last, start, &last) && last >= 0 &&
           last < extent;
}

attn_status attn_tensor_slice(const attn_tensor *tensor, int32_t axis, int64_t start,
                              int64_t length, int64_t step, attn_tensor *view) {
    attni_error_clear();
    ATTNI_TRY(start_view(tensor, view));
    int32_t at = 0;
    ATTNI_TRY(resolve_axis("axis", tensor, axis, &at));
    if (step == 0) {
        return attni_fail(ATTN_ERROR_VALUE, "step: expected a step other than 0, got 0");
    }
    if (length < 0) {
        return attni_fail(ATTN_ERROR_VALUE, "length: expected 0 and up, got %lld",
                          (long long)length);
    }
    if (length > 0 && !positions_inside(start, length, step, tensor->shape[at])) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "start: expected positions within axis %d of length %lld, got %lld of "
                          "them from %lld by %lld",
                          (int)at, (long long)tensor->shape[at], (long long)length,
                          (long long)start, (long long)step);
    }
    attn_tensor result = *tensor;
    result.shape[at] = length;
    /* Within bounds the product fits; a view of one position or none may have any stride, so keep
     * it harmless. */
    result.strides[at] = length > 1 ? tensor->strides[at] * step : tensor->strides[at];
    if (length > 0 && tensor->data != NULL) {
        result.data = (char *)tensor->data +
                      start * tensor->strides[at] * (int64_t)attn_dtype_size_bytes(tensor->dtype);
    }
    *view = result;
    return ATTN_OK;
}

attn_status attn_tensor_select(const attn_tensor *tensor, int32_t axis, int64_t index,
                               attn_tensor *view) {
    attni_error_clear();
    ATTNI_TRY(start_view(tensor, view));
    int32_t at = 0;
    ATTNI_TRY(resolve_axis("axis", tensor, axis, &at));
    if (index < 0 || index >= tensor->shape[at]) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "index: expected a position within axis %d of length %lld, got %lld",
                          (int)at, (long long)tensor->shape[at], (long long)index);
    }
    attn_tensor result = *tensor;
    result.rank = tensor->rank - 1;
    for (int32_t kept = at; kept < result.rank; ++kept) {
        result.shape[kept] = tensor->shape[kept + 1];
        result.strides[kept] = tensor->strides[kept + 1];
    }
    result.shape[result.rank] = 0;
    result.strides[result.rank] = 0;
    if (tensor->data != NULL) {
        result.data = (char *)tensor->data + index * attni_stride(tensor, at) *
                                                 (int64_t)attn_dtype_size_bytes(tensor->dtype);
    }
    *view = result;
    return ATTN_OK;
}

attn_status attn_tensor_split_heads(const attn_tensor *tensor, int64_t num_heads,
                                    attn_tensor *view) {
    attni_error_clear();
    ATTNI_TRY(start_view(tensor, view));
    ATTNI_TRY(attni_check_rank("tensor", tensor, 2, ATTN_MAX_RANK - 1));
    if (num_heads < 1) {
        return attni_fail(ATTN_ERROR_VALUE, "num_heads: expected 1 and up, got %lld",
                          (long long)num_heads);
    }
    const int32_t last = tensor->rank - 1;
    const int64_t features = tensor->shape[last];
    if (features % num_heads != 0) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "tensor: expected a last axis divisible by num_heads=%lld, got %lld",
                          (long long)num_heads, (long long)features);
    }
    attn_tensor result = *tensor;
    const int64_t head_dim = features / num_heads;
    result.rank = tensor->rank + 1;
    result.shape[last - 1] = num_heads;
    result.strides[last - 1] = num_heads > 1 ? tensor->strides[last] * head_dim : 0;
    result.shape[last] = tensor->shape[last - 1];
    result.strides[last] = tensor->strides[last - 1];
    result.shape[last + 1] = head_dim;
    result.strides[last + 1] = tensor->strides[last];
    *view = result;
    return ATTN_OK;
}

attn_status attn_tensor_merge_heads(const attn_tensor *tensor, attn_tensor *view) {
    attni_error_clear();
    ATTNI_TRY(start_view(tensor, view));
    ATTNI_TRY(attni_check_rank("tensor", tensor, 3, ATTN_MAX_RANK));
    const int32_t last = tensor->rank - 1;
    const int64_t num_heads = tensor->shape[last - 2];
    const int64_t head_dim = tensor->shape[last];
    const int64_t head_stride = tensor->strides[last - 2];
    /* With one feature a head the features' stride is free, so the heads' own serves. */
    const int64_t feature_stride = head_dim == 1 ? head_stride : tensor->strides[last];
    int64_t apart = 0;
    if (!attni_multiply(feature_stride, head_dim, &apart)) {
        apart = INT64_MAX; /* farther than any two elements of a valid view */
    }
    if (num_heads > 1 && head_dim > 0 && head_stride != apart) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "tensor: expected heads %lld elements apart so that they merge without a "
                          "copy, got %lld",
                          (long long)apart, (long long)head_stride);
    }
    attn_tensor result = *tensor;
    result.rank = tensor->rank - 1;
    result.shape[last - 2] = tensor->shape[last - 1];
    result.strides[last - 2] = tensor->strides[last - 1];
    result.shape[last - 1] = num_heads * head_dim;
    result.strides[last - 1] = num_heads > 1 ? feature_stride : tensor->strides[last];
    *view = result;
    return ATTN_OK;
}
