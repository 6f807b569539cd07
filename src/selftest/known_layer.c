/* SPDX-License-Identifier: BSD-3-Clause
 *
 * known_layer.c: a layer of integer parameters whose query projection is zero, so that every key
 * that is not padding weighs the same, a power of two: output is the output projection of the mean
 * of the projected values.
 */
#include <math.h>

#include <attention/multihead.h>

#include "selftest/known_results.h"
#include "tensor/element.h"

enum { BATCH = 2, ROWS = 5, KEYS = 64, FEATURES = 48, HEADS = 3 };
enum {
    ALL_ROWS = BATCH * ROWS,
    ALL_KEYS = BATCH * KEYS,
    FIRST_VALUE_ROW = 2 * FEATURES, /* of in_proj */
    IN_ROWS = 3 * FEATURES
};

/* Keys that are not padding; padded keys and values are NaN. */
static const int64_t keys_of_batch[BATCH] = {KEYS, KEYS / 8};

enum {
    QUERY,
    SOURCE, /* key and value */
    OUTPUT,
    PADDING,
    IN_WEIGHT,
    IN_BIAS,
    OUT_WEIGHT,
    OUT_BIAS,
    TENSORS
};

static void fill_matrix(const attn_tensor *tensor, int64_t first_row, int64_t rows, int64_t cols) {
    for (int64_t row = first_row; row < rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
            attni_write_real(tensor->data, row * cols + col, tensor->dtype,
                             attni_selftest_integer((uint32_t)cols, row, col));
        }
    }
}

/* In in_proj the rows of the query, which come first, stay zero. */
static void fill_tensors(const attn_tensor *tensors) {
    fill_matrix(&tensors[QUERY], 0, ALL_ROWS, FEATURES);
    fill_matrix(&tensors[SOURCE], 0, ALL_KEYS, FEATURES);
    fill_matrix(&tensors[IN_WEIGHT], FEATURES, IN_ROWS, FEATURES);
    fill_matrix(&tensors[IN_BIAS], FEATURES, IN_ROWS, 1);
    fill_matrix(&tensors[OUT_WEIGHT], 0, FEATURES, FEATURES);
    fill_matrix(&tensors[OUT_BIAS], 0, FEATURES, 1);
    for (int64_t i = 0; i < ALL_KEYS; ++i) {
        const int is_padding = i % KEYS >= keys_of_batch[i / KEYS];
        ((unsigned char *)tensors[PADDING].data)[i] = (unsigned char)is_padding;
        for (int64_t col = 0; is_padding && col < FEATURES; ++col) {
            attni_write_real(tensors[SOURCE].data, i * FEATURES + col, tensors[SOURCE].dtype,
                             (double)NAN);
        }
    }
}

static double element(const attn_tensor *tensor, int64_t at) {
    return attni_read_real(tensor->data, at, tensor->dtype);
}

/* A number and the magnitudes it is made of. */
typedef struct known_number {
    double value;
    double magnitude;
} known_number;

/* The mean over a batch's keys of value projection `feature`, exact: a multiple of 1 / KEYS. */
static known_number mean_value(const attn_tensor *tensors, int64_t batch, int64_t feature) {
    const int64_t row = FIRST_VALUE_ROW + feature;
    const double share = 1 / (double)keys_of_batch[batch];
    known_number mean = {0, 0};
    for (int64_t key = 0; key < keys_of_batch[batch]; ++key) {
        double value = element(&tensors[IN_BIAS], row);
        for (int64_t col = 0; col < FEATURES; ++col) {
            value += element(&tensors[IN_WEIGHT], row * FEATURES + col) *
                     element(&tensors[SOURCE], (batch * KEYS + key) * FEATURES + col);
        }
        mean.value += share * value;
        mean.magnitude += share * fabs(value);
    }
    return mean;
}

static known_number known_output(const attn_tensor *tensors, const known_number *means,
                                 int64_t feature) {
    const double bias = element(&tensors[OUT_BIAS], feature);
    known_number output = {bias, fabs(bias)};
    for (int64_t i = 0; i < FEATURES; ++i) {
        const double weight = element(&tensors[OUT_WEIGHT], feature * FEATURES + i);
        output.value += weight * means[i].value;
        output.magnitude += fabs(weight) * means[i].magnitude;
    }
    return output;
}

/* All rows of a batch are the same. All scores are 0, so attention is off by at most (KEYS + 16) u
 * of its values' magnitudes, and the projection of it by (FEATURES + 1) u. */
static attn_status compare_batch(const attn_tensor *tensors, int64_t batch) {
    const int32_t dtype = tensors[QUERY].dtype;
    const double share = (KEYS + 16 + FEATURES + 1) * attni_selftest_rounding(dtype);
    known_number means[FEATURES];
    for (int64_t i = 0; i < FEATURES; ++i) {
        means[i] = mean_value(tensors, batch, i);
    }
    for (int64_t feature = 0; feature < FEATURES; ++feature) {
        const known_number known = known_output(tensors, means, feature);
        for (int64_t row = batch * ROWS; row < (batch + 1) * ROWS; ++row) {
            const double got = element(&tensors[OUTPUT], row * FEATURES + feature);
            ATTNI_TRY(attni_selftest_compare("layer", dtype, row, feature, known.value, got,
                                             share * known.magnitude));
        }
    }
    return ATTN_OK;
}

static attn_status load_and_run(attn_context *context, attn_mha *layer,
                                const attn_tensor *tensors) {
    const attn_mha_params params = {.struct_size = sizeof params,
                                    .key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE,
                                    .key_padding_mask = &tensors[PADDING]};
    ATTNI_TRY(attn_mha_load_parameter(context, layer, "in_proj_weight", &tensors[IN_WEIGHT], NULL));
    ATTNI_TRY(attn_mha_load_parameter(context, layer, "in_proj_bias", &tensors[IN_BIAS], NULL));
    ATTNI_TRY(attn_mha_bind_parameter(layer, "out_proj.weight", &tensors[OUT_WEIGHT]));
    ATTNI_TRY(attn_mha_bind_parameter(layer, "out_proj.bias", &tensors[OUT_BIAS]));
    ATTNI_TRY(attn_mha_forward(context, layer, &tensors[QUERY], &tensors[SOURCE], &tensors[SOURCE],
                               &params, &tensors[OUTPUT], NULL, 0));
    for (int64_t batch = 0; batch < BATCH; ++batch) {
        ATTNI_TRY(compare_batch(tensors, batch));
    }
    return ATTN_OK;
}

attn_status attni_selftest_layer(attn_context *context, int32_t dtype, attni_selftest_forms forms) {
    (void)forms;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = FEATURES,
                                    .num_heads = HEADS,
                                    .dtype = dtype,
                                    .batch_first = 1};
    const attni_selftest_shape shapes[TENSORS] = {
        [QUERY] = {dtype, 3, {BATCH, ROWS, FEATURES}},
        [SOURCE] = {dtype, 3, {BATCH, KEYS, FEATURES}},
        [OUTPUT] = {attni_score_dtype(dtype), 3, {BATCH, ROWS, FEATURES}},
        [PADDING] = {ATTN_DTYPE_BOOL, 2, {BATCH, KEYS}},
        [IN_WEIGHT] = {dtype, 2, {IN_ROWS, FEATURES}},
        [IN_BIAS] = {dtype, 1, {IN_ROWS}},
        [OUT_WEIGHT] = {dtype, 2, {FEATURES, FEATURES}},
        [OUT_BIAS] = {dtype, 1, {FEATURES}},
    };
    attn_tensor tensors[TENSORS];
    attni_workspace memory;
    attn_mha *layer;
    ATTNI_TRY(attni_selftest_place(context, shapes, TENSORS, tensors, &memory));
    attn_status status = attn_mha_create(context, &config, &layer);
    if (status == ATTN_OK) {
        fill_tensors(tensors);
        status = load_and_run(context, layer, tensors);
        attn_mha_destroy(layer);
    }
    attni_workspace_release(&memory, attni_context_allocator(context));
    return status;
}
