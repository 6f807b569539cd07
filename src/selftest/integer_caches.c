/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integer_caches.c: attention with the scores as weights over keys and values that are stored as
 * integers with scales, and with zeros where they may have some: powers of two and small integers,
 * so that output is exact. So is the mean of a power of two of values, which softmax makes of them
 * where queries are 0.
 */
#include <stdbool.h>
#include <string.h>

#include <attention/sdpa.h>

#include "selftest/known_results.h"
#include "tensor/element.h"

enum { HEADS = 2, KEYS = 64, FEATURES = 64, BLOCK_VALUES = 32, SCALE_BYTES = 2 };

static const struct cache_case {
    const char *name;
    int32_t dtype;
    int32_t zero; /* the element that means 0 where no zero is given */
    bool has_scales;
    bool has_zeros;
    bool is_softmax;
    int64_t rows;
} cases[] = {
    {"int8 as it is stored", ATTN_DTYPE_INT8, 0, true, false, false, 1},
    {"int8 as it is stored, softmax", ATTN_DTYPE_INT8, 0, true, false, true, 1},
    {"int8", ATTN_DTYPE_INT8, 0, true, true, false, 20},
    {"uint8", ATTN_DTYPE_UINT8, 128, true, true, false, 1},
    {"int4x2", ATTN_DTYPE_INT4X2, 0, true, false, false, 1},
    {"uint4x2", ATTN_DTYPE_UINT4X2, 8, true, true, false, 1},
    {"q8_0", ATTN_DTYPE_Q8_0, 0, false, false, false, 1},
    {"q4_0", ATTN_DTYPE_Q4_0, 8, false, false, false, 1},
};

enum { CASES = sizeof cases / sizeof cases[0] };

/* Scales and zeros are of float32; KNOWN holds what keys and values mean. */
enum {
    QUERY,
    OUTPUT,
    KEY,
    VALUE,
    KEY_SCALE,
    VALUE_SCALE,
    KEY_ZERO,
    VALUE_ZERO,
    KNOWN_KEY,
    KNOWN_VALUE,
    TENSORS
};

/* ---- what is stored ---- */

static int32_t scale_of(int64_t row) {
    return 1 << row % 3;
}

/* Added to the element that means 0. */
static int32_t zero_of(const struct cache_case *kind, int64_t row) {
    return kind->has_zeros ? (int32_t)(row % 4) - 1 : 0;
}

/* Makes an element value `col` of a row that was zeroes. */
static void store_value(int32_t dtype, unsigned char *row, int64_t col, int32_t element) {
    const int64_t block = col / BLOCK_VALUES * (int64_t)attn_dtype_size_bytes(dtype);
    const int64_t in_block = col % BLOCK_VALUES;
    const int64_t half = BLOCK_VALUES / 2;
    switch (dtype) {
    case ATTN_DTYPE_Q8_0:
        row[block + SCALE_BYTES + in_block] = (unsigned char)element;
        break;
    case ATTN_DTYPE_Q4_0:
        row[block + SCALE_BYTES + in_block % half] |=
            (unsigned char)((element & 15) << (in_block < half ? 0 : 4));
        break;
    case ATTN_DTYPE_INT4X2:
    case ATTN_DTYPE_UINT4X2:
        row[col / 2] |= (unsigned char)((element & 15) << (col % 2 * 4));
        break;
    default:
        row[col] = (unsigned char)element;
        break;
    }
}

/* The scales inside a row of blocks. */
static void store_scales(int32_t dtype, unsigned char *row, int32_t scale) {
    const int64_t bytes = (int64_t)attn_dtype_size_bytes(dtype);
    for (int64_t block = 0; block < FEATURES / BLOCK_VALUES; ++block) {
        attni_write_real((char *)row + block * bytes, 0, ATTN_DTYPE_FLOAT16, scale);
    }
}

static int32_t query_of(const struct cache_case *kind, int64_t row, int64_t col) {
    return kind->is_softmax ? 0 : attni_selftest_integer(QUERY, row, col) / 2;
}

/* Row `row` of all heads, of keys or values. */
static void fill_row(const struct cache_case *kind, const attn_tensor *tensors, bool is_value,
                     int64_t row) {
    const attn_tensor *stored = &tensors[is_value ? VALUE : KEY];
    const int32_t scale = scale_of(row / KEYS + row + is_value);
    const int32_t zero = zero_of(kind, row + is_value);
    const int64_t row_bytes = stored->strides[1] * (int64_t)attn_dtype_size_bytes(stored->dtype);
    unsigned char *elements = (unsigned char *)stored->data + row * row_bytes;
    int32_t *known = (int32_t *)tensors[is_value ? KNOWN_VALUE : KNOWN_KEY].data + row * FEATURES;
    if (!kind->has_scales) {
        store_scales(kind->dtype, elements, scale);
    }
    attni_write_real(tensors[is_value ? VALUE_SCALE : KEY_SCALE].data, row, ATTN_DTYPE_FLOAT32,
                     scale);
    attni_write_real(tensors[is_value ? VALUE_ZERO : KEY_ZERO].data, row, ATTN_DTYPE_FLOAT32,
                     kind->zero + zero);
    for (int64_t col = 0; col < FEATURES; ++col) {
        const int32_t integer = attni_selftest_integer(is_value ? VALUE : KEY, row, col);
        store_value(kind->dtype, elements, col, kind->zero + integer);
        known[col] = (integer - zero) * scale;
    }
}

static void fill(const struct cache_case *kind, const attn_tensor *tensors) {
    for (int64_t row = 0; row < (int64_t)HEADS * KEYS; ++row) {
        fill_row(kind, tensors, false, row);
        fill_row(kind, tensors, true, row);
    }
    for (int64_t row = 0; row < HEADS * kind->rows; ++row) {
        for (int64_t col = 0; col < FEATURES; ++col) {
            attni_write_real(tensors[QUERY].data, row * FEATURES + col, ATTN_DTYPE_FLOAT32,
                             query_of(kind, row, col));
        }
    }
}

/* ---- the call and its comparison ---- */

static attn_status attend(attn_context *context, const struct cache_case *kind,
                          const attn_tensor *tensors) {
    const attn_kv kv = {
        .struct_size = sizeof kv,
        .key = &tensors[KEY],
        .value = &tensors[VALUE],
        .key_scale = kind->has_scales ? &tensors[KEY_SCALE] : NULL,
        .value_scale = kind->has_scales ? &tensors[VALUE_SCALE] : NULL,
        .key_zero = kind->has_zeros ? &tensors[KEY_ZERO] : NULL,
        .value_zero = kind->has_zeros ? &tensors[VALUE_ZERO] : NULL,
    };
    const attn_sdpa_params params = {
        .struct_size = sizeof params,
        .set = ATTN_SDPA_SET_SCALE,
        .scale = 1,
        .normalizer = kind->is_softmax ? ATTN_NORMALIZER_SOFTMAX : ATTN_NORMALIZER_LINEAR,
        .kv = &kv,
    };
    return attn_sdpa(context, &tensors[QUERY], NULL, NULL, &params, &tensors[OUTPUT], NULL, 0);
}

/* Sums over the keys, of softmax not yet divided. Below 64 keys * (64 features * 2 * 24) * 24, which float32 holds exactly. */
static void known_row(const struct cache_case *kind, const attn_tensor *tensors, int64_t query_row,
                      int32_t output[FEATURES]) {
    const int64_t head = query_row / kind->rows;
    const int32_t *keys = (const int32_t *)tensors[KNOWN_KEY].data + head * KEYS * FEATURES;
    const int32_t *values = (const int32_t *)tensors[KNOWN_VALUE].data + head * KEYS * FEATURES;
    int32_t query[FEATURES];
    for (int64_t col = 0; col < FEATURES; ++col) {
        query[col] = query_of(kind, query_row, col);
    }
    memset(output, 0, FEATURES * sizeof *output);
    for (int64_t key = 0; key < KEYS; ++key) {
        int32_t score = kind->is_softmax ? 1 : 0;
        for (int64_t col = 0; col < FEATURES; ++col) {
            score += query[col] * keys[key * FEATURES + col];
        }
        for (int64_t col = 0; col < FEATURES; ++col) {
            output[col] += score * values[key * FEATURES + col];
        }
    }
}

static attn_status compare(const struct cache_case *kind, const attn_tensor *tensors) {
    int32_t known[FEATURES];
    for (int64_t row = 0; row < HEADS * kind->rows; ++row) {
        known_row(kind, tensors, row, known);
        for (int64_t col = 0; col < FEATURES; ++col) {
            const double got =
                attni_read_real(tensors[OUTPUT].data, row * FEATURES + col, ATTN_DTYPE_FLOAT32);
            const double expected = kind->is_softmax ? (double)known[col] / KEYS : known[col];
            if (got != expected) {
                return attni_fail(ATTN_ERROR_SELFTEST,
                                  "attention over %s: expected %.9g at (%d, %d), got %.9g",
                                  kind->name, expected, (int)row, (int)col, got);
            }
        }
    }
    return ATTN_OK;
}

static attn_status check_case(attn_context *context, const struct cache_case *kind) {
    const int32_t float32 = ATTN_DTYPE_FLOAT32;
    const int32_t int32 = ATTN_DTYPE_INT32;
    const int64_t elements = FEATURES / attn_dtype_values(kind->dtype);
    const attni_selftest_shape shapes[TENSORS] = {
        [QUERY] = {float32, 3, {HEADS, kind->rows, FEATURES}},
        [OUTPUT] = {float32, 3, {HEADS, kind->rows, FEATURES}},
        [KEY] = {kind->dtype, 3, {HEADS, KEYS, elements}},
        [VALUE] = {kind->dtype, 3, {HEADS, KEYS, elements}},
        [KEY_SCALE] = {float32, 3, {HEADS, KEYS, 1}},
        [VALUE_SCALE] = {float32, 3, {HEADS, KEYS, 1}},
        [KEY_ZERO] = {float32, 3, {HEADS, KEYS, 1}},
        [VALUE_ZERO] = {float32, 3, {HEADS, KEYS, 1}},
        [KNOWN_KEY] = {int32, 3, {HEADS, KEYS, FEATURES}},
        [KNOWN_VALUE] = {int32, 3, {HEADS, KEYS, FEATURES}},
    };
    attn_tensor tensors[TENSORS];
    attni_workspace memory;
    ATTNI_TRY(attni_selftest_place(context, shapes, TENSORS, tensors, &memory));
    fill(kind, tensors);
    attn_status status = attend(context, kind, tensors);
    if (status == ATTN_OK) {
        status = compare(kind, tensors);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

attn_status attni_selftest_caches(attn_context *context, int32_t dtype,
                                  attni_selftest_forms forms) {
    (void)dtype;
    for (int32_t i = forms.first; i < CASES; i += forms.step) {
        ATTNI_TRY(check_case(context, &cases[i]));
    }
    return ATTN_OK;
}
