/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_numbers.c: one rule of shapes for every granularity: a length of a scale divides that of
 * the tensor it scales.
 */
#include "problem/block_numbers.h"

#include "base/checked_size.h"
#include "tensor/element.h"

attn_status attni_count_values(const char *name, const attn_tensor *tensor, attn_tensor *view) {
    const int32_t last = tensor->rank - 1;
    *view = *tensor;
    view->strides[last] = attni_stride(tensor, last);
    return attni_multiply(tensor->shape[last], attn_dtype_values(tensor->dtype), &view->shape[last])
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_OVERFLOW, "%s: %lld elements of %d values exceed 2^63", name,
                            (long long)tensor->shape[last], (int)attn_dtype_values(tensor->dtype));
}

static bool divides(int64_t own, int64_t length) {
    return own == length || (own > 0 && length % own == 0);
}

attn_status attni_check_block_numbers(const char *name, const attn_tensor *numbers,
                                      const char *of_name, const attn_tensor *of,
                                      attni_data_rule data_rule) {
    if (numbers == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_tensor(name, numbers, data_rule));
    ATTNI_TRY(attni_check_narrow_float(name, numbers));
    if (!attni_is_quantized(of->dtype) || of->dtype == ATTN_DTYPE_Q8_0 ||
        of->dtype == ATTN_DTYPE_Q4_0) {
        return attni_fail(
            ATTN_ERROR_VALUE, "%s: expected NULL beside %s of %s, whose elements are %s", name,
            of_name, attni_dtype_name(of->dtype),
            attni_is_quantized(of->dtype) ? "blocks with scales of their own" : "not scaled");
    }
    ATTNI_TRY(attni_check_rank(name, numbers, of->rank, of->rank));
    for (int32_t axis = 0; axis < of->rank; ++axis) {
        if (!divides(numbers->shape[axis], of->shape[axis])) {
            char text[ATTNI_SHAPE_TEXT_BYTES];
            return attni_fail(ATTN_ERROR_SHAPE,
                              "%s: expected a divisor of %lld (values of %s) on axis %d, got %s",
                              name, (long long)of->shape[axis], of_name, (int)axis,
                              attni_shape_text(text, numbers->rank, numbers->shape));
        }
    }
    return ATTN_OK;
}

static void place_axis(const attn_tensor *numbers, const attn_tensor *of, int32_t axis,
                       int64_t *stride, int64_t *step) {
    const int64_t length =
        of->shape[axis] * (axis == of->rank - 1 ? attn_dtype_values(of->dtype) : 1);
    *stride = attni_stride(numbers, axis);
    *step = attni_max(1, length / attni_max(1, numbers->shape[axis]));
}

void attni_place_block_numbers(const attn_tensor *numbers, const attn_tensor *of,
                               int32_t batch_rank, bool is_in_pages, attni_block_numbers *placed) {
    if (numbers == NULL) {
        return;
    }
    placed->data = numbers->data;
    placed->dtype = numbers->dtype;
    placed->cols = numbers->shape[numbers->rank - 1];
    if (is_in_pages) {
        place_axis(numbers, of, 0, &placed->page_stride, &placed->page_step);
    }
    const int32_t missing = batch_rank + 3 - of->rank;
    for (int32_t axis = is_in_pages ? 1 : 0; axis < of->rank; ++axis) {
        place_axis(numbers, of, axis, &placed->strides[missing + axis],
                   &placed->steps[missing + axis]);
    }
}
