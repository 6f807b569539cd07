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
    size_t bytes; /* of the struct or the field */
} pinned_number;

#define SIZE(type, bytes) \
    { "sizeof(" #type ")", bytes, sizeof(type), sizeof(type) }
#define OFFSET(type, field, bytes) \
    { "offset of " #type "." #field, bytes, offsetof(type, field), sizeof(((type *)0)->field) }

/* The struct's size, then its fields in order. Nothing lies between two fields or behind the last:
 * hidden padding could not be told from an option. */
static void assert_numbers(const pinned_number *numbers, size_t count) {
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        if (numbers[i].actual != numbers[i].expected) {
            print_error("%s: expected %zu, got %zu\n", numbers[i].what, numbers[i].expected,
                        numbers[i].actual);
            wrong++;
        }
        const size_t end = i == 0 ? 0 : numbers[i].actual + numbers[i].bytes;
        const size_t next = i + 1 < count ? numbers[i + 1].actual : numbers[0].actual;
        if (end != next) {
            print_error("%s: ends at byte %zu, and what is next begins at %zu\n", numbers[i].what,
                        end, next);
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

static void context_config_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_context_config, 80),
        OFFSET(attn_context_config, struct_size, 0),
        OFFSET(attn_context_config, num_threads, 8),
        OFFSET(attn_context_config, parallel_for_width, 12),
        OFFSET(attn_context_config, engine, 16),
        OFFSET(attn_context_config, gemm, 20),
        OFFSET(attn_context_config, kernels, 24),
        OFFSET(attn_context_config, parallel_for, 32),
        OFFSET(attn_context_config, parallel_for_state, 40),
        OFFSET(attn_context_config, allocate, 48),
        OFFSET(attn_context_config, deallocate, 56),
        OFFSET(attn_context_config, allocator_state, 64),
        OFFSET(attn_context_config, float32_weights, 72),
        OFFSET(attn_context_config, reserved, 76),
    };
    ASSERT_NUMBERS(numbers);
}

static void context_info_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_context_info, 48),
        OFFSET(attn_context_info, struct_size, 0),
        OFFSET(attn_context_info, num_threads, 8),
        OFFSET(attn_context_info, engine, 12),
        OFFSET(attn_context_info, gemm, 16),
        OFFSET(attn_context_info, attention_gemm, 20),
        OFFSET(attn_context_info, projection_gemm, 24),
        OFFSET(attn_context_info, blas_is_serial, 28),
        OFFSET(attn_context_info, kernels, 32),
        OFFSET(attn_context_info, blas, 40),
    };
    ASSERT_NUMBERS(numbers);
}

static void rms_norm_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_rms_norm_params, 32),
        OFFSET(attn_rms_norm_params, struct_size, 0),
        OFFSET(attn_rms_norm_params, weight, 8),
        OFFSET(attn_rms_norm_params, epsilon, 16),
        OFFSET(attn_rms_norm_params, weight_offset, 24),
    };
    ASSERT_NUMBERS(numbers);
}

static void rope_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_rope_params, 80),
        OFFSET(attn_rope_params, struct_size, 0),
        OFFSET(attn_rope_params, rotary_dim, 8),
        OFFSET(attn_rope_params, base, 16),
        OFFSET(attn_rope_params, magnitude, 24),
        OFFSET(attn_rope_params, interleaved, 32),
        OFFSET(attn_rope_params, inverse, 36),
        OFFSET(attn_rope_params, frequencies, 40),
        OFFSET(attn_rope_params, cos, 48),
        OFFSET(attn_rope_params, sin, 56),
        OFFSET(attn_rope_params, positions, 64),
        OFFSET(attn_rope_params, lengths, 72),
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

static void merge_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_merge_params, 16),
        OFFSET(attn_merge_params, struct_size, 0),
        OFFSET(attn_merge_params, sinks, 8),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_gradients_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_gradients, 104),
        OFFSET(attn_sdpa_gradients, struct_size, 0),
        OFFSET(attn_sdpa_gradients, accumulate, 8),
        OFFSET(attn_sdpa_gradients, reserved, 12),
        OFFSET(attn_sdpa_gradients, output, 16),
        OFFSET(attn_sdpa_gradients, lse, 24),
        OFFSET(attn_sdpa_gradients, weights, 32),
        OFFSET(attn_sdpa_gradients, query, 40),
        OFFSET(attn_sdpa_gradients, key, 48),
        OFFSET(attn_sdpa_gradients, value, 56),
        OFFSET(attn_sdpa_gradients, mask, 64),
        OFFSET(attn_sdpa_gradients, bias, 72),
        OFFSET(attn_sdpa_gradients, position_bias, 80),
        OFFSET(attn_sdpa_gradients, alibi_slopes, 88),
        OFFSET(attn_sdpa_gradients, sinks, 96),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_backward_report_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_backward_report, 64),
        OFFSET(attn_sdpa_backward_report, struct_size, 0),
        OFFSET(attn_sdpa_backward_report, whole_heads, 8),
        OFFSET(attn_sdpa_backward_report, staged, 12),
        OFFSET(attn_sdpa_backward_report, num_items, 16),
        OFFSET(attn_sdpa_backward_report, row_block, 24),
        OFFSET(attn_sdpa_backward_report, key_block, 32),
        OFFSET(attn_sdpa_backward_report, workspace_bytes, 40),
        OFFSET(attn_sdpa_backward_report, kernels, 48),
        OFFSET(attn_sdpa_backward_report, reason, 56),
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

static void kv_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_kv, 88),
        OFFSET(attn_kv, struct_size, 0),
        OFFSET(attn_kv, key, 8),
        OFFSET(attn_kv, value, 16),
        OFFSET(attn_kv, page_table, 24),
        OFFSET(attn_kv, page_starts, 32),
        OFFSET(attn_kv, starts, 40),
        OFFSET(attn_kv, lengths, 48),
        OFFSET(attn_kv, key_scale, 56),
        OFFSET(attn_kv, value_scale, 64),
        OFFSET(attn_kv, key_zero, 72),
        OFFSET(attn_kv, value_zero, 80),
    };
    ASSERT_NUMBERS(numbers);
}

static void kv_append_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_kv_append_params, 24),
        OFFSET(attn_kv_append_params, struct_size, 0),
        OFFSET(attn_kv_append_params, starts, 8),
        OFFSET(attn_kv_append_params, positions, 16),
    };
    ASSERT_NUMBERS(numbers);
}

static void dropout_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_dropout, 64),
        OFFSET(attn_dropout, struct_size, 0),
        OFFSET(attn_dropout, probability, 8),
        OFFSET(attn_dropout, seed, 16),
        OFFSET(attn_dropout, offset, 24),
        OFFSET(attn_dropout, batch, 32),
        OFFSET(attn_dropout, head, 40),
        OFFSET(attn_dropout, row, 48),
        OFFSET(attn_dropout, column, 56),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_params, 216),
        OFFSET(attn_sdpa_params, struct_size, 0),
        OFFSET(attn_sdpa_params, set, 8),
        OFFSET(attn_sdpa_params, is_causal, 12),
        OFFSET(attn_sdpa_params, scale, 16),
        OFFSET(attn_sdpa_params, softcap, 24),
        OFFSET(attn_sdpa_params, window_left, 32),
        OFFSET(attn_sdpa_params, window_right, 40),
        OFFSET(attn_sdpa_params, enable_gqa, 48),
        OFFSET(attn_sdpa_params, align_end, 52),
        OFFSET(attn_sdpa_params, normalizer, 56),
        OFFSET(attn_sdpa_params, mask_kind, 60),
        OFFSET(attn_sdpa_params, mask, 64),
        OFFSET(attn_sdpa_params, bias, 72),
        OFFSET(attn_sdpa_params, query_offset, 80),
        OFFSET(attn_sdpa_params, key_lengths, 88),
        OFFSET(attn_sdpa_params, alibi_slopes, 96),
        OFFSET(attn_sdpa_params, sinks, 104),
        OFFSET(attn_sdpa_params, lse, 112),
        OFFSET(attn_sdpa_params, weights, 120),
        OFFSET(attn_sdpa_params, report, 128),
        OFFSET(attn_sdpa_params, kv, 136),
        OFFSET(attn_sdpa_params, query_starts, 144),
        OFFSET(attn_sdpa_params, scores, 152),
        OFFSET(attn_sdpa_params, scores_stage, 160),
        OFFSET(attn_sdpa_params, reserved, 164),
        OFFSET(attn_sdpa_params, mask_start, 168),
        OFFSET(attn_sdpa_params, position_bias, 176),
        OFFSET(attn_sdpa_params, block_mask, 184),
        OFFSET(attn_sdpa_params, block_rows, 192),
        OFFSET(attn_sdpa_params, block_columns, 200),
        OFFSET(attn_sdpa_params, dropout, 208),
    };
    ASSERT_NUMBERS(numbers);
}

static void sdpa_outputs_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_sdpa_outputs, 728),
        OFFSET(attn_sdpa_outputs, struct_size, 0),
        OFFSET(attn_sdpa_outputs, output, 8),
        OFFSET(attn_sdpa_outputs, lse, 152),
        OFFSET(attn_sdpa_outputs, weights, 296),
        OFFSET(attn_sdpa_outputs, averaged_weights, 440),
        OFFSET(attn_sdpa_outputs, scores, 584),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_config_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_config, 120),
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
        OFFSET(attn_mha_config, no_bias, 76),
        OFFSET(attn_mha_config, add_bias_kv, 80),
        OFFSET(attn_mha_config, add_zero_attn, 84),
        OFFSET(attn_mha_config, batch_first, 88),
        OFFSET(attn_mha_config, parameter_dtype, 92),
        OFFSET(attn_mha_config, qk_norm, 96),
        OFFSET(attn_mha_config, reserved, 100),
        OFFSET(attn_mha_config, qk_norm_epsilon, 104),
        OFFSET(attn_mha_config, qk_norm_weight_offset, 112),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_load_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_load_params, 16),
        OFFSET(attn_mha_load_params, struct_size, 0),
        OFFSET(attn_mha_load_params, scale, 8),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_init_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_init_params, 16),
        OFFSET(attn_mha_init_params, struct_size, 0),
        OFFSET(attn_mha_init_params, seed, 8),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_params, 64),
        OFFSET(attn_mha_params, struct_size, 0),
        OFFSET(attn_mha_params, key_padding_mask_kind, 8),
        OFFSET(attn_mha_params, reserved, 12),
        OFFSET(attn_mha_params, key_padding_mask, 16),
        OFFSET(attn_mha_params, attention, 24),
        OFFSET(attn_mha_params, cache, 32),
        OFFSET(attn_mha_params, rope, 40),
        OFFSET(attn_mha_params, saved, 48),
        OFFSET(attn_mha_params, saved_bytes, 56),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_gradients_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_gradients, 72),
        OFFSET(attn_mha_gradients, struct_size, 0),
        OFFSET(attn_mha_gradients, accumulate, 8),
        OFFSET(attn_mha_gradients, reserved, 12),
        OFFSET(attn_mha_gradients, output, 16),
        OFFSET(attn_mha_gradients, query, 24),
        OFFSET(attn_mha_gradients, key, 32),
        OFFSET(attn_mha_gradients, value, 40),
        OFFSET(attn_mha_gradients, parameters, 48),
        OFFSET(attn_mha_gradients, num_parameters, 56),
        OFFSET(attn_mha_gradients, attention, 64),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_report_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_report, 40),
        OFFSET(attn_mha_report, struct_size, 0),
        OFFSET(attn_mha_report, projection_gemm, 8),
        OFFSET(attn_mha_report, depends_on_blas_threads, 12),
        OFFSET(attn_mha_report, workspace_bytes, 16),
        OFFSET(attn_mha_report, kernels, 24),
        OFFSET(attn_mha_report, attention, 32),
    };
    ASSERT_NUMBERS(numbers);
}

static void mha_outputs_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_mha_outputs, 728),
        OFFSET(attn_mha_outputs, struct_size, 0),
        OFFSET(attn_mha_outputs, output, 8),
        OFFSET(attn_mha_outputs, lse, 152),
        OFFSET(attn_mha_outputs, weights, 296),
        OFFSET(attn_mha_outputs, averaged_weights, 440),
        OFFSET(attn_mha_outputs, scores, 584),
    };
    ASSERT_NUMBERS(numbers);
}

static void selftest_params_layout_is_pinned(void **state) {
    (void)state;
    static const pinned_number numbers[] = {
        SIZE(attn_selftest_params, 24),
        OFFSET(attn_selftest_params, struct_size, 0),
        OFFSET(attn_selftest_params, visit, 8),
        OFFSET(attn_selftest_params, visit_state, 16),
    };
    ASSERT_NUMBERS(numbers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_layout_is_pinned),
        cmocka_unit_test(context_config_layout_is_pinned),
        cmocka_unit_test(context_info_layout_is_pinned),
        cmocka_unit_test(rms_norm_params_layout_is_pinned),
        cmocka_unit_test(rope_params_layout_is_pinned),
        cmocka_unit_test(softmax_params_layout_is_pinned),
        cmocka_unit_test(merge_params_layout_is_pinned),
        cmocka_unit_test(sdpa_gradients_layout_is_pinned),
        cmocka_unit_test(sdpa_backward_report_layout_is_pinned),
        cmocka_unit_test(sdpa_report_layout_is_pinned),
        cmocka_unit_test(kv_layout_is_pinned),
        cmocka_unit_test(kv_append_params_layout_is_pinned),
        cmocka_unit_test(dropout_layout_is_pinned),
        cmocka_unit_test(sdpa_params_layout_is_pinned),
        cmocka_unit_test(sdpa_outputs_layout_is_pinned),
        cmocka_unit_test(mha_config_layout_is_pinned),
        cmocka_unit_test(mha_load_params_layout_is_pinned),
        cmocka_unit_test(mha_init_params_layout_is_pinned),
        cmocka_unit_test(mha_params_layout_is_pinned),
        cmocka_unit_test(mha_gradients_layout_is_pinned),
        cmocka_unit_test(mha_report_layout_is_pinned),
        cmocka_unit_test(mha_outputs_layout_is_pinned),
        cmocka_unit_test(selftest_params_layout_is_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
