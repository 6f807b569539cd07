/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dtype.c: what there is to know of each element type, in one table.
 */
#include <stdbool.h>

#include "tensor/tensor_check.h"

typedef struct dtype_entry {
    const char *name;
    uint8_t bytes;     /* of an element */
    uint8_t values;    /* in it */
    bool is_computed;  /* this version does: else only views are made of it */
    bool is_quantized; /* a cache may hold it: (value - zero) * scale */
} dtype_entry;

static const dtype_entry dtype_table[] = {
    [ATTN_DTYPE_INVALID] = {"invalid", 0, 0, false, false},
    [ATTN_DTYPE_FLOAT32] = {"float32", 4, 1, true, false},
    [ATTN_DTYPE_FLOAT64] = {"float64", 8, 1, true, false},
    [ATTN_DTYPE_BOOL] = {"bool", 1, 1, true, false},
    [ATTN_DTYPE_INT64] = {"int64", 8, 1, true, false},
    [ATTN_DTYPE_BFLOAT16] = {"bfloat16", 2, 1, true, false},
    [ATTN_DTYPE_FLOAT16] = {"float16", 2, 1, true, false},
    [ATTN_DTYPE_INT32] = {"int32", 4, 1, true, false},
    [ATTN_DTYPE_INT8] = {"int8", 1, 1, true, true},
    [ATTN_DTYPE_UINT8] = {"uint8", 1, 1, true, true},
    [ATTN_DTYPE_FLOAT8_E4M3] = {"float8_e4m3", 1, 1, false, false},
    [ATTN_DTYPE_FLOAT8_E5M2] = {"float8_e5m2", 1, 1, false, false},
    [ATTN_DTYPE_INT4X2] = {"int4x2", 1, 2, true, true},
    [ATTN_DTYPE_Q8_0] = {"q8_0", 34, 32, true, true},
    [ATTN_DTYPE_Q4_0] = {"q4_0", 18, 32, true, true},
    [ATTN_DTYPE_UINT4X2] = {"uint4x2", 1, 2, true, true},
};

enum { NUM_DTYPES = sizeof dtype_table / sizeof dtype_table[0] };

static const dtype_entry *find_dtype(int32_t dtype) {
    static const dtype_entry unknown = {"unknown", 0, 0, false, false};
    return dtype >= 0 && dtype < NUM_DTYPES ? &dtype_table[dtype] : &unknown;
}

size_t attn_dtype_size_bytes(int32_t dtype) {
    return find_dtype(dtype)->bytes;
}

int32_t attn_dtype_values(int32_t dtype) {
    return find_dtype(dtype)->values;
}

bool attni_is_quantized(int32_t dtype) {
    return find_dtype(dtype)->is_quantized;
}

const char *attni_dtype_name(int32_t dtype) {
    return find_dtype(dtype)->name;
}

int32_t attni_score_dtype(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

attn_status attni_fail_dtype(const char *name, int32_t dtype, const char *expected) {
    const bool is_of_later = dtype > 0 && !find_dtype(dtype)->is_computed;
    if (dtype >= NUM_DTYPES) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected %s, got %d, unknown to this version", name, expected,
                          (int)dtype);
    }
    return attni_fail(is_of_later ? ATTN_ERROR_UNSUPPORTED : ATTN_ERROR_DTYPE,
                      "%s: expected %s, got %s%s", name, expected, attni_dtype_name(dtype),
                      is_of_later ? ", which this version does not compute with" : "");
}
