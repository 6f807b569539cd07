/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_backward.c: what attn_sdpa_backward, attn_sdpa_backward_workspace_bytes and
 * attn_sdpa_backward_explain say of every argument they refuse.
 */
#include "backward_refusal.h"
#include "kv_fixture.h"

static const backward_refusal missing[] = {
    {.name = "output_gradient_null_is_refused",
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = BACKWARD_OF_OUTPUT}},
     .status = ATTN_ERROR_NULL,
     .line = "gradients.output: expected a tensor, got NULL"},
    {.name = "output_null_is_refused",
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = SDPA_OUTPUT}},
     .status = ATTN_ERROR_NULL,
     .line = "output: expected a tensor, got NULL"},
    {.name = "query_null_is_refused",
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = SDPA_QUERY}},
     .status = ATTN_ERROR_NULL,
     .line = "query: expected a tensor, got NULL"},
    {.name = "lse_null_is_refused",
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = SDPA_LSE}},
     .status = ATTN_ERROR_NULL,
     .line = "lse: expected what the forward call wrote, which softmax needs, got NULL"},
    {.name = "lse_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = SDPA_LSE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "lse: expected data for shape (2, 4, 3), got NULL"},
    {.name = "output_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = SDPA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "output: expected data for shape (2, 4, 3, 3), got NULL"},
    {.name = "output_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.output: expected data for shape (2, 4, 3, 3), got NULL"},
    {.name = "lse_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_LSE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.lse: expected data for shape (2, 4, 3), got NULL"},
    {.name = "weights_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_WEIGHTS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.weights: expected data for shape (2, 4, 3, 6), got NULL"},
    {.name = "query_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.query: expected data for shape (2, 4, 3, 5), got NULL"},
    {.name = "key_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.key: expected data for shape (2, 4, 6, 5), got NULL"},
    {.name = "value_gradient_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_VALUE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.value: expected data for shape (2, 4, 6, 3), got NULL"},
    {.name = "mask_gradient_data_null_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {SDPA_MASK},
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_MASK}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.mask: expected data for shape (3, 6), got NULL"},
    {.name = "bias_gradient_data_null_is_refused",
     .links = {SDPA_BIAS},
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_BIAS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.bias: expected data for shape (3, 6), got NULL"},
    {.name = "position_bias_gradient_data_null_is_refused",
     .links = {SDPA_POSITION_BIAS},
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_POSITION_BIAS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.position_bias: expected data for shape (4, 5), got NULL"},
    {.name = "alibi_slopes_gradient_data_null_is_refused",
     .links = {SDPA_ALIBI_SLOPES},
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_ALIBI_SLOPES}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.alibi_slopes: expected data for shape (4), got NULL"},
    {.name = "sinks_gradient_data_null_is_refused",
     .links = {SDPA_SINKS},
     .spoils = {{REFUSAL_NO_DATA, .tensor = BACKWARD_OF_SINKS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "gradients.sinks: expected data for shape (4), got NULL"},
};

static const backward_refusal values[] = {
    {.name = "lse_gradient_of_sigmoid_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_SIGMOID},
     .links = {BACKWARD_OF_LSE},
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = SDPA_LSE}},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.lse: expected NULL unless the normalizer is softmax"},
    {.name = "lse_gradient_of_linear_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_LINEAR},
     .links = {BACKWARD_OF_LSE},
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = SDPA_LSE}},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.lse: expected NULL unless the normalizer is softmax"},
    {.name = "mask_gradient_without_mask_is_refused",
     .links = {BACKWARD_OF_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.mask: expected NULL without mask"},
    {.name = "bias_gradient_without_bias_is_refused",
     .links = {BACKWARD_OF_BIAS},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.bias: expected NULL without bias"},
    {.name = "position_bias_gradient_without_position_bias_is_refused",
     .links = {BACKWARD_OF_POSITION_BIAS},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.position_bias: expected NULL without position_bias"},
    {.name = "alibi_slopes_gradient_without_alibi_slopes_is_refused",
     .links = {BACKWARD_OF_ALIBI_SLOPES},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.alibi_slopes: expected NULL without alibi_slopes"},
    {.name = "sinks_gradient_without_sinks_is_refused",
     .links = {BACKWARD_OF_SINKS},
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.sinks: expected NULL without sinks"},
    {.name = "accumulate_2_is_of_a_later_version",
     .accumulate = 2,
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "gradients.accumulate: expected 0 or 1, got 2"},
    {.name = "accumulate_negative_is_refused",
     .accumulate = -1,
     .status = ATTN_ERROR_VALUE,
     .line = "gradients.accumulate: expected 0 or 1, got -1"},
    {.name = "reserved_is_of_a_later_version",
     .reserved = 1,
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "gradients.reserved: expected 0 in this version, got 1"},
};

static const backward_refusal dtypes[] = {
    {.name = "bool_mask_gradient_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_INCLUDE},
     .links = {SDPA_BOOL_MASK, BACKWARD_OF_MASK},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.mask: expected NULL, since a bool mask has no gradient"},
    {.name = "query_gradient_dtype_unknown_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_QUERY, .value = 99}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line =
         "gradients.query: expected a dtype of enum attn_dtype, got 99, unknown to this version"},
    {.name = "output_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_OUTPUT, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.output: expected dtype float32, got float64"},
    {.name = "lse_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_LSE, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.lse: expected dtype float32, got float64"},
    {.name = "weights_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_WEIGHTS, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.weights: expected dtype float32, got float64"},
    {.name = "query_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_QUERY, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.query: expected dtype float32, got float64"},
    {.name = "key_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_KEY, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.key: expected dtype float32, got float64"},
    {.name = "value_gradient_float64_is_refused",
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_VALUE, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.value: expected dtype float32, got float64"},
    {.name = "mask_gradient_float64_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {SDPA_MASK},
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_MASK, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.mask: expected dtype float32, got float64"},
    {.name = "bias_gradient_float64_is_refused",
     .links = {SDPA_BIAS},
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_BIAS, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.bias: expected dtype float32, got float64"},
    {.name = "position_bias_gradient_float64_is_refused",
     .links = {SDPA_POSITION_BIAS},
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_POSITION_BIAS, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.position_bias: expected dtype float32, got float64"},
    {.name = "alibi_slopes_gradient_float64_is_refused",
     .links = {SDPA_ALIBI_SLOPES},
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_ALIBI_SLOPES, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.alibi_slopes: expected dtype float32, got float64"},
    {.name = "sinks_gradient_float64_is_refused",
     .links = {SDPA_SINKS},
     .spoils = {{REFUSAL_DTYPE, BACKWARD_OF_SINKS, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "gradients.sinks: expected dtype float32, got float64"},
};

static const backward_refusal shapes[] = {
    {.name = "output_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_OUTPUT, .axis = 3, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.output: expected shape (2, Hq=4, L=3, S=3), got (2, 4, 3, 2)"},
    {.name = "lse_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_LSE, .axis = 2, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.lse: expected shape (2, Hq=4, L=3), got (2, 4, 2)"},
    {.name = "weights_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_WEIGHTS, .axis = 3, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.weights: expected shape (2, Hq=4, L=3, S=6), got (2, 4, 3, 5)"},
    {.name = "query_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_QUERY, .axis = 3, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.query: expected shape (2, 4, 3, 5), got (2, 4, 3, 4)"},
    {.name = "key_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_KEY, .axis = 3, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.key: expected shape (2, 4, 6, 5), got (2, 4, 6, 4)"},
    {.name = "value_gradient_of_other_shape_is_refused",
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_VALUE, .axis = 3, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.value: expected shape (2, 4, 6, 3), got (2, 4, 6, 2)"},
    {.name = "mask_gradient_of_other_shape_is_refused",
     .params = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {SDPA_MASK},
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_MASK, .axis = 1, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.mask: expected shape (3, 6), got (3, 5)"},
    {.name = "bias_gradient_of_other_shape_is_refused",
     .links = {SDPA_BIAS},
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_BIAS, .axis = 1, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.bias: expected shape (3, 6), got (3, 5)"},
    {.name = "position_bias_gradient_of_other_shape_is_refused",
     .links = {SDPA_POSITION_BIAS},
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_POSITION_BIAS, .axis = 1, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.position_bias: expected shape (4, 5), got (4, 4)"},
    {.name = "alibi_slopes_gradient_of_other_shape_is_refused",
     .links = {SDPA_ALIBI_SLOPES},
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_ALIBI_SLOPES, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.alibi_slopes: expected shape (4), got (3)"},
    {.name = "sinks_gradient_of_other_shape_is_refused",
     .links = {SDPA_SINKS},
     .spoils = {{REFUSAL_LENGTH, BACKWARD_OF_SINKS, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.sinks: expected shape (4), got (3)"},
    {.name = "query_gradient_rank_5_is_refused",
     .spoils = {{REFUSAL_RANK, BACKWARD_OF_QUERY, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.query: expected shape (2, 4, 3, 5), got (1, 2, 4, 3, 5)"},
    {.name = "output_gradient_rank_3_is_refused",
     .spoils = {{REFUSAL_RANK, BACKWARD_OF_OUTPUT, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "gradients.output: expected shape (2, Hq=4, L=3, S=3), got (4, 3, 3)"},
    {.name = "value_gradient_stride_beyond_int64_is_refused",
     .spoils = {{REFUSAL_STRIDE, BACKWARD_OF_VALUE, .axis = 0, .value = INT64_MAX}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "gradients.value: shape (2, 4, 6, 3) with its strides exceeds 2^63 bytes"},
};

/* ---- arguments that no table spoils ---- */

static void gradients_null_are_refused(void **state) {
    (void)state;
    static backward_fixture fixture;
    static const char line[] = "gradients: expected what is wanted, got NULL";
    size_t bytes = 77;
    attn_sdpa_backward_report report = {.struct_size = sizeof report};
    backward_fixture_prepare(&fixture, backward_refusal_context);
    fixture.gradients = NULL;
    refusal_assert("attn_sdpa_backward", backward_fixture_run(&fixture), ATTN_ERROR_NULL, line);
    refusal_assert("attn_sdpa_backward_workspace_bytes",
                   backward_fixture_workspace_bytes(&fixture, &bytes), ATTN_ERROR_NULL, line);
    refusal_assert("attn_sdpa_backward_explain", backward_fixture_explain(&fixture, &report),
                   ATTN_ERROR_NULL, line);
    refusal_assert_untouched("gradients.query", fixture.memory.of_query,
                             sizeof fixture.memory.of_query);
    assert_int_equal(bytes, 77);
}

static void results_null_are_refused(void **state) {
    (void)state;
    static backward_fixture fixture;
    backward_fixture_prepare(&fixture, backward_refusal_context);
    refusal_assert("attn_sdpa_backward_workspace_bytes",
                   backward_fixture_workspace_bytes(&fixture, NULL), ATTN_ERROR_NULL,
                   "bytes: expected a place for the result, got NULL");
    refusal_assert("attn_sdpa_backward_explain", backward_fixture_explain(&fixture, NULL),
                   ATTN_ERROR_NULL, "report: ...");
}

/* ---- keys and values that lie elsewhere ---- */

/* A gradient of each kind of cache: its status, and the detail where it fails. */
static void run_kv(kv_kind kind, bool is_ragged, int gradient_of, int32_t key_dtype,
                   attn_status status, const char *line) {
    static kv_fixture fixture;
    static float of_output[KV_N * KV_H * KV_L * KV_EV], of_source[2][sizeof fixture.memory.key];
    kv_fixture_prepare(&fixture, backward_refusal_context, kind, is_ragged);
    fixture.arguments[KV_LSE] = &fixture.views[KV_LSE];
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    attn_tensor given = fixture.views[KV_OUTPUT];
    given.data = of_output;
    refusal_numbers(of_output, KV_N * KV_H * KV_L * KV_EV, 3);
    attn_tensor source = fixture.views[gradient_of];
    source.data = of_source[0];
    refusal_fill(of_source, sizeof of_source);
    if (key_dtype != ATTN_DTYPE_FLOAT32) {
        fixture.views[KV_KEY].dtype = key_dtype;
        fixture.views[KV_VALUE].dtype = key_dtype;
        fixture.arguments[KV_KEY_SCALE] = &fixture.views[KV_KEY_SCALE];
        fixture.arguments[KV_VALUE_SCALE] = &fixture.views[KV_VALUE_SCALE];
    }
    attn_sdpa_gradients gradients = {.struct_size = sizeof gradients, .output = &given};
    *(gradient_of == KV_KEY ? &gradients.key : &gradients.value) = &source;
    const attn_status got = kv_fixture_run_backward(&fixture, &gradients);
    if (status == ATTN_OK) {
        refusal_assert_ok("attn_sdpa_backward", got);
    } else {
        refusal_assert("attn_sdpa_backward", got, status, line);
        refusal_assert_untouched("gradients", of_source, sizeof of_source);
    }
}

static void gradients_of_pages_are_of_a_later_version(void **state) {
    (void)state;
    static const char key[] =
        "gradients.key: expected NULL beside kv.page_table, since sequences may share pages";
    static const char value[] =
        "gradients.value: expected NULL beside kv.page_table, since sequences may share pages";
    for (int is_ragged = 0; is_ragged <= 1; ++is_ragged) {
        run_kv(KV_PAGED, is_ragged, KV_KEY, ATTN_DTYPE_FLOAT32, ATTN_ERROR_UNSUPPORTED, key);
        run_kv(KV_LISTED, is_ragged, KV_VALUE, ATTN_DTYPE_FLOAT32, ATTN_ERROR_UNSUPPORTED, value);
    }
}

static void gradients_of_integers_are_refused(void **state) {
    (void)state;
    run_kv(KV_CACHES, false, KV_KEY, ATTN_DTYPE_INT8, ATTN_ERROR_DTYPE,
           "gradients.key: expected NULL, since kv.key is quantised");
    run_kv(KV_BEHIND, true, KV_VALUE, ATTN_DTYPE_INT8, ATTN_ERROR_DTYPE,
           "gradients.value: expected NULL, since kv.value is quantised");
}

static void gradients_of_caches_are_accepted(void **state) {
    (void)state;
    for (int is_ragged = 0; is_ragged <= 1; ++is_ragged) {
        for (int of = KV_KEY; of <= KV_VALUE; ++of) {
            run_kv(KV_CACHES, is_ragged, of, ATTN_DTYPE_FLOAT32, ATTN_OK, NULL);
            run_kv(KV_BEHIND, is_ragged, of, ATTN_DTYPE_FLOAT32, ATTN_OK, NULL);
        }
    }
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(gradients_null_are_refused),
    cmocka_unit_test(results_null_are_refused),
    cmocka_unit_test(gradients_of_pages_are_of_a_later_version),
    cmocka_unit_test(gradients_of_integers_are_refused),
    cmocka_unit_test(gradients_of_caches_are_accepted),
};

#define ADD(table) backward_refusal_add(&suite, table, sizeof(table) / sizeof(table)[0])

int main(void) {
    static refusal_suite suite;
    ADD(missing);
    ADD(values);
    ADD(dtypes);
    ADD(shapes);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return backward_refusal_main(&suite, "errors of backward");
}
