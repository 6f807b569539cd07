/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_options.c: what attn_mha_forward and attn_mha_workspace_bytes say of options out
 * of range and structs of other releases.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mha_refusal.h"

/* Refused unread. */
static const attn_kv some_kv;

static const mha_refusal wrong_options[] = {
    {.name = "attention_is_causal_negative_is_refused",
     .attention = {.is_causal = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.is_causal: expected 0 or 1, got -1"},
    {.name = "key_padding_mask_without_kind_is_refused",
     .links = {MHA_KEY_PADDING_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "key_padding_mask_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or "
             "ATTN_MASK_BOOL_EXCLUDE "
             "with a mask, got 0"},
    {.name = "key_padding_mask_kind_without_mask_is_refused",
     .params = {.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .status = ATTN_ERROR_VALUE,
     .line = "key_padding_mask_kind: expected ATTN_MASK_NONE without a mask, got 3"},
    {.name = "key_padding_mask_kind_unknown_is_refused",
     .params = {.key_padding_mask_kind = 4},
     .links = {MHA_KEY_PADDING_MASK},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "key_padding_mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this "
             "version, got 4"},
    {.name = "attention_mask_kind_without_mask_is_refused",
     .attention = {.mask_kind = ATTN_MASK_ADDITIVE},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.mask_kind: expected ATTN_MASK_NONE without a mask, got 1"},
    {.name = "attention_mask_kind_negative_is_refused",
     .attention = {.mask_kind = -1},
     .links = {MHA_ATTENTION_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this "
             "version, got -1"},
    {.name = "attention_mask_without_kind_is_refused",
     .links = {MHA_ATTENTION_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.mask_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or "
             "ATTN_MASK_BOOL_EXCLUDE "
             "with a mask, got 0"},
    {.name = "attention_is_causal_two_is_refused",
     .attention = {.is_causal = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.is_causal: expected 0 or 1, got 2"},
    {.name = "attention_set_unknown_is_refused",
     .attention = {.set = 32},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line =
         "attention.set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, "
         "got 32"},
    {.name = "attention_scale_without_bit_is_refused",
     .attention = {.scale = 2},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.scale: expected 0 without ATTN_SDPA_SET_SCALE, got 2"},
    {.name = "attention_scale_nan_is_refused",
     .attention = {.set = ATTN_SDPA_SET_SCALE, .scale = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.scale: expected a number, got NaN"},
    {.name = "attention_window_below_minus_one_is_refused",
     .attention = {.set = ATTN_SDPA_SET_WINDOW, .window_left = -2},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.window_left: expected -1 (unlimited) and up, got -2"},
    {.name = "attention_softcap_negative_is_refused",
     .attention = {.softcap = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.softcap: expected 0 (none) or a positive number, got -1"},
    {.name = "attention_normalizer_unknown_is_refused",
     .attention = {.normalizer = 9},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.normalizer: expected a value of enum attn_normalizer, 0 to 2 in this "
             "version, got 9"},
    {.name = "reserved_set_is_refused",
     .params = {.reserved = 5},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected 0 in this version, got 5"},
    {.name = "reserved_negative_is_refused",
     .params = {.reserved = -1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected 0 in this version, got -1"},
    {.name = "attention_set_negative_is_refused",
     .attention = {.set = -2},
     .status = ATTN_ERROR_VALUE,
     .line =
         "attention.set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, "
         "got -2"},
    {.name = "attention_normalizer_negative_is_refused",
     .attention = {.normalizer = -9},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.normalizer: expected a value of enum attn_normalizer, 0 to 2 in this "
             "version, got -9"},
    {.name = "attention_mask_kind_unknown_is_refused",
     .attention = {.mask_kind = 4},
     .links = {MHA_ATTENTION_MASK},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line =
         "attention.mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, "
         "got 4"},
    {.name = "key_padding_mask_kind_negative_is_refused",
     .params = {.key_padding_mask_kind = -1},
     .links = {MHA_KEY_PADDING_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "key_padding_mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this "
             "version, got -1"},
    {.name = "attention_enable_gqa_two_is_refused",
     .attention = {.enable_gqa = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.enable_gqa: expected 0 or 1, got 2"},
    {.name = "attention_enable_gqa_negative_is_refused",
     .attention = {.enable_gqa = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.enable_gqa: expected 0 or 1, got -1"},
    {.name = "attention_align_end_two_is_refused",
     .attention = {.align_end = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.align_end: expected 0 or 1, got 2"},
    {.name = "attention_align_end_negative_is_refused",
     .attention = {.align_end = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.align_end: expected 0 or 1, got -1"},
    {.name = "attention_scores_stage_unknown_is_refused",
     .attention = {.scores_stage = 3},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.scores_stage: expected a value of enum attn_score_stage, 0 to 2 in this "
             "version, got 3"},
    {.name = "attention_reserved_is_refused",
     .attention = {.reserved = -1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.reserved: expected 0 in this version, got -1"},
    {.name = "attention_dropout_of_everything_is_refused",
     .attention = {.dropout = &(const attn_dropout){.struct_size = sizeof(attn_dropout),
                                                    .probability = 1}},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.dropout.probability: expected 0 to below 1, got 1"},
    {.name = "attention_dropout_row_negative_is_refused",
     .attention = {.dropout =
                       &(const attn_dropout){.struct_size = sizeof(attn_dropout), .row = -1}},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.dropout.row: expected 0 and up, got -1"},
    {.name = "attention_dropout_head_beyond_16_bits_is_refused",
     .attention = {.dropout =
                       &(const attn_dropout){.struct_size = sizeof(attn_dropout), .head = 65535}},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.dropout.head: expected places below 2^16, got 65535 and 2 from there on"},
    {.name = "attention_dropout_of_no_size_is_refused",
     .attention = {.dropout = &(const attn_dropout){.probability = 0.5}},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.dropout: expected struct_size ..."},
    {.name = "attention_mask_start_without_mask_is_refused",
     .links = {MHA_ATTENTION_MASK_START},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.mask_start: expected NULL without a mask"},
    {.name = "attention_placed_mask_rows_differ_is_refused",
     .attention = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {MHA_ATTENTION_MASK_START},
     .spoils = {{REFUSAL_LENGTH, MHA_ATTENTION_MASK, .axis = 0, .value = MHA_L - 1},
                {REFUSAL_LENGTH, MHA_ATTENTION_MASK, .axis = 1, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.mask: expected shape (L=3, M=1), got (2, 1)"},
    {.name = "attention_position_bias_of_even_columns_is_refused",
     .spoils = {{REFUSAL_LENGTH, MHA_ATTENTION_POSITION_BIAS, .axis = 1, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.position_bias: expected shape (Hq, 2 R + 1), an odd number of columns, "
             "got 4"},
    {.name = "attention_block_mask_of_too_few_columns_is_refused",
     .spoils = {{REFUSAL_LENGTH, MHA_ATTENTION_BLOCK_MASK, .axis = 1, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.block_mask: expected a shape that broadcasts to ..."},
    {.name = "attention_block_rows_without_block_mask_are_refused",
     .attention = {.block_rows = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.block_rows: expected 0 without a block_mask, got 1"},
    {.name = "attention_offset_beside_align_end_is_refused",
     .attention = {.align_end = 1},
     .links = {MHA_ATTENTION_OFFSET},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.query_offset: expected NULL beside align_end, which sets it"},
    {.name = "attention_sinks_with_sigmoid_is_refused",
     .links = {MHA_ATTENTION_SINKS},
     .attention = {.normalizer = ATTN_NORMALIZER_SIGMOID},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.sinks: expected NULL unless the normalizer is softmax"},
    {.name = "attention_lse_without_normalizer_is_refused",
     .links = {MHA_ATTENTION_LSE},
     .attention = {.normalizer = ATTN_NORMALIZER_LINEAR},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.lse: expected NULL unless the normalizer is softmax"},
    {.name = "attention_kv_is_refused",
     .attention = {.kv = &some_kv},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.kv: expected NULL in a layer, which has cache for it"},
    {.name = "attention_query_starts_without_cache_are_refused",
     .links = {MHA_QUERY_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.query_starts: expected NULL without cache"},
    {.name = "attention_length_negative_is_refused",
     .spoils = {{REFUSAL_ELEMENT, MHA_ATTENTION_LENGTHS, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "attention.key_lengths: expected 0 to S=4, got -1 at element 0"},
    {.name = "attention_length_past_end_is_refused",
     .spoils = {{REFUSAL_ELEMENT, MHA_ATTENTION_LENGTHS, .value = MHA_S + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "attention.key_lengths: expected 0 to S=4, got 5 at element 0"},
    {.name = "struct_size_below_first_release_is_refused",
     .params = {.struct_size = 31},
     .status = ATTN_ERROR_VALUE,
     .line = "params: expected struct_size ..."},
    {.name = "attention_struct_size_below_first_release_is_refused",
     .attention = {.struct_size = offsetof(attn_sdpa_params, kv) - 1},
     .status = ATTN_ERROR_VALUE,
     .line = "attention: expected struct_size ..."},
};

static const mha_refusal accepted[] = {
    {.name = "attention_of_defaults_is_accepted"},
    {.name = "attention_enable_gqa_is_without_effect", .attention = {.enable_gqa = 1}},
    {.name = "attention_bias_of_zeros_is_accepted", .links = {MHA_ATTENTION_BIAS}},
    {.name = "attention_weights_alone_is_accepted",
     .links = {MHA_ATTENTION_WEIGHTS, MHA_ATTENTION_LSE}},
    {.name = "weights_averaged_is_accepted", .links = {MHA_AVERAGE_WEIGHTS}},
    {.name = "weights_per_head_is_accepted", .links = {MHA_ATTENTION_WEIGHTS}},
    {.name = "bool_mask_that_hides_nothing_is_accepted",
     .attention = {.mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .links = {MHA_BOOL_MASK}},
    {.name = "key_padding_mask_that_hides_nothing_is_accepted",
     .params = {.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .links = {MHA_KEY_PADDING_MASK}},
    {.name = "attention_dropout_of_nothing_is_accepted",
     .attention = {.dropout = &(const attn_dropout){.struct_size = sizeof(attn_dropout)}}},
    {.name = "attn_mask_rank_4_of_ones_is_accepted",
     .attention = {.mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .spoils = {{REFUSAL_RANK, MHA_BOOL_MASK, .value = 4},
                {REFUSAL_STRIDE, MHA_BOOL_MASK, .axis = 0, .value = INT64_MAX}}},
};

static void layer_null_is_refused(void **state) {
    (void)state;
    mha_fixture fixture;
    size_t bytes = 77;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.layer = NULL;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_NULL,
                   "layer: expected a layer, got NULL");
    refusal_assert("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes),
                   ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    assert_int_equal(bytes, 77);
    mha_refusal_assert_usable();
}

static void result_null_is_refused(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    refusal_assert("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, NULL),
                   ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
}

static void params_null_is_accepted(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.params = NULL;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
}

/* attention is the last field of release 0.1. */
static void struct_of_first_release_is_accepted(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.options.struct_size =
        offsetof(attn_mha_params, attention) + sizeof fixture.options.attention;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
}

/* Also where the layer's heads share keys, and the attention inside is asked for groups anyway. */
static void enable_gqa_beyond_one_is_refused_in_a_layer_of_groups(void **state) {
    (void)state;
    attn_mha_config config = mha_fixture_config();
    config.num_kv_heads = 1;
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    for (int32_t given = -1; given <= 2; ++given) {
        mha_fixture fixture;
        size_t bytes;
        char line[64];
        mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
        fixture.layer = layer;
        fixture.options.attention = &fixture.attention;
        fixture.attention.enable_gqa = given;
        const attn_status status = mha_fixture_workspace_bytes(&fixture, &bytes);
        snprintf(line, sizeof line, "attention.enable_gqa: expected 0 or 1, got %d", (int)given);
        if (given == 0 || given == 1) {
            refusal_assert_ok("attn_mha_workspace_bytes", status);
        } else {
            refusal_assert("attn_mha_workspace_bytes", status,
                           given < 0 ? ATTN_ERROR_VALUE : ATTN_ERROR_UNSUPPORTED, line);
        }
    }
    attn_mha_destroy(layer);
}

/* Two of them, behind the S keys: bias_k's and zero_attn's. */
static void dropout_columns_that_a_layer_adds_count(void **state) {
    (void)state;
    attn_mha_config config = mha_fixture_config();
    config.add_bias_kv = 1;
    config.add_zero_attn = 1;
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    attn_dropout dropout = {.struct_size = sizeof dropout,
                            .column = (INT64_C(1) << 34) - MHA_S - 2};
    mha_fixture fixture;
    size_t bytes;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.layer = layer;
    fixture.options.attention = &fixture.attention;
    fixture.attention.dropout = &dropout;
    refusal_assert_ok("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes));
    ++dropout.column;
    refusal_assert("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes),
                   ATTN_ERROR_UNSUPPORTED,
                   "attention.dropout.column: expected places below 2^34, got 17179869179 and 6 "
                   "from there on");
    attn_mha_destroy(layer);
}

static void struct_size_zero_is_refused(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.options.struct_size = 0;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   refusal_size_line("params", 32, 0));
    fixture.options.struct_size = sizeof fixture.options;
    fixture.options.attention = &fixture.attention;
    fixture.attention.struct_size = 0;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   refusal_size_line("attention", offsetof(attn_sdpa_params, kv), 0));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    mha_refusal_assert_usable();
}

static void newer_structs_are_accepted_until_they_ask_for_more(void **state) {
    (void)state;
    union {
        attn_mha_params known;
        unsigned char bytes[sizeof(attn_mha_params) + 16];
    } newer;
    union {
        attn_sdpa_params known;
        unsigned char bytes[sizeof(attn_sdpa_params) + 16];
    } newer_attention;
    memset(&newer, 0, sizeof newer);
    memset(&newer_attention, 0, sizeof newer_attention);
    newer.known.struct_size = sizeof newer;
    newer.known.attention = &newer_attention.known;
    newer_attention.known.struct_size = sizeof newer_attention;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.params = &newer.known;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
    refusal_fill(fixture.memory.output, sizeof fixture.memory.output);
    newer_attention.bytes[sizeof newer_attention.known + 3] = 1;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("attention", sizeof newer_attention.known,
                                      sizeof newer_attention.known + 3));
    newer.bytes[sizeof newer.known] = 1;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("params", sizeof newer.known, sizeof newer.known));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    mha_refusal_assert_usable();
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(layer_null_is_refused),
    cmocka_unit_test(result_null_is_refused),
    cmocka_unit_test(params_null_is_accepted),
    cmocka_unit_test(struct_of_first_release_is_accepted),
    cmocka_unit_test(enable_gqa_beyond_one_is_refused_in_a_layer_of_groups),
    cmocka_unit_test(dropout_columns_that_a_layer_adds_count),
    cmocka_unit_test(struct_size_zero_is_refused),
    cmocka_unit_test(newer_structs_are_accepted_until_they_ask_for_more),
};

int main(void) {
    static refusal_suite suite;
    mha_refusal_add(&suite, wrong_options, sizeof wrong_options / sizeof wrong_options[0]);
    mha_refusal_add(&suite, accepted, sizeof accepted / sizeof accepted[0]);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return mha_refusal_main(&suite, "errors of multi-head attention's options");
}
