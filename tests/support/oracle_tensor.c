/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_tensor.c: element access and broadcasting, one element at a time.
 */
#include "support/oracle_tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/half_numbers.h"

void *oracle_allocate(int64_t count, size_t element_bytes) {
    void *memory = calloc(count > 0 ? (size_t)count : 1, element_bytes);
    if (memory == NULL) {
        fputs("the tests are out of memory\n", stderr);
        abort();
    }
    return memory;
}

oracle_array oracle_array_create(int64_t count) {
    return (oracle_array){count, oracle_allocate(count, sizeof(double)),
                          oracle_allocate(count, sizeof(double))};
}

void oracle_array_destroy(oracle_array *array) {
    free(array->value);
    free(array->error);
    *array = (oracle_array){0};
}

int64_t oracle_count(int32_t rank, const int64_t *shape) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < rank; ++axis) {
        count *= shape[axis];
    }
    return count;
}

int oracle_next_index(int32_t rank, const int64_t *shape, int64_t *index) {
    for (int32_t axis = rank - 1; axis >= 0; --axis) {
        if (++index[axis] < shape[axis]) {
            return 1;
        }
        index[axis] = 0;
    }
    return 0;
}

static size_t element_bytes(int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_FLOAT32:
        return sizeof(float);
    case ATTN_DTYPE_FLOAT64:
        return sizeof(double);
    case ATTN_DTYPE_INT64:
        return sizeof(int64_t);
    case ATTN_DTYPE_INT32:
        return sizeof(int32_t);
    case ATTN_DTYPE_BFLOAT16:
    case ATTN_DTYPE_FLOAT16:
        return sizeof(uint16_t);
    case ATTN_DTYPE_Q8_0:
        return 2 + 32;
    case ATTN_DTYPE_Q4_0:
        return 2 + 16;
    default:
        return 1;
    }
}

unsigned char *oracle_address(const attn_tensor *tensor, const int64_t *index) {
    int64_t position = 0;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        position += index[axis] * tensor->strides[axis];
    }
    return (unsigned char *)tensor->data + position * (int64_t)element_bytes(tensor->dtype);
}

int64_t oracle_integer(const attn_tensor *tensor, const int64_t *index) {
    int64_t integer;
    int32_t narrow;
    if (tensor->dtype == ATTN_DTYPE_INT32) {
        memcpy(&narrow, oracle_address(tensor, index), sizeof narrow);
        return narrow;
    }
    memcpy(&integer, oracle_address(tensor, index), sizeof integer);
    return integer;
}

double oracle_element(const attn_tensor *tensor, const int64_t *index) {
    const unsigned char *address = oracle_address(tensor, index);
    float single;
    double number;
    uint16_t half;
    switch (tensor->dtype) {
    case ATTN_DTYPE_FLOAT32:
        memcpy(&single, address, sizeof single);
        return single;
    case ATTN_DTYPE_FLOAT64:
        memcpy(&number, address, sizeof number);
        return number;
    case ATTN_DTYPE_BFLOAT16:
    case ATTN_DTYPE_FLOAT16:
        memcpy(&half, address, sizeof half);
        return half_number(tensor->dtype, half);
    case ATTN_DTYPE_INT64:
    case ATTN_DTYPE_INT32:
        return (double)oracle_integer(tensor, index);
    case ATTN_DTYPE_UINT8:
        return *address;
    case ATTN_DTYPE_INT8:
        return (int8_t)*address;
    default:
        return *address != 0;
    }
}

void oracle_store(const attn_tensor *tensor, const int64_t *index, double value) {
    unsigned char *address = oracle_address(tensor, index);
    const float single = (float)value;
    uint16_t half;
    switch (tensor->dtype) {
    case ATTN_DTYPE_FLOAT32:
        memcpy(address, &single, sizeof single);
        break;
    case ATTN_DTYPE_FLOAT64:
        memcpy(address, &value, sizeof value);
        break;
    case ATTN_DTYPE_BFLOAT16:
    case ATTN_DTYPE_FLOAT16:
        half = half_nearest(tensor->dtype, value);
        memcpy(address, &half, sizeof half);
        break;
    case ATTN_DTYPE_UINT8:
        *address = (unsigned char)value;
        break;
    default:
        *address = value != 0;
    }
}

double oracle_rounded(int32_t dtype, double value) {
    double memory = 0;
    const attn_tensor one = {.data = &memory, .dtype = dtype};
    oracle_store(&one, NULL, value);
    return oracle_element(&one, NULL);
}

void oracle_store_integer(const attn_tensor *tensor, const int64_t *index, int64_t value) {
    const int32_t narrow = (int32_t)value;
    if (tensor->dtype == ATTN_DTYPE_INT32) {
        memcpy(oracle_address(tensor, index), &narrow, sizeof narrow);
        return;
    }
    if (tensor->dtype == ATTN_DTYPE_INT8) {
        *oracle_address(tensor, index) = (unsigned char)value;
        return;
    }
    memcpy(oracle_address(tensor, index), &value, sizeof value);
}

/* Where the element that broadcasts to position `index` of an array of `rank` axes lies in the
 * tensor. */
static void source_index(const attn_tensor *tensor, int32_t rank, const int64_t *index,
                         int64_t *source) {
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        source[axis] = tensor->shape[axis] == 1 ? 0 : index[rank - tensor->rank + axis];
    }
}

double *oracle_expand(const attn_tensor *tensor, int32_t rank, const int64_t *shape) {
    const int64_t count = oracle_count(rank, shape);
    double *values = oracle_allocate(count, sizeof *values);
    int64_t index[ATTN_MAX_RANK] = {0}, source[ATTN_MAX_RANK];
    for (int64_t i = 0; i < count; ++i) {
        source_index(tensor, rank, index, source);
        values[i] = oracle_element(tensor, source);
        oracle_next_index(rank, shape, index);
    }
    return values;
}

int64_t *oracle_expand_integers(const attn_tensor *tensor, int32_t rank, const int64_t *shape) {
    const int64_t count = oracle_count(rank, shape);
    int64_t *values = oracle_allocate(count, sizeof *values);
    int64_t index[ATTN_MAX_RANK] = {0}, source[ATTN_MAX_RANK];
    for (int64_t i = 0; i < count; ++i) {
        source_index(tensor, rank, index, source);
        values[i] = oracle_integer(tensor, source);
        oracle_next_index(rank, shape, index);
    }
    return values;
}
