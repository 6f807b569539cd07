/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_sdpa_options.c: what attn_sdpa and its queries say of options out of range, options
 * that contradict each other, and structs of other releases.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdpa_refusal.h"

/* report is the last field of release 0.1. */
enum { FIRST_RELEASE_BYTES = offsetof(attn_sdpa_params, kv) };

static const sdpa_refusal wrong_options[] = {
    {.name = "set_next_bit_is_refused",
     .params = {.set = 4},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, got 4"},
    {.name = "set_known_and_unknown_bits_is_refused",
     .params = {.set = ATTN_SDPA_SET_SCALE | 64, .scale = 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, got 65"},
    {.name = "set_highest_bit_is_refused",
     .params = {.set = INT32_C(1) << 30},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, got "
             "1073741824"},
    {.name = "set_negative_is_refused",
     .params = {.set = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, got -1"},
    {.name = "set_lowest_is_refused",
     .params = {.set = INT32_MIN},
     .status = ATTN_ERROR_VALUE,
     .line = "set: expected bits of enum attn_sdpa_set, which add up to 3 in this version, got "
             "-2147483648"},
    {.name = "enable_gqa_two_is_refused",
     .params = {.enable_gqa = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "enable_gqa: expected 0 or 1, got 2"},
    {.name = "enable_gqa_negative_is_refused",
     .params = {.enable_gqa = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "enable_gqa: expected 0 or 1, got -1"},
    {.name = "align_end_two_is_refused",
     .params = {.align_end = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "align_end: expected 0 or 1, got 2"},
    {.name = "align_end_negative_is_refused",
     .params = {.align_end = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "align_end: expected 0 or 1, got -1"},
    {.name = "query_offset_beside_align_end_is_refused",
     .params = {.align_end = 1},
     .links = {SDPA_QUERY_OFFSET},
     .status = ATTN_ERROR_VALUE,
     .line = "query_offset: expected NULL beside align_end, which sets it"},
    {.name = "scale_without_bit_is_refused",
     .params = {.scale = 0.5},
     .status = ATTN_ERROR_VALUE,
     .line = "scale: expected 0 without ATTN_SDPA_SET_SCALE, got 0.5"},
    {.name = "scale_nan_is_refused",
     .params = {.set = ATTN_SDPA_SET_SCALE, .scale = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "scale: expected a number, got NaN"},
    {.name = "softcap_negative_is_refused",
     .params = {.softcap = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "softcap: expected 0 (none) or a positive number, got -1"},
    {.name = "softcap_nan_is_refused",
     .params = {.softcap = NAN},
     .status = ATTN_ERROR_VALUE,
     .line = "softcap: expected 0 (none) or a positive number, got nan"},
    {.name = "softcap_infinite_is_refused",
     .params = {.softcap = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "softcap: expected 0 (none) or a positive number, got inf"},
    {.name = "window_left_without_bit_is_refused",
     .params = {.window_left = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "window: expected 0 and 0 without ATTN_SDPA_SET_WINDOW, got 1 and 0"},
    {.name = "window_right_without_bit_is_refused",
     .params = {.window_right = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "window: expected 0 and 0 without ATTN_SDPA_SET_WINDOW, got 0 and -1"},
    {.name = "window_left_below_minus_one_is_refused",
     .params = {.set = ATTN_SDPA_SET_WINDOW, .window_left = -2},
     .status = ATTN_ERROR_VALUE,
     .line = "window_left: expected -1 (unlimited) and up, got -2"},
    {.name = "window_right_lowest_is_refused",
     .params = {.set = ATTN_SDPA_SET_WINDOW, .window_right = INT64_MIN},
     .status = ATTN_ERROR_VALUE,
     .line = "window_right: expected -1 (unlimited) and up, got -9223372036854775808"},
    {.name = "is_causal_two_is_refused",
     .params = {.is_causal = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "is_causal: expected 0 or 1, got 2"},
    {.name = "is_causal_negative_is_refused",
     .params = {.is_causal = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "is_causal: expected 0 or 1, got -1"},
    {.name = "normalizer_unknown_is_refused",
     .params = {.normalizer = 3},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "normalizer: expected a value of enum attn_normalizer, 0 to 2 in this version, got 3"},
    {.name = "normalizer_negative_is_refused",
     .params = {.normalizer = -1},
     .status = ATTN_ERROR_VALUE,
     .line =
         "normalizer: expected a value of enum attn_normalizer, 0 to 2 in this version, got -1"},
    {.name = "scores_stage_unknown_is_refused",
     .params = {.scores_stage = 3},
     .links = {SDPA_SCORES},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line =
         "scores_stage: expected a value of enum attn_score_stage, 0 to 2 in this version, got 3"},
    {.name = "scores_stage_negative_is_refused",
     .params = {.scores_stage = -1},
     .status = ATTN_ERROR_VALUE,
     .line =
         "scores_stage: expected a value of enum attn_score_stage, 0 to 2 in this version, got -1"},
    {.name = "reserved_is_refused",
     .params = {.reserved = 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected 0 in this version, got 1"},
    {.name = "scores_without_heads_are_refused",
     .spoils = {{REFUSAL_RANK, SDPA_SCORES, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "scores: expected shape (2, Hq=4, L=3, S=6), got (4, 3, 6)"},
    {.name = "scores_of_other_keys_are_refused",
     .spoils = {{REFUSAL_LENGTH, SDPA_SCORES, .axis = 3, .value = SDPA_S - 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "scores: expected shape (2, Hq=4, L=3, S=6), got (2, 4, 3, 5)"},
    {.name = "scores_data_null_is_refused",
     .spoils = {{.fault = REFUSAL_NO_DATA, .tensor = SDPA_SCORES}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "scores: expected data for shape (2, 4, 3, 6), got NULL"},
    {.name = "mask_kind_unknown_is_refused",
     .params = {.mask_kind = 4},
     .links = {SDPA_MASK},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got 4"},
    {.name = "mask_kind_negative_is_refused",
     .params = {.mask_kind = -1},
     .links = {SDPA_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected a value of enum attn_mask_kind, 0 to 3 in this version, got -1"},
    {.name = "mask_without_kind_is_refused",
     .links = {SDPA_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or "
             "ATTN_MASK_BOOL_EXCLUDE with a "
             "mask, got 0"},
    {.name = "mask_kind_without_mask_is_refused",
     .params = {.mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .status = ATTN_ERROR_VALUE,
     .line = "mask_kind: expected ATTN_MASK_NONE without a mask, got 3"},
    {.name = "sinks_with_sigmoid_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_SIGMOID},
     .links = {SDPA_SINKS},
     .status = ATTN_ERROR_VALUE,
     .line = "sinks: expected NULL unless the normalizer is softmax"},
    {.name = "sinks_without_normalizer_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_LINEAR},
     .links = {SDPA_SINKS},
     .status = ATTN_ERROR_VALUE,
     .line = "sinks: expected NULL unless the normalizer is softmax"},
    {.name = "lse_with_sigmoid_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_SIGMOID},
     .links = {SDPA_LSE},
     .status = ATTN_ERROR_VALUE,
     .line = "lse: expected NULL unless the normalizer is softmax"},
    {.name = "lse_without_normalizer_is_refused",
     .params = {.normalizer = ATTN_NORMALIZER_LINEAR},
     .links = {SDPA_LSE},
     .status = ATTN_ERROR_VALUE,
     .line = "lse: expected NULL unless the normalizer is softmax"},
    {.name = "key_length_negative_is_refused",
     .spoils = {{REFUSAL_ELEMENT, SDPA_KEY_LENGTHS, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "key_lengths: expected 0 to S=6, got -1 at element 0"},
    {.name = "key_length_past_end_is_refused",
     .spoils = {{REFUSAL_ELEMENT, SDPA_KEY_LENGTHS, .value = SDPA_S + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "key_lengths: expected 0 to S=6, got 7 at element 0"},
    {.name = "key_length_huge_is_refused",
     .spoils = {{REFUSAL_ELEMENT, SDPA_KEY_LENGTHS, .value = INT64_MAX}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "key_lengths: expected 0 to S=6, got 9223372036854775807 at element 0"},
    {.name = "struct_size_one_is_refused",
     .params = {.struct_size = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "params: expected struct_size ..."},
    {.name = "struct_size_below_first_release_is_refused",
     .params = {.struct_size = FIRST_RELEASE_BYTES - 1},
     .status = ATTN_ERROR_VALUE,
     .line = "params: expected struct_size ..."},
};

static const sdpa_refusal accepted[] = {
    {.name = "scores_stage_without_scores_is_accepted",
     .params = {.scores_stage = ATTN_SCORE_MASKED}},
    {.name = "scale_of_the_default_is_accepted",
     .params = {.set = ATTN_SDPA_SET_SCALE, .scale = 0.44721359549995793}},
    {.name = "window_without_limits_is_accepted",
     .params = {.set = ATTN_SDPA_SET_WINDOW, .window_left = -1, .window_right = -1}},
    {.name = "gqa_with_equal_heads_is_accepted", .params = {.enable_gqa = 1}},
    {.name = "align_end_without_causality_is_accepted", .params = {.align_end = 1}},
};

/* The struct of a later release: this one's fields and a tail it does not know. */
typedef union newer_params {
    attn_sdpa_params known;
    unsigned char bytes[sizeof(attn_sdpa_params) + 16];
} newer_params;

static void newer_struct_with_zero_tail_is_accepted(void **state) {
    (void)state;
    sdpa_fixture fixture;
    newer_params newer;
    memset(&newer, 0, sizeof newer);
    newer.known.struct_size = sizeof newer;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.params = &newer.known;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
}

static void newer_struct_with_option_is_refused(void **state) {
    (void)state;
    sdpa_fixture fixture;
    newer_params newer;
    memset(&newer, 0, sizeof newer);
    newer.known.struct_size = sizeof newer;
    newer.bytes[sizeof newer - 1] = 1;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.params = &newer.known;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("params", sizeof newer.known, sizeof newer - 1));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    sdpa_refusal_assert_usable();
}

/* It is the smallest there can be. */
static void struct_of_first_release_is_accepted(void **state) {
    (void)state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.options.struct_size = FIRST_RELEASE_BYTES;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
}

static void struct_size_zero_is_refused(void **state) {
    (void)state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.options.struct_size = 0;
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   refusal_size_line("params", FIRST_RELEASE_BYTES, 0));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
    sdpa_refusal_assert_usable();
}

static void key_lengths_of_int32_are_refused_out_of_range(void **state) {
    (void)state;
    const int32_t wrong[] = {-1, SDPA_S + 1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
        sdpa_fixture fixture;
        char line[128];
        sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
        int32_t lengths[SDPA_N] = {SDPA_S, wrong[i]};
        fixture.views[SDPA_KEY_LENGTHS].data = lengths;
        fixture.views[SDPA_KEY_LENGTHS].dtype = ATTN_DTYPE_INT32;
        sdpa_fixture_link(&fixture, SDPA_KEY_LENGTHS);
        snprintf(line, sizeof line, "key_lengths: expected 0 to S=6, got %d at element 1",
                 (int)wrong[i]);
        refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_VALUE, line);
        refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        lengths[1] = SDPA_S;
        refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
        sdpa_fixture_assert_values(&fixture);
    }
}

static void params_null_is_accepted(void **state) {
    (void)state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    fixture.params = NULL;
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
}

static void report_with_wrong_struct_size_is_refused(void **state) {
    (void)state;
    sdpa_fixture fixture;
    attn_sdpa_report report;
    refusal_fill(&report, sizeof report);
    for (int given = 0; given <= 1; ++given) {
        report.struct_size = given ? sizeof report - 1 : 0;
        const char *line = refusal_size_line("report", sizeof report, report.struct_size);
        sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
        refusal_assert("attn_sdpa_explain", sdpa_fixture_explain(&fixture, &report),
                       ATTN_ERROR_VALUE, line);
        fixture.options.report = &report;
        refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), ATTN_ERROR_VALUE, line);
        refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        refusal_assert_untouched("report", &report.engine,
                                 sizeof report - offsetof(attn_sdpa_report, engine));
    }
    sdpa_refusal_assert_usable();
}

static void query_results_null_are_refused(void **state) {
    (void)state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    refusal_assert("attn_sdpa_explain", sdpa_fixture_explain(&fixture, NULL), ATTN_ERROR_NULL,
                   "report: expected a struct to fill, got NULL");
    refusal_assert("attn_sdpa_workspace_bytes", sdpa_fixture_workspace_bytes(&fixture, NULL),
                   ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(newer_struct_with_zero_tail_is_accepted),
    cmocka_unit_test(newer_struct_with_option_is_refused),
    cmocka_unit_test(struct_of_first_release_is_accepted),
    cmocka_unit_test(struct_size_zero_is_refused),
    cmocka_unit_test(key_lengths_of_int32_are_refused_out_of_range),
    cmocka_unit_test(params_null_is_accepted),
    cmocka_unit_test(report_with_wrong_struct_size_is_refused),
    cmocka_unit_test(query_results_null_are_refused),
};

int main(void) {
    static refusal_suite suite;
    sdpa_refusal_add(&suite, wrong_options, sizeof wrong_options / sizeof wrong_options[0]);
    sdpa_refusal_add(&suite, accepted, sizeof accepted / sizeof accepted[0]);
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return sdpa_refusal_main(&suite, "errors of sdpa's options");
}
