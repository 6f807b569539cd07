/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_struct_layout.c: the size of every public struct and where its fields lie, as numbers.
 * Compiled programs and language bindings hold the same numbers. A field appended in a later
 * release adds a line and a larger size; no other line ever changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

/* The numbers are those of the 64-bit platforms, where pointers and int64_t take eight bytes and
 * are aligned to eight. */
_Static_assert(sizeof(void *) == 8 && _Alignof(int64_t) == 8,
               "the layouts below are those of LP64");

typedef struct pinned_number {
    const char *what;
    size_t expected;
    size_t actual;
} pinned_number;

#define SIZE(type, bytes) \
    { "sizeof(" #type ")", bytes, sizeof(type) }
#define OFFSET(type, field, bytes) \
    { "offset of " #type "." #field, bytes, offsetof(type, field) }

static void assert_numbers(const pinned_number *numbers, size_t count) {
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        if (numbers[i].actual != numbers[i].expected) {
            print_error("%s: expected %zu, got %zu\n", numbers[i].what, numbers[i].expected,
                        numbers[i].actual);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

#define ASSERT_NUMBERS(numbers) assert_numbers(numbers, sizeof(numbers) / sizeof((numbers)[0]))

static void tensor_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_tensor, 144),         OFFSET(attn_tensor, data, 0),
        OFFSET(attn_tensor, dtype, 8),  OFFSET(attn_tensor, rank, 12),
        OFFSET(attn_tensor, shape, 16), OFFSET(attn_tensor, strides, 80),
    };
    ASSERT_NUMBERS(numbers);
}

static void context_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_context_config, 72),
        OFFSET(attn_context_config, struct_size, 0),
        OFFSET(attn_context_config, num_threads, 8),
        OFFSET(attn_context_config, engine, 12),
        OFFSET(attn_context_config, gemm, 16),
        OFFSET(attn_context_config, reserved, 20),
        OFFSET(attn_context_config, kernels, 24),
        OFFSET(attn_context_config, parallel_for, 32),
        OFFSET(attn_context_config, parallel_for_state, 40),
        OFFSET(attn_context_config, allocate, 48),
        OFFSET(attn_context_config, deallocate, 56),
        OFFSET(attn_context_config, allocator_state, 64),
    };
    ASSERT_NUMBERS(numbers);
}

static void context_info_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_context_info, 40),
        OFFSET(attn_context_info, struct_size, 0),
        OFFSET(attn_context_info, num_threads, 8),
        OFFSET(attn_context_info, engine, 12),
        OFFSET(attn_context_info, gemm, 16),
        OFFSET(attn_context_info, blas_is_serial, 20),
        OFFSET(attn_context_info, kernels, 24),
        OFFSET(attn_context_info, blas, 32),
    };
    ASSERT_NUMBERS(numbers);
}

static void softmax_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_softmax_params, 40),
        OFFSET(attn_softmax_params, struct_size, 0),
        OFFSET(attn_softmax_params, mask_kind, 8),
        OFFSET(attn_softmax_params, reserved, 12),
        OFFSET(attn_softmax_params, mask, 16),
        OFFSET(attn_softmax_params, lengths, 24),
        OFFSET(attn_softmax_params, lse, 32),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_report_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_report, 64),
        OFFSET(attn_sdpa_report, struct_size, 0),
        OFFSET(attn_sdpa_report, engine, 8),
        OFFSET(attn_sdpa_report, gemm, 12),
        OFFSET(attn_sdpa_report, depends_on_blas_threads, 16),
        OFFSET(attn_sdpa_report, packs, 20),
        OFFSET(attn_sdpa_report, row_block, 24),
        OFFSET(attn_sdpa_report, num_blocks, 32),
        OFFSET(attn_sdpa_report, workspace_bytes, 40),
        OFFSET(attn_sdpa_report, kernels, 48),
        OFFSET(attn_sdpa_report, reason, 56),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_params, 128),
        OFFSET(attn_sdpa_params, struct_size, 0),
        OFFSET(attn_sdpa_params, flags, 8),
        OFFSET(attn_sdpa_params, scale, 16),
        OFFSET(attn_sdpa_params, softcap, 24),
        OFFSET(attn_sdpa_params, window_left, 32),
        OFFSET(attn_sdpa_params, window_right, 40),
        OFFSET(attn_sdpa_params, is_causal, 48),
        OFFSET(attn_sdpa_params, normalizer, 52),
        OFFSET(attn_sdpa_params, mask_kind, 56),
        OFFSET(attn_sdpa_params, reserved, 60),
        OFFSET(attn_sdpa_params, mask, 64),
        OFFSET(attn_sdpa_params, query_offset, 72),
        OFFSET(attn_sdpa_params, key_lengths, 80),
        OFFSET(attn_sdpa_params, alibi_slopes, 88),
        OFFSET(attn_sdpa_params, sinks, 96),
        OFFSET(attn_sdpa_params, lse, 104),
        OFFSET(attn_sdpa_params, weights, 112),
        OFFSET(attn_sdpa_params, report, 120),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_config_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_config, 96),
        OFFSET(attn_mha_config, struct_size, 0),
        OFFSET(attn_mha_config, embed_dim, 8),
        OFFSET(attn_mha_config, num_heads, 16),
        OFFSET(attn_mha_config, kdim, 24),
        OFFSET(attn_mha_config, vdim, 32),
        OFFSET(attn_mha_config, qdim, 40),
        OFFSET(attn_mha_config, num_kv_heads, 48),
        OFFSET(attn_mha_config, head_dim, 56),
        OFFSET(attn_mha_config, value_head_dim, 64),
        OFFSET(attn_mha_config, dtype, 72),
        OFFSET(attn_mha_config, bias, 76),
        OFFSET(attn_mha_config, add_bias_kv, 80),
        OFFSET(attn_mha_config, add_zero_attn, 84),
        OFFSET(attn_mha_config, batch_first, 88),
        OFFSET(attn_mha_config, reserved, 92),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_params, 56),
        OFFSET(attn_mha_params, struct_size, 0),
        OFFSET(attn_mha_params, key_padding_mask_kind, 8),
        OFFSET(attn_mha_params, attn_mask_kind, 12),
        OFFSET(attn_mha_params, is_causal, 16),
        OFFSET(attn_mha_params, average_attn_weights, 20),
        OFFSET(attn_mha_params, key_padding_mask, 24),
        OFFSET(attn_mha_params, attn_mask, 32),
        OFFSET(attn_mha_params, attn_weights, 40),
        OFFSET(attn_mha_params, attention, 48),
    };
    ASSERT_NUMBERS(numbers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_layout_is_pinned),
        cmocka_unit_test(context_params_layout_is_pinned),
        cmocka_unit_test(context_info_layout_is_pinned),
        cmocka_unit_test(softmax_params_layout_is_pinned),
        cmocka_unit_test(sdpa_report_layout_is_pinned),
        cmocka_unit_test(sdpa_params_layout_is_pinned),
        cmocka_unit_test(mha_config_layout_is_pinned),
        cmocka_unit_test(mha_params_layout_is_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
