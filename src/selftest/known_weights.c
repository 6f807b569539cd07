/* SPDX-License-Identifier: BSD-3-Clause
 *
 * known_weights.c: of scores log(1), log(2), ..., log(n) the exponentials are 1, 2, ..., n, and the
 * softmax is 2 j / (n (n + 1)).
 */
#include <math.h>

#include <attention/sdpa.h>
#include <attention/softmax.h>

#include "selftest/known_results.h"
#include "tensor/element.h"

/* What rounding the logarithms to the type, which is off by up to u log(n), adds to the bounds is
 * counted as one more difference of two scores. */

static double known_weight(int64_t j, int64_t n) {
    return 2.0 * (double)(j + 1) / ((double)n * (double)(n + 1));
}

static double known_lse(int64_t n) {
    return log((double)n * (double)(n + 1) / 2);
}

/* ---- softmax ---- */

enum { ROW_LENGTH = 300, ROWS = 3 };

static const int64_t lengths_of_rows[ROWS] = {ROW_LENGTH, 1, 0};

enum { SCORES, WEIGHTS, LENGTHS, ROW_LSE, SOFTMAX_TENSORS };

/* Behind its length a row is NaN. */
static void fill_scores(const attn_tensor *tensors) {
    for (int64_t row = 0; row < ROWS; ++row) {
        ((int64_t *)tensors[LENGTHS].data)[row] = lengths_of_rows[row];
        for (int64_t j = 0; j < ROW_LENGTH; ++j) {
            attni_write_real(tensors[SCORES].data, row * ROW_LENGTH + j, tensors[SCORES].dtype,
                             j < lengths_of_rows[row] ? log((double)(j + 1)) : (double)NAN);
        }
    }
}

static attn_status compare_row(const attn_tensor *tensors, int64_t row) {
    const int32_t dtype = tensors[WEIGHTS].dtype;
    const int64_t n = lengths_of_rows[row];
    const double u = attni_selftest_rounding(dtype);
    const double share = (2 * log(ROW_LENGTH) + ROW_LENGTH + 32) * u;
    for (int64_t j = 0; j < ROW_LENGTH; ++j) {
        const double expected = j < n ? known_weight(j, n) : 0;
        const double got = attni_read_real(tensors[WEIGHTS].data, row * ROW_LENGTH + j, dtype);
        ATTNI_TRY(
            attni_selftest_compare("softmax", dtype, row, j, expected, got, share * expected));
    }
    const double lse = n > 0 ? known_lse(n) : -(double)INFINITY;
    return attni_selftest_compare("lse of softmax", dtype, row, 0, lse,
                                  attni_read_real(tensors[ROW_LSE].data, row, dtype), share);
}

static attn_status check_softmax(attn_context *context, int32_t dtype) {
    const attni_selftest_shape shapes[SOFTMAX_TENSORS] = {
        [SCORES] = {dtype, 2, {ROWS, ROW_LENGTH}},
        [WEIGHTS] = {dtype, 2, {ROWS, ROW_LENGTH}},
        [LENGTHS] = {ATTN_DTYPE_INT64, 1, {ROWS}},
        [ROW_LSE] = {dtype, 1, {ROWS}},
    };
    attn_tensor tensors[SOFTMAX_TENSORS];
    attni_workspace memory;
    ATTNI_TRY(attni_selftest_place(context, shapes, SOFTMAX_TENSORS, tensors, &memory));
    fill_scores(tensors);
    const attn_softmax_params params = {
        .struct_size = sizeof params, .lengths = &tensors[LENGTHS], .lse = &tensors[ROW_LSE]};
    attn_status status =
        attn_softmax(context, &tensors[SCORES], &params, &tensors[WEIGHTS], NULL, 0);
    for (int64_t row = 0; row < ROWS && status == ATTN_OK; ++row) {
        status = compare_row(tensors, row);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

/* ---- attention ---- */

/* Queries are (1, 0), key j is (log(j + 1), 1), value j is (j, 1): output is (2 (n - 1) / 3, 1).
 * Many rows and one row take different kernels; the keys are more than one block. */
static const int64_t numbers_of_rows[] = {40, 1};

enum { KEYS = 900, FEATURES = 2 };
enum { QUERY, KEY, VALUE, OUTPUT, LSE, ATTENTION_TENSORS };

static void fill_attention(const attn_tensor *tensors) {
    const int32_t dtype = tensors[QUERY].dtype;
    for (int64_t row = 0; row < tensors[QUERY].shape[0]; ++row) {
        attni_write_real(tensors[QUERY].data, FEATURES * row, dtype, 1);
    }
    for (int64_t key = 0; key < KEYS; ++key) {
        attni_write_real(tensors[KEY].data, FEATURES * key, dtype, log((double)(key + 1)));
        attni_write_real(tensors[KEY].data, FEATURES * key + 1, dtype, 1);
        attni_write_real(tensors[VALUE].data, FEATURES * key, dtype, (double)key);
        attni_write_real(tensors[VALUE].data, FEATURES * key + 1, dtype, 1);
    }
}

static attn_status compare_attention(const attn_tensor *tensors) {
    const int32_t dtype = tensors[OUTPUT].dtype;
    const double u = attni_selftest_rounding(dtype);
    const double spread = log(KEYS);
    const double score_error = (FEATURES + 8 + 1) * u * spread; /* and the logarithm's rounding */
    const double share = 2 * score_error + (KEYS + 16 + spread) * u;
    const double known[FEATURES] = {2.0 * (KEYS - 1) / 3, 1};
    for (int64_t row = 0; row < tensors[OUTPUT].shape[0]; ++row) {
        for (int64_t col = 0; col < FEATURES; ++col) {
            const double got = attni_read_real(tensors[OUTPUT].data, FEATURES * row + col, dtype);
            ATTNI_TRY(attni_selftest_compare("attention with softmax", dtype, row, col, known[col],
                                             got, share * known[col]));
        }
        ATTNI_TRY(attni_selftest_compare("lse of attention", dtype, row, 0, known_lse(KEYS),
                                         attni_read_real(tensors[LSE].data, row, dtype), share));
    }
    return ATTN_OK;
}

static attn_status check_attention(attn_context *context, int32_t dtype, int64_t rows) {
    const attni_selftest_shape shapes[ATTENTION_TENSORS] = {
        [QUERY] = {dtype, 2, {rows, FEATURES}},
        [KEY] = {dtype, 2, {KEYS, FEATURES}},
        [VALUE] = {dtype, 2, {KEYS, FEATURES}},
        [OUTPUT] = {dtype, 2, {rows, FEATURES}},
        [LSE] = {dtype, 1, {rows}},
    };
    attn_tensor tensors[ATTENTION_TENSORS];
    attni_workspace memory;
    ATTNI_TRY(attni_selftest_place(context, shapes, ATTENTION_TENSORS, tensors, &memory));
    fill_attention(tensors);
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .set = ATTN_SDPA_SET_SCALE, .scale = 1, .lse = &tensors[LSE]};
    attn_status status = attn_sdpa(context, &tensors[QUERY], &tensors[KEY], &tensors[VALUE],
                                   &params, &tensors[OUTPUT], NULL, 0);
    if (status == ATTN_OK) {
        status = compare_attention(tensors);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

attn_status attni_selftest_weights(attn_context *context, int32_t dtype,
                                   attni_selftest_forms forms) {
    (void)forms;
    ATTNI_TRY(check_softmax(context, dtype));
    for (size_t i = 0; i < sizeof numbers_of_rows / sizeof numbers_of_rows[0]; ++i) {
        ATTNI_TRY(check_attention(context, dtype, numbers_of_rows[i]));
    }
    return ATTN_OK;
}
