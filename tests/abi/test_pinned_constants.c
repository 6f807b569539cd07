/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_pinned_constants.c: the value of every public constant. Compiled programs and language
 * bindings hold the same numbers, so a value never changes and is never reused; a new constant adds
 * a line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

static void status_codes_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_OK, 0);
    assert_int_equal(ATTN_ERROR_NULL, 1);
    assert_int_equal(ATTN_ERROR_VALUE, 2);
    assert_int_equal(ATTN_ERROR_SHAPE, 3);
    assert_int_equal(ATTN_ERROR_DTYPE, 4);
    assert_int_equal(ATTN_ERROR_OVERLAP, 5);
    assert_int_equal(ATTN_ERROR_OVERFLOW, 6);
    assert_int_equal(ATTN_ERROR_PARAMETER, 7);
    assert_int_equal(ATTN_ERROR_WORKSPACE, 8);
    assert_int_equal(ATTN_ERROR_MEMORY, 9);
    assert_int_equal(ATTN_ERROR_THREAD, 10);
    assert_int_equal(ATTN_ERROR_UNSUPPORTED, 11);
    assert_int_equal(ATTN_ERROR_BLAS, 12);
    assert_int_equal(ATTN_ERROR_SELFTEST, 13);
}

static void tensor_limits_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_MAX_RANK, 8);
}

static void dtypes_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_DTYPE_INVALID, 0);
    assert_int_equal(ATTN_DTYPE_FLOAT32, 1);
    assert_int_equal(ATTN_DTYPE_FLOAT64, 2);
    assert_int_equal(ATTN_DTYPE_BOOL, 3);
    assert_int_equal(ATTN_DTYPE_INT64, 4);
    assert_int_equal(ATTN_DTYPE_BFLOAT16, 5);
    assert_int_equal(ATTN_DTYPE_FLOAT16, 6);
    assert_int_equal(ATTN_DTYPE_INT32, 7);
    assert_int_equal(ATTN_DTYPE_INT8, 8);
    assert_int_equal(ATTN_DTYPE_UINT8, 9);
    assert_int_equal(ATTN_DTYPE_FLOAT8_E4M3, 10);
    assert_int_equal(ATTN_DTYPE_FLOAT8_E5M2, 11);
    assert_int_equal(ATTN_DTYPE_INT4X2, 12);
    assert_int_equal(ATTN_DTYPE_Q8_0, 13);
    assert_int_equal(ATTN_DTYPE_Q4_0, 14);
    assert_int_equal(ATTN_DTYPE_UINT4X2, 15);
}

static void engines_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_ENGINE_AUTO, 0);
    assert_int_equal(ATTN_ENGINE_BLAS, 1);
    assert_int_equal(ATTN_ENGINE_FUSED, 2);
}

static void gemms_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_GEMM_AUTO, 0);
    assert_int_equal(ATTN_GEMM_BLAS, 1);
    assert_int_equal(ATTN_GEMM_NATIVE, 2);
}

static void mask_kinds_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_MASK_NONE, 0);
    assert_int_equal(ATTN_MASK_ADDITIVE, 1);
    assert_int_equal(ATTN_MASK_BOOL_INCLUDE, 2);
    assert_int_equal(ATTN_MASK_BOOL_EXCLUDE, 3);
}

static void sdpa_bits_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_SDPA_SET_SCALE, 1);
    assert_int_equal(ATTN_SDPA_SET_WINDOW, 2);
    assert_int_equal(ATTN_SDPA_PACK_QUERY, 1);
    assert_int_equal(ATTN_SDPA_PACK_KEY, 2);
    assert_int_equal(ATTN_SDPA_PACK_VALUE, 4);
    assert_int_equal(ATTN_SDPA_PACK_OUTPUT, 8);
}

static void normalizers_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_NORMALIZER_SOFTMAX, 0);
    assert_int_equal(ATTN_NORMALIZER_SIGMOID, 1);
    assert_int_equal(ATTN_NORMALIZER_LINEAR, 2);
}

static void score_stages_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_SCORE_SCALED, 0);
    assert_int_equal(ATTN_SCORE_CAPPED, 1);
    assert_int_equal(ATTN_SCORE_MASKED, 2);
    assert_int_equal(ATTN_BLOCK_HIDDEN, 0);
    assert_int_equal(ATTN_BLOCK_VISIBLE, 1);
    assert_int_equal(ATTN_BLOCK_MASKED, 2);
}

static void qk_norms_are_pinned(void **state) {
    (void)state;
    assert_int_equal(ATTN_QK_NORM_NONE, 0);
    assert_int_equal(ATTN_QK_NORM_HEAD, 1);
    assert_int_equal(ATTN_QK_NORM_ALL_HEADS, 2);
}

/* Enums travel as int32_t and statuses are declared as one. */
static void status_is_a_32_bit_integer(void **state) {
    (void)state;
    assert_int_equal(sizeof(attn_status), sizeof(int32_t));
    assert_true((attn_status)-1 < 0);
}

static void header_version_is_the_library_version(void **state) {
    (void)state;
    assert_int_equal(ATTN_VERSION,
                     ATTN_VERSION_MAJOR * 1000000 + ATTN_VERSION_MINOR * 1000 + ATTN_VERSION_PATCH);
    assert_int_equal(attn_version(), ATTN_VERSION);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_codes_are_pinned),
        cmocka_unit_test(tensor_limits_are_pinned),
        cmocka_unit_test(dtypes_are_pinned),
        cmocka_unit_test(engines_are_pinned),
        cmocka_unit_test(gemms_are_pinned),
        cmocka_unit_test(mask_kinds_are_pinned),
        cmocka_unit_test(sdpa_bits_are_pinned),
        cmocka_unit_test(normalizers_are_pinned),
        cmocka_unit_test(score_stages_are_pinned),
        cmocka_unit_test(qk_norms_are_pinned),
        cmocka_unit_test(status_is_a_32_bit_integer),
        cmocka_unit_test(header_version_is_the_library_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
