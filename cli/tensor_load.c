/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_load.c: element types of files to element types of the library.
 */
#include "tensor_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/status.h>

/* Files are little endian and are copied as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "reading safetensors on a big-endian machine needs byte swapping");

enum { MEMORY_ALIGNMENT = 64 };

void owned_tensor_free(owned_tensor *tensor) {
    free(tensor->memory);
    *tensor = (owned_tensor){0};
}

int owned_tensor_allocate(owned_tensor *tensor, int32_t dtype, int32_t rank, const int64_t *shape,
                          char *error, size_t error_bytes) {
    int64_t count = 0;
    *tensor = (owned_tensor){0};
    if (attn_tensor_init(&tensor->view, NULL, dtype, rank, shape) != ATTN_OK ||
        attn_tensor_count(&tensor->view, &count) != ATTN_OK) {
        (void)snprintf(error, error_bytes, "%s", attn_last_error());
        return -1;
    }
    size_t bytes = (size_t)count * attn_dtype_size_bytes(dtype);
    if (posix_memalign(&tensor->memory, MEMORY_ALIGNMENT, bytes + 1) != 0) {
        tensor->memory = NULL;
        (void)snprintf(error, error_bytes, "out of memory for %zu bytes", bytes);
        return -1;
    }
    memset(tensor->memory, 0, bytes);
    tensor->memory_bytes = bytes;
    tensor->view.data = tensor->memory;
    return 0;
}

const char *shape_text(const int64_t *shape, int32_t rank, char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, "(");
    for (int32_t axis = 0; axis < rank && used < bytes; axis++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%lld", axis == 0 ? "" : ", ",
                                 (long long)shape[axis]);
    }
    if (used < bytes) {
        (void)snprintf(text + used, bytes - used, ")");
    }
    return text;
}

/* ---- elements ---- */

static double read_f64(const char *bytes) {
    double value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static double read_f32(const char *bytes) {
    float value;
    memcpy(&value, bytes, sizeof value);
    return (double)value;
}

static float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bfloat16 is the upper half of a float32. */
static double read_bf16(const char *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return (double)float_from_bits((uint32_t)half << 16);
}

/*
 * IEEE binary16: 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits. Normal numbers,
 * infinities and NaNs move into float32's fields with the bias raised by 112 (an exponent of 31
 * becomes 255); subnormal ones are fraction * 2^-24.
 */
static double read_f16(const char *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1f;
    uint32_t fraction = half & 0x3ff;
    if (exponent == 0) {
        double magnitude = (double)fraction * 0x1p-24;
        return sign != 0 ? -magnitude : magnitude;
    }
    uint32_t wide_exponent = exponent == 0x1f ? 0xff : exponent + 112;
    return (double)float_from_bits(sign | wide_exponent << 23 | fraction << 13);
}

static const struct floating_type {
    const char *dtype;
    size_t bytes;
    double (*read)(const char *bytes);
} floating_types[] = {
    {"F32", 4, read_f32}, {"F64", 8, read_f64}, {"F16", 2, read_f16}, {"BF16", 2, read_bf16}};

static const struct floating_type *find_floating_type(const char *dtype) {
    for (size_t i = 0; i < sizeof floating_types / sizeof floating_types[0]; i++) {
        if (strcmp(floating_types[i].dtype, dtype) == 0) {
            return &floating_types[i];
        }
    }
    return NULL;
}

int entry_is_floating(const safetensors_entry *entry) {
    return find_floating_type(entry->dtype) != NULL;
}

static void convert_elements(const safetensors_entry *entry, const struct floating_type *type,
                             owned_tensor *tensor) {
    const char *source = entry->data;
    size_t count = entry->data_bytes / type->bytes;
    float *floats = tensor->memory;
    double *doubles = tensor->memory;
    for (size_t i = 0; i < count; i++) {
        double value = type->read(source + i * type->bytes);
        if (tensor->view.dtype == ATTN_DTYPE_FLOAT32) {
            floats[i] = (float)value;
        } else {
            doubles[i] = value;
        }
    }
}

int tensor_load_values(const safetensors_entry *entry, int32_t dtype, owned_tensor *tensor,
                       char *error, size_t error_bytes) {
    char detail[600];
    *tensor = (owned_tensor){0};
    const struct floating_type *type = find_floating_type(entry->dtype);
    int matches = dtype == ATTN_DTYPE_BOOL ? strcmp(entry->dtype, "BOOL") == 0 : type != NULL;
    if (!matches) {
        (void)snprintf(error, error_bytes, "%.200s: expected dtype %s, got %.20s", entry->name,
                       dtype == ATTN_DTYPE_BOOL ? "BOOL" : "F32, F64, F16 or BF16", entry->dtype);
        return -1;
    }
    if (entry->rank == SAFETENSORS_RANK_TOO_HIGH) {
        (void)snprintf(error, error_bytes, "%.200s: has more than %d axes", entry->name,
                       SAFETENSORS_MAX_RANK);
        return -1;
    }
    if (owned_tensor_allocate(tensor, dtype, entry->rank, entry->shape, detail, sizeof detail) !=
        0) {
        (void)snprintf(error, error_bytes, "%.200s: %.300s", entry->name, detail);
        return -1;
    }
    if (dtype == ATTN_DTYPE_BOOL) {
        memcpy(tensor->memory, entry->data, entry->data_bytes);
    } else {
        convert_elements(entry, type, tensor);
    }
    return 0;
}
