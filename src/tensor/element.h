/* SPDX-License-Identifier: BSD-3-Clause
 *
 * element.h: single elements of views. Data may be unaligned, so every access is a memcpy of one
 * element, which compiles to one move.
 */
#ifndef ATTNI_TENSOR_ELEMENT_H
#define ATTNI_TENSOR_ELEMENT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <attention/tensor.h>

#include "base/half_precision.h"

/* An axis's stride where it is ever taken, else 0: a caller may leave anything in the stride of an
 * axis of length 0 or 1, numbers too large to multiply included. */
static inline int64_t attni_stride(const attn_tensor *tensor, int32_t axis) {
    return tensor->shape[axis] > 1 ? tensor->strides[axis] : 0;
}

/* An address moved on by some bytes; that of an empty tensor may be NULL and is not moved. */
static inline char *attni_advance(char *address, int64_t bytes) {
#ifdef ATTENTION_ANALYSIS /* The question would make scripts/analyse doubt every address. */
    return address + bytes;
#else
    return address == NULL ? NULL : address + bytes;
#endif
}

/* The view with attni_stride's strides. */
static inline attn_tensor attni_canonical(const attn_tensor *tensor) {
    attn_tensor view = {.data = tensor->data, .dtype = tensor->dtype, .rank = tensor->rank};
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        view.shape[axis] = tensor->shape[axis];
        view.strides[axis] = attni_stride(tensor, axis);
    }
    return view;
}

/* The offset, in elements, of the flat-th index (last axis fastest) of axes with these lengths and
 * strides. */
static inline int64_t attni_offset_of(int64_t flat, int32_t rank, const int64_t *shape,
                                      const int64_t *strides) {
    if (rank <= 0) {
        return 0;
    }
    int64_t offset = 0;
    for (int32_t axis = rank - 1; axis > 0; --axis) {
        offset += flat % shape[axis] * strides[axis];
        flat /= shape[axis];
    }
    return offset + flat * strides[0];
}

static inline int64_t attni_read_int64(const char *data, int64_t offset) {
    int64_t value;
    memcpy(&value, data + offset * (int64_t)sizeof value, sizeof value);
    return value;
}

/* Element `offset` of int64 or int32 data, read once: what has been checked or clamped is the
 * number that is used, though another thread may write the element meanwhile. The empty assembly
 * keeps the compiler from reading memory again where it has no register left. */
static inline int64_t attni_read_index(const char *data, int64_t offset, int32_t dtype) {
    int64_t index;
    if (dtype == ATTN_DTYPE_INT64) {
        index = attni_read_int64(data, offset);
    } else {
        int32_t value;
        memcpy(&value, data + offset * (int64_t)sizeof value, sizeof value);
        index = value;
    }
    __asm__("" : "+r"(index));
    return index;
}

static inline uint16_t attni_read_half(const char *data, int64_t offset) {
    uint16_t half;
    memcpy(&half, data + offset * (int64_t)sizeof half, sizeof half);
    return half;
}

/* Element `offset` of data of a floating-point type. */
static inline double attni_read_real(const char *data, int64_t offset, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_BFLOAT16:
        return (double)attni_widen_bfloat16(attni_read_half(data, offset));
    case ATTN_DTYPE_FLOAT16:
        return (double)attni_widen_float16(attni_read_half(data, offset));
    case ATTN_DTYPE_FLOAT32: {
        float value;
        memcpy(&value, data + offset * (int64_t)sizeof value, sizeof value);
        return (double)value;
    }
    default: {
        double value;
        memcpy(&value, data + offset * (int64_t)sizeof value, sizeof value);
        return value;
    }
    }
}

/* Rounded once, to nearest. */
static inline void attni_write_real(char *data, int64_t offset, int32_t dtype, double number) {
    if (dtype == ATTN_DTYPE_FLOAT64) {
        memcpy(data + offset * (int64_t)sizeof number, &number, sizeof number);
    } else if (dtype == ATTN_DTYPE_FLOAT32) {
        const float value = (float)number;
        memcpy(data + offset * (int64_t)sizeof value, &value, sizeof value);
    } else {
        const uint16_t half = dtype == ATTN_DTYPE_BFLOAT16 ? attni_narrow_bfloat16(number)
                                                           : attni_narrow_float16(number);
        memcpy(data + offset * (int64_t)sizeof half, &half, sizeof half);
    }
}

#endif
