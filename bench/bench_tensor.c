/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_tensor.c: memory and random numbers.
 */
#include "bench_tensor.h"

#include <stdlib.h>
#include <string.h>

#include "program_exit.h"

enum { ALIGNMENT = 64 };

int bench_tensor_make(bench_tensor *tensor, const char *name, int32_t dtype, int32_t rank,
                      const int64_t *shape) {
    const int status = attn_tensor_init(&tensor->view, NULL, dtype, rank, shape);
    if (status != ATTN_OK) {
        return program_fail_library(name, status);
    }
    tensor->count = 1;
    for (int32_t axis = 0; axis < rank; axis++) {
        tensor->count *= shape[axis];
    }
    const size_t bytes = (size_t)bench_tensor_bytes(tensor);
    tensor->memory = aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT + ALIGNMENT);
    if (tensor->memory == NULL) {
        return program_fail(EXIT_COMPUTATION, "%s: no memory for %zu bytes", name, bytes);
    }
    tensor->view.data = tensor->memory;
    return EXIT_DONE;
}

void bench_tensor_free(bench_tensor *tensor) {
    free(tensor->memory);
    *tensor = (bench_tensor){0};
}

int64_t bench_tensor_bytes(const bench_tensor *tensor) {
    return tensor->count * (int64_t)attn_dtype_size_bytes(tensor->view.dtype);
}

/* splitmix64. */
uint64_t bench_random_bits(uint64_t seed, uint64_t index) {
    uint64_t bits = seed * UINT64_C(0xd1342543de82ef95) + index * UINT64_C(0x9e3779b97f4a7c15);
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    return bits ^ (bits >> 31);
}

/* The sum of four uniform numbers of variance 1/12, made from 16 bits each: sqrt(3) times what it
 * is off its mean has variance 1. */
static double nearly_normal(uint64_t bits) {
    const double sum = (double)((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                ((bits >> 32) & 0xffff) + (bits >> 48));
    return (sum / 65536.0 - 2.0 * 65535.0 / 65536.0) * 1.7320508075688772;
}

/* Rounded to nearest; what is too small for a normal number becomes 0. */
static uint16_t to_half(int32_t dtype, float number) {
    const uint32_t cut = dtype == ATTN_DTYPE_BFLOAT16 ? 16 : 13;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    bits += (1U << (cut - 1)) - 1 + (bits >> cut & 1);
    if (dtype == ATTN_DTYPE_BFLOAT16) {
        return (uint16_t)(sign | bits >> cut);
    }
    const uint32_t rebias = 112U << 10;
    return (uint16_t)(sign | (bits >> cut > rebias ? (bits >> cut) - rebias : 0));
}

void bench_tensor_fill(bench_tensor *tensor, uint64_t seed) {
    for (int64_t i = 0; i < tensor->count; i++) {
        const double number = nearly_normal(bench_random_bits(seed, (uint64_t)i));
        if (tensor->view.dtype == ATTN_DTYPE_FLOAT64) {
            ((double *)tensor->memory)[i] = number;
        } else if (bench_tensor_bytes(tensor) == tensor->count * (int64_t)sizeof(uint16_t)) {
            ((uint16_t *)tensor->memory)[i] = to_half(tensor->view.dtype, (float)number);
        } else {
            ((float *)tensor->memory)[i] = (float)number;
        }
    }
}
