/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_numbers.c: reads integers of any layout. Another thread that writes them meanwhile makes
 * numbers wrong, but what goes on to the core library stays within its range.
 */
#include "mpi_numbers.h"

#include <string.h>

int64_t attni_mpi_saturated_sum(int64_t x, int64_t y) {
    int64_t sum;
    if (__builtin_add_overflow(x, y, &sum)) {
        return y < 0 ? INT64_MIN : INT64_MAX;
    }
    return sum;
}

void attni_mpi_numbers_describe(const attn_tensor *given, attni_mpi_numbers *numbers) {
    *numbers = (attni_mpi_numbers){
        .tensor = *given, .count = 1, .lowest = INT64_MIN, .highest = INT64_MAX};
    for (int32_t axis = 0; axis < given->rank; ++axis) {
        if (given->strides[axis] == 0 && given->shape[axis] > 1) {
            numbers->tensor.shape[axis] = 1;
        }
        numbers->count *= numbers->tensor.shape[axis];
    }
}

/* Element `place` in C order. */
static int64_t number_at(const attni_mpi_numbers *numbers, int64_t place) {
    const attn_tensor *tensor = &numbers->tensor;
    const int64_t element_bytes = (int64_t)attn_dtype_size_bytes(tensor->dtype);
    const char *address = tensor->data;
    for (int32_t axis = tensor->rank - 1; axis >= 0; --axis) {
        address += place % tensor->shape[axis] * tensor->strides[axis] * element_bytes;
        place /= tensor->shape[axis];
    }
    if (tensor->dtype == ATTN_DTYPE_INT32) {
        int32_t narrow;
        memcpy(&narrow, address, sizeof narrow);
        return narrow;
    }
    int64_t wide;
    memcpy(&wide, address, sizeof wide);
    return wide;
}

/* Fowler, Noll and Vo's hash, 64 bits at a time. */
static uint64_t digest_with(uint64_t digest, int64_t number) {
    digest = (digest ^ (uint64_t)number) * UINT64_C(0x100000001b3);
    return digest ^ digest >> 32;
}

void attni_mpi_numbers_read(attni_mpi_numbers *numbers) {
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    int64_t lowest = INT64_MAX, highest = INT64_MIN;
    for (int64_t i = 0; i < numbers->count; ++i) {
        const int64_t number = number_at(numbers, i);
        lowest = number < lowest ? number : lowest;
        highest = number > highest ? number : highest;
        digest = digest_with(digest, number);
    }
    numbers->lowest = lowest;
    numbers->highest = highest;
    numbers->digest = (int64_t)digest;
}

attn_tensor attni_mpi_numbers_shifted(const attni_mpi_numbers *numbers, int64_t shift,
                                      int64_t lowest, int64_t highest, int64_t *storage) {
    attn_tensor view = numbers->tensor;
    view.data = storage;
    view.dtype = ATTN_DTYPE_INT64;
    int64_t stride = 1;
    for (int32_t axis = view.rank - 1; axis >= 0; --axis) {
        view.strides[axis] = stride;
        stride *= view.shape[axis];
    }
    for (int64_t i = 0; storage != NULL && i < numbers->count; ++i) {
        const int64_t number = attni_mpi_saturated_sum(number_at(numbers, i), shift);
        storage[i] = number < lowest ? lowest : number > highest ? highest : number;
    }
    return view;
}
