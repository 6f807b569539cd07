/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integer_gradients.c: gradients of attention that are exact. With the scores as weights they are
 * sums of products of small integers. Other normalizers get scores of 0, by queries and keys that
 * have no feature in common, and softmax an lse of 0, which it takes as it is given: then every
 * weight is exactly 1, or 1/2 of a sigmoid, whatever the output is said to be.
 */
#include <math.h>
#include <stdbool.h>

#include <attention/backward.h>

#include "selftest/known_results.h"
#include "tensor/element.h"

/* Row i sees keys up to i + KEYS - ROWS. */
enum { HEADS = 2, ROWS = 19, KEYS = 37, FEATURES = 18, VALUE_FEATURES = 11 };

static const struct gradient_case {
    const char *name;
    double softcap;
    int32_t normalizer;
    bool hides_nan; /* the first row has a gradient of NaN: what it does not see is untouched */
} cases[] = {
    {"gradients with linear weights", 0, ATTN_NORMALIZER_LINEAR, false},
    {"gradients with softmax", 0, ATTN_NORMALIZER_SOFTMAX, false},
    {"gradients with sigmoid", 0, ATTN_NORMALIZER_SIGMOID, false},
    {"gradients with softcap", 2, ATTN_NORMALIZER_SOFTMAX, false},
    {"gradients beside a hidden NaN", 0, ATTN_NORMALIZER_LINEAR, true},
};

enum { CASES = sizeof cases / sizeof cases[0] };

/* Both heads have one key and value, one mask and one bias, so that their gradients are added. The
 * bias is one number for each row. */
enum {
    QUERY,
    KEY,
    VALUE,
    OUTPUT,
    LSE,
    MASK,
    BIAS,
    OF_OUTPUT, /* gradients that are given */
    OF_LSE,
    OF_WEIGHTS,
    OF_QUERY, /* those that are wanted, in the order of what they are of */
    OF_KEY,
    OF_VALUE,
    OF_MASK,
    OF_BIAS,
    KNOWN, /* float64: the same once more */
    NUM_WANTED = KNOWN - OF_QUERY,
    TENSORS = KNOWN + NUM_WANTED
};

static const char *const names[NUM_WANTED] = {"query", "key", "value", "mask", "bias"};

/* ---- inputs ---- */

/* Whether a feature of query or key is one that the other has not. */
static bool is_left_out(const struct gradient_case *kind, int32_t which, int64_t col) {
    const bool is_product = which == QUERY || which == KEY;
    return kind->normalizer != ATTN_NORMALIZER_LINEAR && is_product &&
           col % 2 == (which == QUERY ? 0 : 1);
}

/* Element (row, col) of an input, rows of all heads counted on. */
static double number_of(const struct gradient_case *kind, int32_t which, int64_t row, int64_t col) {
    if (kind->hides_nan && which == OF_OUTPUT && row % ROWS == 0) {
        return (double)NAN;
    }
    return is_left_out(kind, which, col) ? 0
                                         : attni_selftest_integer((uint32_t)which, row, col) / 2;
}

static void fill(const struct gradient_case *kind, const attn_tensor *tensors) {
    static const int32_t filled[] = {QUERY, KEY, VALUE, OUTPUT, OF_OUTPUT, OF_LSE, OF_WEIGHTS};
    for (size_t i = 0; i < sizeof filled / sizeof filled[0]; ++i) {
        const attn_tensor *tensor = &tensors[filled[i]];
        const int64_t cols = tensor->rank == 3 ? tensor->shape[2] : 1;
        const int64_t rows = tensor->shape[0] * tensor->shape[1];
        for (int64_t at = 0; at < rows * cols; ++at) {
            attni_write_real(tensor->data, at, tensor->dtype,
                             number_of(kind, filled[i], at / cols, at % cols));
        }
    }
}

/* ---- what is known ---- */

static double *known_of(const attn_tensor *tensors, int32_t wanted, int64_t row) {
    const attn_tensor *known = &tensors[KNOWN + wanted - OF_QUERY];
    return (double *)known->data + row * known->strides[1];
}

static double dot(const struct gradient_case *kind, int32_t a, int64_t a_row, int32_t b,
                  int64_t b_row, int64_t cols) {
    double sum = 0;
    for (int64_t col = 0; col < cols; ++col) {
        sum += number_of(kind, a, a_row, col) * number_of(kind, b, b_row, col);
    }
    return sum;
}

static int64_t keys_seen(int64_t row) {
    return row % ROWS + KEYS - ROWS + 1;
}

/* What softmax takes off a row's gradients. */
static double mean_of(const struct gradient_case *kind, int64_t row) {
    double mean =
        dot(kind, OUTPUT, row, OF_OUTPUT, row, VALUE_FEATURES) - number_of(kind, OF_LSE, row, 0);
    for (int64_t key = 0; key < keys_seen(row); ++key) {
        mean += number_of(kind, OF_WEIGHTS, row, key);
    }
    return mean;
}

/* A weight, and the gradient of its score. */
typedef struct weight_parts {
    double weight;
    double gradient;
} weight_parts;

static weight_parts parts_of(const struct gradient_case *kind, int64_t row, int64_t key,
                             double mean) {
    const double of_weight = dot(kind, OF_OUTPUT, row, VALUE, key, VALUE_FEATURES) +
                             number_of(kind, OF_WEIGHTS, row, key);
    switch (kind->normalizer) {
    case ATTN_NORMALIZER_SOFTMAX:
        return (weight_parts){1, of_weight - mean};
    case ATTN_NORMALIZER_SIGMOID:
        return (weight_parts){0.5, of_weight / 4};
    default:
        return (weight_parts){dot(kind, QUERY, row, KEY, key, FEATURES), of_weight};
    }
}

static void add_known(const struct gradient_case *kind, const attn_tensor *tensors, int64_t row) {
    const double mean = mean_of(kind, row);
    for (int64_t key = 0; key < keys_seen(row); ++key) {
        const weight_parts parts = parts_of(kind, row, key, mean);
        for (int64_t col = 0; col < FEATURES; ++col) {
            known_of(tensors, OF_QUERY, row)[col] +=
                parts.gradient * number_of(kind, KEY, key, col);
            known_of(tensors, OF_KEY, key)[col] +=
                parts.gradient * number_of(kind, QUERY, row, col);
        }
        for (int64_t col = 0; col < VALUE_FEATURES; ++col) {
            known_of(tensors, OF_VALUE, key)[col] +=
                parts.weight * number_of(kind, OF_OUTPUT, row, col);
        }
        known_of(tensors, OF_MASK, row % ROWS)[key] += parts.gradient;
        known_of(tensors, OF_BIAS, row % ROWS)[0] += parts.gradient;
    }
}

/* ---- the call and its comparison ---- */

static attn_status differentiate(attn_context *context, const struct gradient_case *kind,
                                 const attn_tensor *tensors) {
    const bool is_softmax = kind->normalizer == ATTN_NORMALIZER_SOFTMAX;
    const attn_sdpa_params params = {
        .struct_size = sizeof params,
        .set = ATTN_SDPA_SET_SCALE,
        .scale = 1,
        .softcap = kind->softcap,
        .is_causal = 1,
        .align_end = 1,
        .normalizer = kind->normalizer,
        .mask_kind = ATTN_MASK_ADDITIVE,
        .mask = &tensors[MASK],
        .bias = &tensors[BIAS],
        .lse = is_softmax ? &tensors[LSE] : NULL,
    };
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = &tensors[OF_OUTPUT],
        .lse = is_softmax ? &tensors[OF_LSE] : NULL,
        .weights = &tensors[OF_WEIGHTS],
        .query = &tensors[OF_QUERY],
        .key = &tensors[OF_KEY],
        .value = &tensors[OF_VALUE],
        .mask = &tensors[OF_MASK],
        .bias = &tensors[OF_BIAS],
    };
    return attn_sdpa_backward(context, &tensors[QUERY], &tensors[KEY], &tensors[VALUE], &params,
                              &tensors[OUTPUT], &gradients, NULL, 0);
}

/* Whether a NaN that is hidden elsewhere enters an element. */
static bool has_seen_nan(const struct gradient_case *kind, int32_t wanted, int64_t row) {
    const bool is_of_keys = wanted == OF_KEY || wanted == OF_VALUE;
    return kind->hides_nan && (is_of_keys ? row < keys_seen(0) : row % ROWS == 0);
}

static attn_status compare(const struct gradient_case *kind, const attn_tensor *tensors,
                           int32_t wanted) {
    const attn_tensor *got = &tensors[wanted];
    const int64_t cols = got->shape[2];
    for (int64_t row = 0; row < got->shape[0] * got->shape[1]; ++row) {
        const double *known = known_of(tensors, wanted, row);
        for (int64_t col = 0; col < cols && !has_seen_nan(kind, wanted, row); ++col) {
            const double number = attni_read_real(got->data, row * cols + col, got->dtype);
            if (number != known[col]) {
                return attni_fail(ATTN_ERROR_SELFTEST,
                                  "%s, %s: expected %.9g at (%d, %d) of %s, got %.9g", kind->name,
                                  attni_selftest_type_name(got->dtype), known[col], (int)row,
                                  (int)col, names[wanted - OF_QUERY], number);
            }
        }
    }
    return ATTN_OK;
}

static attn_status check_case(attn_context *context, int32_t dtype,
                              const struct gradient_case *kind) {
    attni_selftest_shape shapes[TENSORS] = {
        [QUERY] = {dtype, 3, {HEADS, ROWS, FEATURES}},
        [KEY] = {dtype, 3, {1, KEYS, FEATURES}},
        [VALUE] = {dtype, 3, {1, KEYS, VALUE_FEATURES}},
        [OUTPUT] = {dtype, 3, {HEADS, ROWS, VALUE_FEATURES}},
        [LSE] = {dtype, 2, {HEADS, ROWS}},
        [MASK] = {dtype, 3, {1, ROWS, KEYS}},
        [BIAS] = {dtype, 3, {1, ROWS, 1}},
        [OF_OUTPUT] = {dtype, 3, {HEADS, ROWS, VALUE_FEATURES}},
        [OF_LSE] = {dtype, 2, {HEADS, ROWS}},
        [OF_WEIGHTS] = {dtype, 3, {HEADS, ROWS, KEYS}},
    };
    static const int32_t inputs[NUM_WANTED] = {QUERY, KEY, VALUE, MASK, BIAS};
    for (int32_t i = 0; i < NUM_WANTED; ++i) {
        shapes[OF_QUERY + i] = shapes[inputs[i]];
        shapes[KNOWN + i] = shapes[inputs[i]];
        shapes[KNOWN + i].dtype = ATTN_DTYPE_FLOAT64;
    }
    attn_tensor tensors[TENSORS];
    attni_workspace memory;
    ATTNI_TRY(attni_selftest_place(context, shapes, TENSORS, tensors, &memory));
    fill(kind, tensors);
    attn_status status = differentiate(context, kind, tensors);
    for (int64_t row = 0; row < (int64_t)HEADS * ROWS; ++row) {
        add_known(kind, tensors, row);
    }
    for (int32_t wanted = OF_QUERY; wanted < KNOWN && status == ATTN_OK; ++wanted) {
        status = compare(kind, tensors, wanted);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}

attn_status attni_selftest_gradients(attn_context *context, int32_t dtype,
                                     attni_selftest_forms forms) {
    for (int32_t i = forms.first; i < CASES; i += forms.step) {
        ATTNI_TRY(check_case(context, dtype, &cases[i]));
    }
    return ATTN_OK;
}
