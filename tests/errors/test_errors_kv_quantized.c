/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_kv_quantized.c: what attn_sdpa and its queries say of quantised keys and values, and
 * of their scales and zeros.
 */
#include "kv_refusal.h"

#define INTEGERS(tensor) \
    { REFUSAL_DTYPE, tensor, .value = ATTN_DTYPE_INT8 }

static const kv_refusal wrong_types[] = {
    {.name = "key_scale_of_numbers_is_refused",
     .links = {KV_KEY_SCALE},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled"},
    {.name = "value_zero_of_numbers_is_refused",
     .kind = KV_PAGED,
     .links = {KV_VALUE_ZERO},
     .status = ATTN_ERROR_VALUE,
     .line =
         "kv.value_zero: expected NULL beside kv.value of float32, whose elements are not scaled"},
    {.name = "scale_of_blocks_is_refused",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_Q8_0}},
     .links = {KV_KEY_SCALE},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.key_scale: expected NULL beside kv.key of q8_0, whose elements are blocks with "
             "scales of their own"},
    {.name = "zero_of_blocks_is_refused",
     .spoils = {{REFUSAL_DTYPE, KV_VALUE, .value = ATTN_DTYPE_Q4_0}},
     .links = {KV_VALUE_ZERO},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.value_zero: expected NULL beside kv.value of q4_0, whose elements are blocks with "
             "scales of their own"},
    {.name = "scale_float64_is_refused",
     .spoils = {INTEGERS(KV_KEY), {REFUSAL_DTYPE, KV_KEY_SCALE, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.key_scale: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "zero_int8_is_refused",
     .spoils = {INTEGERS(KV_VALUE), INTEGERS(KV_VALUE_ZERO)},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.value_zero: expected dtype float32, bfloat16 or float16, got int8"},
    {.name = "key_float8_is_unsupported",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_FLOAT8_E5M2}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "kv.key: expected dtype float32, float64, bfloat16, float16, int8, uint8, int4x2, "
             "uint4x2, q8_0 or q4_0, got float8_e5m2, which this version does not compute with"},
    {.name = "integers_beside_float64_query_are_refused",
     .spoils = {INTEGERS(KV_VALUE),
                {REFUSAL_DTYPE, KV_QUERY, .value = ATTN_DTYPE_FLOAT64},
                {REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.value: expected dtype float64, got int8"},
};

static const kv_refusal wrong_shapes[] = {
    {.name = "scale_of_other_rank_is_refused",
     .spoils = {INTEGERS(KV_KEY), {REFUSAL_RANK, KV_KEY_SCALE, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key_scale: expected rank 4, got 3"},
    {.name = "scale_that_does_not_divide_is_refused",
     .spoils = {INTEGERS(KV_KEY), {REFUSAL_LENGTH, KV_KEY_SCALE, .axis = 2, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key_scale: expected a divisor of 6 (values of kv.key) on axis 2, got (1, 1, 4, "
             "1)"},
    {.name = "zero_that_does_not_divide_pages_is_refused",
     .kind = KV_PAGED,
     .spoils = {INTEGERS(KV_VALUE), {REFUSAL_LENGTH, KV_VALUE_ZERO, .axis = 0, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value_zero: expected a divisor of 7 (values of kv.value) on axis 0, got (2, 1, 1, "
             "1)"},
    {.name = "scale_without_elements_is_refused",
     .kind = KV_BEHIND,
     .spoils = {INTEGERS(KV_VALUE), {REFUSAL_LENGTH, KV_VALUE_SCALE, .axis = 1, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value_scale: expected a divisor of 12 (values of kv.value) on axis 1, got (1, 0, "
             "1)"},
    {.name = "scale_longer_than_key_is_refused",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_INT4X2},
                {REFUSAL_LENGTH, KV_KEY, .axis = 3, .value = 2},
                {REFUSAL_LENGTH, KV_KEY_SCALE, .axis = 3, .value = 8}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key_scale: expected a divisor of 4 (values of kv.key) on axis 3, got (1, 1, 1, "
             "8)"},
    {.name = "key_of_twice_the_features_is_refused",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_INT4X2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected shape (..., S, E=4) as query's last axis, got (2, 2, 6, 4) of 2 "
             "values each"},
    {.name = "more_values_than_numbers_are_refused",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_INT4X2},
                {REFUSAL_LENGTH, KV_KEY, .axis = 0, .value = 1},
                {REFUSAL_LENGTH, KV_KEY, .axis = 1, .value = 1},
                {REFUSAL_LENGTH, KV_KEY, .axis = 2, .value = 1},
                {REFUSAL_LENGTH, KV_KEY, .axis = 3, .value = INT64_C(1) << 62}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "kv.key: 4611686018427387904 elements of 2 values exceed 2^63"},
    {.name = "scale_without_data_is_refused",
     .spoils = {INTEGERS(KV_KEY), {.fault = REFUSAL_NO_DATA, .tensor = KV_KEY_SCALE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "kv.key_scale: expected data for shape (1, 1, 1, 1), got NULL"},
    {.name = "scale_in_output_is_refused",
     .spoils = {INTEGERS(KV_KEY), {REFUSAL_MEMORY, KV_KEY_SCALE, .other = KV_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps kv.key_scale"},
    {.name = "zero_in_output_is_refused",
     .spoils = {INTEGERS(KV_VALUE), {REFUSAL_MEMORY, KV_VALUE_ZERO, .other = KV_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps kv.value_zero"},
};

int main(void) {
    static refusal_suite suite;
    kv_refusal_add(&suite, wrong_types, sizeof wrong_types / sizeof wrong_types[0]);
    kv_refusal_add(&suite, wrong_shapes, sizeof wrong_shapes / sizeof wrong_shapes[0]);
    return kv_refusal_main(&suite, "quantised kv");
}
