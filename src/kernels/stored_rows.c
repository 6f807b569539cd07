/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stored_rows.c: rows from a caller's memory and back. memcpy of one element is how an unaligned
 * load or store is written in C.
 */
#include "kernels/stored_rows.h"

#include <string.h>

#include <attention/tensor.h>

static void copy_doubles(char *to, int64_t to_stride, const char *from, int64_t from_stride,
                         int64_t n) {
    const int64_t size = sizeof(double);
    if (to_stride == 1 && from_stride == 1) {
        memcpy(to, from, (size_t)(n * size));
        return;
    }
    for (int64_t j = 0; j < n; ++j) {
        memcpy(to + j * to_stride * size, from + j * from_stride * size, sizeof(double));
    }
}

void attni_take_row(const attni_kernel_set *set, void *to, const void *from, int32_t dtype,
                    int64_t stride, int64_t n) {
    if (dtype == ATTN_DTYPE_FLOAT64) {
        copy_doubles(to, 1, from, stride, n);
    } else {
        attni_storage_kernels_of(set, dtype)->widen(to, from, stride, n);
    }
}

void attni_put_row(const attni_kernel_set *set, void *to, int32_t dtype, int64_t stride,
                   const void *from, int64_t n) {
    if (dtype == ATTN_DTYPE_FLOAT64) {
        copy_doubles(to, stride, from, 1, n);
    } else {
        attni_storage_kernels_of(set, dtype)->narrow(to, stride, from, n);
    }
}

static attni_dequantize_fn *dequantizing(const attni_quantized_kernels *kernels, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_INT8:
        return kernels->int8;
    case ATTN_DTYPE_UINT8:
        return kernels->uint8;
    case ATTN_DTYPE_INT4X2:
        return kernels->int4x2;
    case ATTN_DTYPE_UINT4X2:
        return kernels->uint4x2;
    case ATTN_DTYPE_Q8_0:
        return kernels->q8_0;
    default:
        return kernels->q4_0;
    }
}

void attni_take_quantized_row(const attni_kernel_set *set, float *to, const void *from,
                              int32_t dtype, int64_t stride, int64_t n,
                              attni_value_numbers numbers) {
    dequantizing(set->quantized, dtype)(to, from, stride, n, numbers);
}
