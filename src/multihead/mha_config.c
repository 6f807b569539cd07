/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_config.c: from a config to a layer: the rules for sizes and options, and what follows from
 * them.
 */
#include <math.h>

#include "base/checked_size.h"
#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "multihead/mha_layer.h"

static int64_t or_default(int64_t given, int64_t preset) {
    return given != 0 ? given : preset;
}

static attn_status check_size(const char *name, int64_t size, int64_t lowest) {
    if (size < lowest) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected %lld and up%s, got %lld", name,
                          (long long)lowest, lowest == 0 ? " (0 is the default)" : "",
                          (long long)size);
    }
    return ATTN_OK;
}

static bool is_narrow(int32_t dtype) {
    return dtype == ATTN_DTYPE_BFLOAT16 || dtype == ATTN_DTYPE_FLOAT16;
}

static attn_status check_dtypes(const attn_mha_config *config) {
    const int32_t dtype = (int32_t)or_default(config->dtype, ATTN_DTYPE_FLOAT32);
    const int32_t parameters = (int32_t)or_default(config->parameter_dtype, dtype);
    if (dtype != ATTN_DTYPE_FLOAT32 && dtype != ATTN_DTYPE_FLOAT64 && !is_narrow(dtype)) {
        return attni_fail_dtype("dtype", dtype, "float32, float64, bfloat16 or float16");
    }
    if (dtype == ATTN_DTYPE_FLOAT64 && parameters != ATTN_DTYPE_FLOAT64) {
        return attni_fail_dtype("parameter_dtype", parameters,
                                "float64, or 0, beside dtype float64");
    }
    if (dtype != ATTN_DTYPE_FLOAT64 && parameters != ATTN_DTYPE_FLOAT32 && !is_narrow(parameters) &&
        parameters != ATTN_DTYPE_INT8) {
        return attni_fail_dtype("parameter_dtype", parameters,
                                "float32, bfloat16, float16 or int8");
    }
    return ATTN_OK;
}

static attn_status check_qk_norm(const attn_mha_config *config) {
    const double epsilon = config->qk_norm_epsilon;
    const double offset = config->qk_norm_weight_offset;
    ATTNI_TRY(attni_check_choice("", "qk_norm", config->qk_norm, ATTN_QK_NORM_ALL_HEADS,
                                 "enum attn_qk_norm"));
    ATTNI_TRY(attni_check_reserved("", config->reserved));
    if (!(epsilon >= 0) || isinf(epsilon)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "qk_norm_epsilon: expected 0 (the default) or a positive number, got %g",
                          epsilon);
    }
    if (!isfinite(offset)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "qk_norm_weight_offset: expected a finite number, got %g", offset);
    }
    if (config->qk_norm == ATTN_QK_NORM_NONE && (epsilon != 0 || offset != 0)) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected 0 without qk_norm, got %g",
                          epsilon != 0 ? "qk_norm_epsilon" : "qk_norm_weight_offset",
                          epsilon != 0 ? epsilon : offset);
    }
    return ATTN_OK;
}

static attn_status check_options(const attn_mha_config *config) {
    ATTNI_TRY(check_size("embed_dim", config->embed_dim, 1));
    ATTNI_TRY(check_size("num_heads", config->num_heads, 1));
    ATTNI_TRY(check_size("kdim", config->kdim, 0));
    ATTNI_TRY(check_size("vdim", config->vdim, 0));
    ATTNI_TRY(check_size("qdim", config->qdim, 0));
    ATTNI_TRY(check_size("num_kv_heads", config->num_kv_heads, 0));
    ATTNI_TRY(check_size("head_dim", config->head_dim, 0));
    ATTNI_TRY(check_size("value_head_dim", config->value_head_dim, 0));
    ATTNI_TRY(check_dtypes(config));
    ATTNI_TRY(attni_check_switch("", "no_bias", config->no_bias));
    ATTNI_TRY(attni_check_switch("", "add_bias_kv", config->add_bias_kv));
    ATTNI_TRY(attni_check_switch("", "add_zero_attn", config->add_zero_attn));
    ATTNI_TRY(attni_check_switch("", "batch_first", config->batch_first));
    ATTNI_TRY(check_qk_norm(config));
    if (config->head_dim == 0 && config->embed_dim % config->num_heads != 0) {
        return attni_fail(
            ATTN_ERROR_VALUE,
            "embed_dim: expected a multiple of num_heads=%lld unless head_dim is set, got %lld",
            (long long)config->num_heads, (long long)config->embed_dim);
    }
    if (config->num_kv_heads != 0 && config->num_heads % config->num_kv_heads != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "num_kv_heads: expected a divisor of num_heads=%lld, got %lld",
                          (long long)config->num_heads, (long long)config->num_kv_heads);
    }
    return ATTN_OK;
}

static void derive_sizes(const attn_mha_config *config, attn_mha *layer) {
    layer->dtype = (int32_t)or_default(config->dtype, ATTN_DTYPE_FLOAT32);
    layer->score_dtype = attni_score_dtype(layer->dtype);
    layer->parameter_dtype = (int32_t)or_default(config->parameter_dtype, layer->dtype);
    layer->embed_dim = config->embed_dim;
    layer->qdim = or_default(config->qdim, config->embed_dim);
    layer->kdim = or_default(config->kdim, config->embed_dim);
    layer->vdim = or_default(config->vdim, config->embed_dim);
    layer->num_heads = config->num_heads;
    layer->num_kv_heads = or_default(config->num_kv_heads, config->num_heads);
    layer->head_dim = or_default(config->head_dim, config->embed_dim / config->num_heads);
    layer->value_head_dim = or_default(config->value_head_dim, layer->head_dim);
    layer->has_bias = config->no_bias == 0;
    layer->has_bias_kv = config->add_bias_kv != 0;
    layer->has_zero_attn = config->add_zero_attn != 0;
    layer->is_batch_first = config->batch_first != 0;
    layer->qk_norm = config->qk_norm;
    layer->qk_norm_epsilon = config->qk_norm_epsilon;
    layer->qk_norm_weight_offset = config->qk_norm_weight_offset;
    layer->is_packed = layer->qdim == layer->embed_dim && layer->kdim == layer->embed_dim &&
                       layer->vdim == layer->embed_dim;
}

static attn_status shape_weight(attn_mha *layer, int32_t slot, int64_t rows, int64_t cols) {
    attn_tensor *view = &layer->slots[slot].view;
    *view = (attn_tensor){
        .dtype = layer->parameter_dtype, .rank = 2, .shape = {rows, cols}, .strides = {cols, 1}};
    layer->slots[slot].in_strips = true;
    return attni_check_extent(attni_mha_slot_name(layer, slot), view);
}

/* A bias or a norm's weight: no longer than some weight has rows, whose size was checked. */
static void shape_bias(attn_mha *layer, int32_t slot, int64_t length) {
    const bool is_int8 = layer->parameter_dtype == ATTN_DTYPE_INT8;
    layer->slots[slot].view = (attn_tensor){
        .dtype = is_int8 ? layer->score_dtype : layer->parameter_dtype,
        .rank = 1,
        .shape = {length},
        .strides = {1},
    };
}

static attn_status fail_too_many_rows(const attn_mha *layer) {
    return attni_fail(ATTN_ERROR_OVERFLOW,
                      "num_heads: %lld heads of head_dim=%lld and value_head_dim=%lld exceed 2^63",
                      (long long)layer->num_heads, (long long)layer->head_dim,
                      (long long)layer->value_head_dim);
}

static attn_status shape_slots(attn_mha *layer) {
    int64_t query_rows;
    int64_t context_cols;
    if (!attni_multiply(layer->num_heads, layer->head_dim, &query_rows) ||
        !attni_multiply(layer->num_heads, layer->value_head_dim, &context_cols)) {
        return fail_too_many_rows(layer);
    }
    /* These fit: key and value have no more heads. */
    const int64_t key_rows = layer->num_kv_heads * layer->head_dim;
    const int64_t value_rows = layer->num_kv_heads * layer->value_head_dim;
    int64_t stacked;
    if (!attni_add(query_rows, key_rows, &stacked) || !attni_add(stacked, value_rows, &stacked)) {
        return fail_too_many_rows(layer);
    }
    if (layer->is_packed) {
        const attn_tensor in_proj_weight = {.dtype = layer->parameter_dtype,
                                            .rank = 2,
                                            .shape = {stacked, layer->embed_dim},
                                            .strides = {layer->embed_dim, 1}};
        ATTNI_TRY(attni_check_extent("in_proj_weight", &in_proj_weight));
    }
    ATTNI_TRY(shape_weight(layer, ATTNI_Q_WEIGHT, query_rows, layer->qdim));
    ATTNI_TRY(shape_weight(layer, ATTNI_K_WEIGHT, key_rows, layer->kdim));
    ATTNI_TRY(shape_weight(layer, ATTNI_V_WEIGHT, value_rows, layer->vdim));
    ATTNI_TRY(shape_weight(layer, ATTNI_O_WEIGHT, layer->embed_dim, context_cols));
    if (layer->has_bias) {
        shape_bias(layer, ATTNI_Q_BIAS, query_rows);
        shape_bias(layer, ATTNI_K_BIAS, key_rows);
        shape_bias(layer, ATTNI_V_BIAS, value_rows);
        shape_bias(layer, ATTNI_O_BIAS, layer->embed_dim);
    }
    if (layer->has_bias_kv) {
        shape_bias(layer, ATTNI_BIAS_K, key_rows);
        shape_bias(layer, ATTNI_BIAS_V, value_rows);
    }
    if (layer->qk_norm != ATTN_QK_NORM_NONE) {
        const bool is_of_head = layer->qk_norm == ATTN_QK_NORM_HEAD;
        shape_bias(layer, ATTNI_Q_NORM, is_of_head ? layer->head_dim : query_rows);
        shape_bias(layer, ATTNI_K_NORM, is_of_head ? layer->head_dim : key_rows);
    }
    return ATTN_OK;
}

attn_status attn_mha_create(attn_context *context, const attn_mha_config *config,
                            attn_mha **layer) {
    attni_error_clear();
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a place for the result, got NULL");
    }
    *layer = NULL;
    if (config == NULL) {
        return attni_fail(ATTN_ERROR_NULL,
                          "config: expected at least embed_dim and num_heads, got NULL");
    }
    attn_mha_config known;
    ATTNI_TRY(attni_struct_read("config", config,
                                ATTNI_BYTES_THROUGH(attn_mha_config, parameter_dtype), sizeof known,
                                &known));
    ATTNI_TRY(check_options(&known));
    attn_mha sized = {.allocator = context != NULL ? *attni_context_allocator(context)
                                                   : attni_system_allocator};
    derive_sizes(&known, &sized);
    ATTNI_TRY(shape_slots(&sized));
    attn_mha *made = attni_allocate(&sized.allocator, sizeof *made);
    if (made == NULL) {
        return attni_fail(ATTN_ERROR_MEMORY, "layer: allocation of %zu bytes failed", sizeof *made);
    }
    *made = sized;
    *layer = made;
    return ATTN_OK;
}

attn_status attn_mha_describe(const attn_mha *layer, attn_mha_config *config) {
    attni_error_clear();
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    }
    ATTNI_TRY(attni_struct_check_output("config", config,
                                        ATTNI_BYTES_THROUGH(attn_mha_config, parameter_dtype)));
    const attn_mha_config known = {
        .struct_size = sizeof known,
        .embed_dim = layer->embed_dim,
        .num_heads = layer->num_heads,
        .kdim = layer->kdim,
        .vdim = layer->vdim,
        .qdim = layer->qdim,
        .num_kv_heads = layer->num_kv_heads,
        .head_dim = layer->head_dim,
        .value_head_dim = layer->value_head_dim,
        .dtype = layer->dtype,
        .no_bias = layer->has_bias ? 0 : 1,
        .add_bias_kv = layer->has_bias_kv ? 1 : 0,
        .add_zero_attn = layer->has_zero_attn ? 1 : 0,
        .batch_first = layer->is_batch_first ? 1 : 0,
        .parameter_dtype = layer->parameter_dtype,
        .qk_norm = layer->qk_norm,
        .qk_norm_epsilon = layer->qk_norm_epsilon,
        .qk_norm_weight_offset = layer->qk_norm_weight_offset,
    };
    attni_struct_write(config, &known, sizeof known);
    return ATTN_OK;
}

void attn_mha_destroy(attn_mha *layer) {
    if (layer == NULL) {
        return;
    }
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        attni_mha_free_slot(layer, &layer->slots[slot]);
    }
    const attni_allocator allocator = layer->allocator;
    attni_deallocate(&allocator, layer, sizeof *layer);
}
