/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_config.c: what attn_mha_create says of every config it refuses.
 */
#include <math.h>
#include <string.h>

#include "mha_refusal.h"

typedef struct config_refusal {
    const char *name;
    attn_mha_config config; /* struct_size 0: today's */
    attn_status status;
    const char *line;
} config_refusal;

static const config_refusal refused_configs[] = {
    {.name = "config_embed_dim_zero_is_refused",
     .config = {.num_heads = 2},
     .status = ATTN_ERROR_VALUE,
     .line = "embed_dim: expected 1 and up, got 0"},
    {.name = "config_embed_dim_negative_is_refused",
     .config = {.embed_dim = -8, .num_heads = 2},
     .status = ATTN_ERROR_VALUE,
     .line = "embed_dim: expected 1 and up, got -8"},
    {.name = "config_num_heads_zero_is_refused",
     .config = {.embed_dim = 8},
     .status = ATTN_ERROR_VALUE,
     .line = "num_heads: expected 1 and up, got 0"},
    {.name = "config_num_heads_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "num_heads: expected 1 and up, got -1"},
    {.name = "config_embed_dim_indivisible_is_refused",
     .config = {.embed_dim = 10, .num_heads = 4},
     .status = ATTN_ERROR_VALUE,
     .line = "embed_dim: expected a multiple of num_heads=4 unless head_dim is set, got 10"},
    {.name = "config_more_heads_than_features_is_refused",
     .config = {.embed_dim = 8, .num_heads = 16},
     .status = ATTN_ERROR_VALUE,
     .line = "embed_dim: expected a multiple of num_heads=16 unless head_dim is set, got 8"},
    {.name = "config_kdim_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .kdim = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "kdim: expected 0 and up (0 is the default), got -1"},
    {.name = "config_vdim_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .vdim = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "vdim: expected 0 and up (0 is the default), got -1"},
    {.name = "config_qdim_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qdim = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "qdim: expected 0 and up (0 is the default), got -1"},
    {.name = "config_num_kv_heads_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .num_kv_heads = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "num_kv_heads: expected 0 and up (0 is the default), got -1"},
    {.name = "config_head_dim_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .head_dim = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "head_dim: expected 0 and up (0 is the default), got -1"},
    {.name = "config_value_head_dim_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .value_head_dim = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "value_head_dim: expected 0 and up (0 is the default), got -1"},
    {.name = "config_num_kv_heads_no_divisor_is_refused",
     .config = {.embed_dim = 8, .num_heads = 4, .num_kv_heads = 3},
     .status = ATTN_ERROR_VALUE,
     .line = "num_kv_heads: expected a divisor of num_heads=4, got 3"},
    {.name = "config_num_kv_heads_above_num_heads_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .num_kv_heads = 4},
     .status = ATTN_ERROR_VALUE,
     .line = "num_kv_heads: expected a divisor of num_heads=2, got 4"},
    {.name = "config_dtype_bool_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = ATTN_DTYPE_BOOL},
     .status = ATTN_ERROR_DTYPE,
     .line = "dtype: expected float32, float64, bfloat16 or float16, got bool"},
    {.name = "config_dtype_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = ATTN_DTYPE_INT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "dtype: expected float32, float64, bfloat16 or float16, got int64"},
    {.name = "config_dtype_unknown_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = 99},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line =
         "dtype: expected float32, float64, bfloat16 or float16, got 99, unknown to this version"},
    {.name = "config_dtype_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = -1},
     .status = ATTN_ERROR_DTYPE,
     .line = "dtype: expected float32, float64, bfloat16 or float16, got unknown"},
    {.name = "config_dtype_int8_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = ATTN_DTYPE_INT8},
     .status = ATTN_ERROR_DTYPE,
     .line = "dtype: expected float32, float64, bfloat16 or float16, got int8"},
    {.name = "config_dtype_float8_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .dtype = ATTN_DTYPE_FLOAT8_E4M3},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "dtype: expected float32, float64, bfloat16 or float16, got float8_e4m3, which this "
             "version does not compute with"},
    {.name = "config_no_bias_two_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .no_bias = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "no_bias: expected 0 or 1, got 2"},
    {.name = "config_no_bias_negative_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .no_bias = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "no_bias: expected 0 or 1, got -1"},
    {.name = "config_add_bias_kv_two_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .add_bias_kv = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "add_bias_kv: expected 0 or 1, got 2"},
    {.name = "config_add_zero_attn_two_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .add_zero_attn = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "add_zero_attn: expected 0 or 1, got 2"},
    {.name = "config_batch_first_two_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .batch_first = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "batch_first: expected 0 or 1, got 2"},
    {.name = "config_parameter_dtype_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .parameter_dtype = ATTN_DTYPE_INT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "parameter_dtype: expected float32, bfloat16, float16 or int8, got int64"},
    {.name = "config_parameter_dtype_float64_beside_float16_is_refused",
     .config = {.embed_dim = 8,
                .num_heads = 2,
                .dtype = ATTN_DTYPE_FLOAT16,
                .parameter_dtype = ATTN_DTYPE_FLOAT64},
     .status = ATTN_ERROR_DTYPE,
     .line = "parameter_dtype: expected float32, bfloat16, float16 or int8, got float64"},
    {.name = "config_parameter_dtype_bfloat16_beside_float64_is_refused",
     .config = {.embed_dim = 8,
                .num_heads = 2,
                .dtype = ATTN_DTYPE_FLOAT64,
                .parameter_dtype = ATTN_DTYPE_BFLOAT16},
     .status = ATTN_ERROR_DTYPE,
     .line = "parameter_dtype: expected float64, or 0, beside dtype float64, got bfloat16"},
    {.name = "config_parameter_dtype_uint8_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .parameter_dtype = ATTN_DTYPE_UINT8},
     .status = ATTN_ERROR_DTYPE,
     .line = "parameter_dtype: expected float32, bfloat16, float16 or int8, got uint8"},
    {.name = "config_parameter_dtype_int8_beside_float64_is_refused",
     .config = {.embed_dim = 8,
                .num_heads = 2,
                .dtype = ATTN_DTYPE_FLOAT64,
                .parameter_dtype = ATTN_DTYPE_INT8},
     .status = ATTN_ERROR_DTYPE,
     .line = "parameter_dtype: expected float64, or 0, beside dtype float64, got int8"},
    {.name = "config_weight_bytes_beyond_int64_is_refused",
     .config = {.embed_dim = INT64_C(1) << 40, .num_heads = 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "in_proj_weight: shape (3298534883328, 1099511627776) with its strides exceeds 2^63 "
             "bytes"},
    {.name = "config_weight_count_beyond_int64_is_refused",
     .config = {.embed_dim = INT64_C(1) << 40, .num_heads = 1, .kdim = INT64_C(1) << 30},
     .status = ATTN_ERROR_OVERFLOW,
     .line =
         "q_proj_weight: shape (1099511627776, 1099511627776) with its strides exceeds 2^63 bytes"},
    {.name = "config_stacked_weight_beyond_int64_is_refused",
     .config = {.embed_dim = 1300000000, .num_heads = 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "in_proj_weight: shape (3900000000, 1300000000) with its strides exceeds 2^63 bytes"},
    {.name = "config_rows_beyond_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = INT64_C(1) << 40, .head_dim = INT64_C(1) << 40},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "num_heads: 1099511627776 heads of head_dim=1099511627776 and "
             "value_head_dim=1099511627776 exceed 2^63"},
    {.name = "config_value_rows_beyond_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .head_dim = 4, .value_head_dim = INT64_MAX},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "num_heads: 2 heads of head_dim=4 and value_head_dim=9223372036854775807 exceed 2^63"},
    {.name = "config_context_beyond_int64_is_refused",
     .config = {.embed_dim = 8,
                .num_heads = INT64_C(1) << 61,
                .num_kv_heads = 1,
                .head_dim = 2,
                .value_head_dim = 4},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "num_heads: 2305843009213693952 heads of head_dim=2 and value_head_dim=4 exceed 2^63"},
    {.name = "config_query_and_key_rows_beyond_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = INT64_C(1) << 61, .head_dim = 3, .value_head_dim = 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "num_heads: 2305843009213693952 heads of head_dim=3 and value_head_dim=1 exceed 2^63"},
    {.name = "config_all_rows_beyond_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = INT64_C(1) << 61, .head_dim = 1, .value_head_dim = 2},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "num_heads: 2305843009213693952 heads of head_dim=1 and value_head_dim=2 exceed 2^63"},
    {.name = "config_value_weight_beyond_int64_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .vdim = INT64_C(1) << 58},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "v_proj_weight: shape (8, 288230376151711744) with its strides exceeds 2^63 bytes"},
    {.name = "config_out_weight_beyond_int64_is_refused",
     .config = {.embed_dim = INT64_C(1) << 30,
                .num_heads = INT64_C(1) << 32,
                .num_kv_heads = 1,
                .qdim = 1,
                .kdim = 1,
                .vdim = 1,
                .head_dim = 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "out_proj.weight: shape (1073741824, 4294967296) with its strides exceeds 2^63 "
             "bytes"},
    {.name = "config_kdim_highest_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .kdim = INT64_MAX},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "k_proj_weight: shape (8, 9223372036854775807) with its strides exceeds 2^63 bytes"},
    {.name = "config_qk_norm_below_zero_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm: expected ..."},
    {.name = "config_qk_norm_of_a_later_version_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm = ATTN_QK_NORM_ALL_HEADS + 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "qk_norm: expected ..."},
    {.name = "config_reserved_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .reserved = 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected ..."},
    {.name = "config_qk_norm_epsilon_below_zero_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm = 1, .qk_norm_epsilon = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm_epsilon: expected 0 (the default) or a positive number, got -1"},
    {.name = "config_qk_norm_epsilon_infinite_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm = 1, .qk_norm_epsilon = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm_epsilon: expected 0 (the default) or a positive number, got inf"},
    {.name = "config_qk_norm_weight_offset_infinite_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm = 1, .qk_norm_weight_offset = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm_weight_offset: expected a finite number, got inf"},
    {.name = "config_qk_norm_epsilon_without_qk_norm_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm_epsilon = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm_epsilon: expected 0 without qk_norm, got 1"},
    {.name = "config_qk_norm_weight_offset_without_qk_norm_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .qk_norm_weight_offset = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "qk_norm_weight_offset: expected 0 without qk_norm, got 1"},
    {.name = "config_struct_size_below_first_release_is_refused",
     .config = {.embed_dim = 8, .num_heads = 2, .struct_size = 95},
     .status = ATTN_ERROR_VALUE,
     .line = "config: expected struct_size 96 (sizeof the struct) or more, got 95"},
};

static void test_config(void **state) {
    const config_refusal *entry = *state;
    attn_mha_config config = entry->config;
    if (config.struct_size == 0) {
        config.struct_size = sizeof config;
    }
    attn_mha *layer = (attn_mha *)&config;
    refusal_assert("attn_mha_create", attn_mha_create(mha_refusal_context, &config, &layer),
                   entry->status, entry->line);
    assert_null(layer);
    config = mha_fixture_config();
    refusal_assert_ok("attn_mha_create", attn_mha_create(mha_refusal_context, &config, &layer));
    attn_mha_destroy(layer);
}

static void create_arguments_null_are_refused(void **state) {
    (void)state;
    const attn_mha_config config = mha_fixture_config();
    attn_mha *layer = (attn_mha *)(uintptr_t)&config;
    refusal_assert("attn_mha_create", attn_mha_create(NULL, NULL, &layer), ATTN_ERROR_NULL,
                   "config: expected at least embed_dim and num_heads, got NULL");
    assert_null(layer);
    refusal_assert("attn_mha_create", attn_mha_create(NULL, &config, NULL), ATTN_ERROR_NULL,
                   "layer: expected a place for the result, got NULL");
}

static void config_struct_size_zero_is_refused(void **state) {
    (void)state;
    attn_mha_config config = mha_fixture_config();
    attn_mha *layer;
    config.struct_size = 0;
    refusal_assert("attn_mha_create", attn_mha_create(NULL, &config, &layer), ATTN_ERROR_VALUE,
                   refusal_size_line("config", 96, 0));
    assert_null(layer);
}

/* parameter_dtype is the last field of release 0.1. */
static void config_of_first_release_is_accepted(void **state) {
    (void)state;
    attn_mha_config config = mha_fixture_config();
    attn_mha *layer;
    config.struct_size = offsetof(attn_mha_config, parameter_dtype) + sizeof config.parameter_dtype;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    attn_mha_destroy(layer);
}

static void newer_config_is_accepted_until_it_asks_for_more(void **state) {
    (void)state;
    union {
        attn_mha_config known;
        unsigned char bytes[sizeof(attn_mha_config) + 8];
    } newer;
    attn_mha *layer;
    memset(&newer, 0, sizeof newer);
    newer.known = mha_fixture_config();
    newer.known.struct_size = sizeof newer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &newer.known, &layer));
    attn_mha_destroy(layer);
    newer.bytes[sizeof newer - 1] = 128;
    refusal_assert("attn_mha_create", attn_mha_create(NULL, &newer.known, &layer),
                   ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("config", sizeof newer.known, sizeof newer - 1));
    assert_null(layer);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(create_arguments_null_are_refused),
    cmocka_unit_test(config_struct_size_zero_is_refused),
    cmocka_unit_test(config_of_first_release_is_accepted),
    cmocka_unit_test(newer_config_is_accepted_until_it_asks_for_more),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused_configs / sizeof refused_configs[0]; ++i) {
        refusal_suite_add(&suite, refused_configs[i].name, test_config, &refused_configs[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return mha_refusal_main(&suite, "errors of layers' configs");
}
