/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integer_attention.c: attention whose weights are the scores themselves, of integers so small that
 * output is exact: both of its products, what rows see, heads that share keys, the merging of
 * splits.
 */
#include <stdbool.h>
#include <string.h>

#include <attention/sdpa.h>

#include "selftest/known_results.h"
#include "tensor/element.h"

enum { MOST_FEATURES = 72 };

/* Row i stands at position i + keys - rows. */
static const struct attention_case {
    const char *name;
    int64_t batch;
    int64_t heads;
    int64_t kv_heads;
    int64_t rows;
    int64_t keys;
    int64_t head_dim;
    int64_t value_head_dim;
    bool has_options; /* causality, a window, a length for each batch, a mask */
    bool is_rounded;  /* output is of query's type, else exact */
} cases[] = {
    {"rows in blocks", 1, 2, 2, 50, 300, 40, 24, false, false},
    {"rows in blocks with options", 2, 2, 1, 33, 290, 32, 48, true, false},
    {"rows in blocks, output rounded", 1, 1, 1, 20, 70, 40, 24, false, true},
    {"decoding", 1, 2, 2, 1, 2000, 64, 64, false, false},
    {"decoding with options", 2, 4, 2, 2, 523, 64, MOST_FEATURES, true, false},
    {"decoding, output rounded", 1, 1, 1, 1, 500, 64, 64, false, true},
};

enum { CASES = sizeof cases / sizeof cases[0] };

/* An input as the call gets it, and as the integers that it holds, by which results are computed:
 * an element of any type takes many times as long to read. */
enum { QUERY, KEY, VALUE, OUTPUT, OFFSET, LENGTHS, MASK, INTEGERS, TENSORS = INTEGERS + 3 };

enum { WINDOW_LEFT = 200, SHORTER_BY = 17 };

static int64_t length_of(const struct attention_case *shape, int64_t batch) {
    return shape->keys - SHORTER_BY * (batch + 1);
}

static bool mask_shows(int64_t row, int64_t key) {
    return (row + 2 * key) % 3 != 0;
}

static bool sees(const struct attention_case *shape, int64_t batch, int64_t row, int64_t key) {
    const int64_t position = row + shape->keys - shape->rows;
    return !shape->has_options || (key <= position && key >= position - WINDOW_LEFT &&
                                   key < length_of(shape, batch) && mask_shows(row, key));
}

/* ---- the call ---- */

/* (batch, heads, rows, features) of integers from -2 to 2: sums stay far below 2^24. */
static void fill_matrices(const attn_tensor *tensor, uint32_t which, int32_t *integers) {
    const int64_t *shape = tensor->shape;
    int64_t at = 0;
    for (int64_t matrix = 0; matrix < shape[0] * shape[1]; ++matrix) {
        for (int64_t row = 0; row < shape[2]; ++row) {
            for (int64_t col = 0; col < shape[3]; ++col, ++at) {
                integers[at] = attni_selftest_integer(which + 16 * (uint32_t)matrix, row, col) / 2;
                attni_write_real(tensor->data, at, tensor->dtype, integers[at]);
            }
        }
    }
}

static void fill_options(const struct attention_case *shape, const attn_tensor *tensors) {
    int64_t *lengths = tensors[LENGTHS].data;
    unsigned char *mask = tensors[MASK].data;
    *(int64_t *)tensors[OFFSET].data = shape->keys - shape->rows;
    for (int64_t batch = 0; batch < shape->batch; ++batch) {
        lengths[batch] = length_of(shape, batch);
    }
    for (int64_t row = 0; row < shape->rows; ++row) {
        for (int64_t key = 0; key < shape->keys; ++key) {
            mask[row * shape->keys + key] = mask_shows(row, key);
        }
    }
}

static attn_status attend(attn_context *context, const struct attention_case *shape,
                          const attn_tensor *tensors) {
    attn_sdpa_params params = {
        .struct_size = sizeof params,
        .set = ATTN_SDPA_SET_SCALE,
        .scale = 1,
        .enable_gqa = 1,
        .normalizer = ATTN_NORMALIZER_LINEAR,
    };
    if (shape->has_options) {
        params.set |= ATTN_SDPA_SET_WINDOW;
        params.is_causal = 1;
        params.window_left = WINDOW_LEFT;
        params.window_right = -1;
        params.query_offset = &tensors[OFFSET];
        params.key_lengths = &tensors[LENGTHS];
        params.mask_kind = ATTN_MASK_BOOL_INCLUDE;
        params.mask = &tensors[MASK];
    }
    return attn_sdpa(context, &tensors[QUERY], &tensors[KEY], &tensors[VALUE], &params,
                     &tensors[OUTPUT], NULL, 0);
}

/* ---- the comparison ---- */

static const int32_t *integers_of(const attn_tensor *tensors, int32_t input, int64_t matrix,
                                  int64_t row) {
    const int64_t *shape = tensors[INTEGERS + input].shape;
    return (const int32_t *)tensors[INTEGERS + input].data + (matrix * shape[2] + row) * shape[3];
}

/* Row `row` of the output of one head. */
static void known_row(const struct attention_case *shape, const attn_tensor *tensors,
                      int64_t query_matrix, int64_t row, int32_t *output) {
    const int64_t batch = query_matrix / shape->heads;
    const int64_t head = query_matrix % shape->heads;
    const int64_t key_matrix = batch * shape->kv_heads + head / (shape->heads / shape->kv_heads);
    const int32_t *query = integers_of(tensors, QUERY, query_matrix, row);
    memset(output, 0, (size_t)shape->value_head_dim * sizeof *output);
    for (int64_t position = 0; position < shape->keys; ++position) {
        if (!sees(shape, batch, row, position)) {
            continue;
        }
        const int32_t *key = integers_of(tensors, KEY, key_matrix, position);
        const int32_t *value = integers_of(tensors, VALUE, key_matrix, position);
        int32_t score = 0;
        for (int64_t col = 0; col < shape->head_dim; ++col) {
            score += query[col] * key[col];
        }
        for (int64_t col = 0; col < shape->value_head_dim; ++col) {
            output[col] += score * value[col];
        }
    }
}

static double as_stored(double number, int32_t dtype) {
    double element;
    attni_write_real((char *)&element, 0, dtype, number);
    return attni_read_real((const char *)&element, 0, dtype);
}

static attn_status compare(const struct attention_case *shape, const attn_tensor *tensors) {
    const attn_tensor *output = &tensors[OUTPUT];
    int32_t known[MOST_FEATURES];
    for (int64_t matrix = 0; matrix < shape->batch * shape->heads; ++matrix) {
        for (int64_t row = 0; row < shape->rows; ++row) {
            known_row(shape, tensors, matrix, row, known);
            for (int64_t col = 0; col < shape->value_head_dim; ++col) {
                const int64_t at = (matrix * shape->rows + row) * shape->value_head_dim + col;
                const double got = attni_read_real(output->data, at, output->dtype);
                const double stored = as_stored(known[col], output->dtype);
                ATTNI_TRY(attni_selftest_compare(shape->name, tensors[QUERY].dtype, row, col,
                                                 stored, got, 0));
            }
        }
    }
    return ATTN_OK;
}

static attn_status check_case(attn_context *context, int32_t dtype,
                              const struct attention_case *shape) {
    attni_selftest_shape shapes[TENSORS] = {
        [QUERY] = {dtype, 4, {shape->batch, shape->heads, shape->rows, shape->head_dim}},
        [KEY] = {dtype, 4, {shape->batch, shape->kv_heads, shape->keys, shape->head_dim}},
        [VALUE] = {dtype, 4, {shape->batch, shape->kv_heads, shape->keys, shape->value_head_dim}},
        [OUTPUT] = {shape->is_rounded ? dtype : attni_score_dtype(dtype),
                    4,
                    {shape->batch, shape->heads, shape->rows, shape->value_head_dim}},
        [OFFSET] = {ATTN_DTYPE_INT64, 0, {0}},
        [LENGTHS] = {ATTN_DTYPE_INT64, 1, {shape->batch}},
        [MASK] = {ATTN_DTYPE_BOOL, 2, {shape->rows, shape->keys}},
    };
    for (int32_t input = QUERY; input <= VALUE; ++input) {
        shapes[INTEGERS + input] = shapes[input];
        shapes[INTEGERS + input].dtype = ATTN_DTYPE_INT32;
    }
    attn_tensor tensors[TENSORS];
    attni_workspace memory;
    ATTNI_TRY(attni_selftest_place(context, shapes, TENSORS, tensors, &memory));
    for (int32_t input = QUERY; input <= VALUE; ++input) {
        fill_matrices(&tensors[input], (uint32_t)input, tensors[INTEGERS + input].data);
    }
    fill_options(shape, tensors);
    attn_status status = attend(context, shape, tensors);
    if (status == ATTN_OK) {
        status = compare(shape, tensors);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

attn_status attni_selftest_attention(attn_context *context, int32_t dtype,
                                     attni_selftest_forms forms) {
    for (int32_t i = forms.first; i < CASES; i += forms.step) {
        ATTNI_TRY(check_case(context, dtype, &cases[i]));
    }
    return ATTN_OK;
}
