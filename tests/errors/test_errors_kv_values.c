/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_kv_values.c: what attn_sdpa says of numbers that tell where keys, values and ragged
 * queries are, and of outputs on them; its queries look at neither. And calls that look odd and are
 * right.
 */
#include "kv_refusal.h"

static const kv_refusal wrong_lengths[] = {
    {.name = "length_negative_is_refused",
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to S=6, got -1 at element 0"},
    {.name = "length_past_the_room_is_refused",
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .axis = 1, .value = 7}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to S=6, got 7 at element 1"},
    {.name = "length_past_the_pages_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .value = 7}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to S=6, got 7 at element 0"},
    {.name = "length_past_the_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .axis = 1, .value = 6}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to 5, got 6 in sequence 1"},
    {.name = "length_negative_beside_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .value = INT64_MIN}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to 5, got -9223372036854775808 in sequence 0"},
    {.name = "length_past_the_listed_pages_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .axis = 1, .value = 5}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to 4, got 5 in sequence 1"},
    {.name = "length_past_the_columns_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_MASK, .axis = 1, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.lengths: expected 0 to 4, got 5 in sequence 0"},
    {.name = "starts_past_the_columns_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_WEIGHTS, .axis = 3, .value = 4},
                {.fault = REFUSAL_NO_TENSOR, .tensor = KV_LENGTHS}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.starts: expected at most S=4 keys (the columns of mask, bias and weights), got 5 "
             "in sequence 0"},
    {.name = "page_starts_past_the_columns_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_LENGTH, KV_BIAS, .axis = 1, .value = 5},
                {.fault = REFUSAL_NO_TENSOR, .tensor = KV_LENGTHS}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.page_starts: expected at most S=5 keys (the columns of mask, bias and weights), "
             "got 6 in sequence 0"},
};

#define STARTS_AT(tensor, text, with_kind, ragged, at, number, expected)                           \
    {                                                                                              \
        .name = text "_" #number "_at_" #at "_is_refused", .kind = with_kind, .is_ragged = ragged, \
        .spoils = {{REFUSAL_ELEMENT, tensor, .axis = at, .value = number}}, .call_only = true,     \
        .status = ATTN_ERROR_VALUE,                                                                \
        .line = text ": expected " expected ", got " #number " at element " #at                    \
    }

static const kv_refusal wrong_starts[] = {
    STARTS_AT(KV_STARTS, "kv.starts", KV_BEHIND, false, 0, -1, "0 to 12"),
    STARTS_AT(KV_STARTS, "kv.starts", KV_BEHIND, false, 0, 13, "0 to 12"),
    STARTS_AT(KV_STARTS, "kv.starts", KV_BEHIND, false, 1, 0, "1 (the element before it) to 12"),
    STARTS_AT(KV_STARTS, "kv.starts", KV_BEHIND, false, 2, 5, "6 (the element before it) to 12"),
    STARTS_AT(KV_STARTS, "kv.starts", KV_BEHIND, true, 2, 13, "6 (the element before it) to 12"),
    STARTS_AT(KV_PAGE_STARTS, "kv.page_starts", KV_LISTED, false, 0, -1, "0 to 5"),
    STARTS_AT(KV_PAGE_STARTS, "kv.page_starts", KV_LISTED, true, 2, 6,
              "3 (the element before it) to 5"),
    STARTS_AT(KV_PAGE_STARTS, "kv.page_starts", KV_LISTED, false, 2, 2,
              "3 (the element before it) to 5"),
    STARTS_AT(KV_QUERY_STARTS, "query_starts", KV_CACHES, true, 0, -1, "0 to 6"),
    STARTS_AT(KV_QUERY_STARTS, "query_starts", KV_PAGED, true, 2, 2,
              "3 (the element before it) to 6"),
    STARTS_AT(KV_QUERY_STARTS, "query_starts", KV_BEHIND, true, 2, 7,
              "3 (the element before it) to 6"),
};

static const kv_refusal wrong_pages[] = {
    {.name = "page_negative_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_ELEMENT, KV_PAGE_TABLE, .axis = 0, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.page_table: expected the number of one of 7 pages, got -1 at entry 0 of sequence "
             "0"},
    {.name = "page_past_the_last_is_refused",
     .kind = KV_PAGED,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, KV_PAGE_TABLE, .axis = 4, .value = 7}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line =
         "kv.page_table: expected the number of one of 7 pages, got 7 at entry 1 of sequence 1"},
    {.name = "listed_page_past_the_last_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_ELEMENT, KV_PAGE_TABLE, .axis = 4, .value = INT64_MAX}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "kv.page_table: expected the number of one of 7 pages, got 9223372036854775807 at "
             "entry 1 of sequence 1"},
    {.name = "page_where_there_is_none_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 0, .value = 0},
                {REFUSAL_LENGTH, KV_VALUE, .axis = 0, .value = 0}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line =
         "kv.page_table: expected the number of one of 0 pages, got 4 at entry 0 of sequence 0"},
};

#define OUTPUT_ON(tensor, text, with_kind, ragged)                                               \
    {                                                                                            \
        .name = "output_on_" text "_is_refused", .kind = with_kind, .is_ragged = ragged,         \
        .spoils = {{REFUSAL_MEMORY, KV_OUTPUT, .other = tensor, .value = 4}}, .call_only = true, \
        .status = ATTN_ERROR_OVERLAP,                                                            \
        .line = "output: expected memory of its own, got memory that overlaps " text             \
    }

static const kv_refusal overlaps[] = {
    OUTPUT_ON(KV_KEY, "kv.key", KV_CACHES, false),
    OUTPUT_ON(KV_VALUE, "kv.value", KV_PAGED, false),
    OUTPUT_ON(KV_LENGTHS, "kv.lengths", KV_CACHES, false),
    OUTPUT_ON(KV_PAGE_TABLE, "kv.page_table", KV_PAGED, false),
    OUTPUT_ON(KV_PAGE_STARTS, "kv.page_starts", KV_LISTED, false),
    OUTPUT_ON(KV_STARTS, "kv.starts", KV_BEHIND, false),
    OUTPUT_ON(KV_QUERY_STARTS, "query_starts", KV_CACHES, true),
};

static const kv_refusal accepted[] = {
    {.name = "caches_are_accepted"},
    {.name = "sequences_one_behind_the_other_are_accepted", .kind = KV_BEHIND},
    {.name = "pages_are_accepted", .kind = KV_PAGED},
    {.name = "listed_pages_are_accepted", .kind = KV_LISTED},
    {.name = "ragged_queries_are_accepted", .is_ragged = true},
    {.name = "ragged_queries_and_keys_are_accepted", .kind = KV_BEHIND, .is_ragged = true},
    {.name = "ragged_queries_of_pages_are_accepted", .kind = KV_PAGED, .is_ragged = true},
    {.name = "ragged_queries_of_listed_pages_are_accepted", .kind = KV_LISTED, .is_ragged = true},
    {.name = "ragged_lse_and_weights_are_accepted",
     .is_ragged = true,
     .links = {KV_LSE, KV_WEIGHTS}},
    {.name = "ragged_mask_and_bias_are_accepted",
     .kind = KV_BEHIND,
     .is_ragged = true,
     .links = {KV_MASK, KV_BIAS}},
    {.name = "ragged_averaged_weights_are_accepted",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_WEIGHTS, .value = 2}}},
    {.name = "mask_of_one_column_says_nothing_of_columns",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_MASK, .axis = 1, .value = 1}}},
    {.name = "ragged_queries_without_sequences_are_accepted",
     .kind = KV_BEHIND,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, KV_QUERY_STARTS, .axis = 1, .value = 0},
                {REFUSAL_ELEMENT, KV_QUERY_STARTS, .axis = 2, .value = 0}}},
    {.name = "starts_without_lengths_are_accepted",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_ELEMENT, KV_LENGTHS, .axis = 1, .value = 5},
                {.fault = REFUSAL_NO_TENSOR, .tensor = KV_LENGTHS}}},
    {.name = "page_that_no_row_sees_may_be_wild",
     .kind = KV_PAGED,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, KV_QUERY_STARTS, .axis = 2, .value = 3},
                {REFUSAL_ELEMENT, KV_PAGE_TABLE, .axis = 3, .value = INT64_MIN}}},
};

/* Nothing that needs a row's keys is written, so that pages are not looked at. */
static void pages_of_outputs_without_elements_are_not_looked_at(void **state) {
    (void)state;
    kv_fixture fixture;
    kv_fixture_prepare(&fixture, NULL, KV_PAGED, false);
    fixture.memory.page_table[0] = -1;
    fixture.views[KV_VALUE].shape[3] = 0;
    fixture.views[KV_OUTPUT].shape[3] = 0;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    kv_fixture_prepare(&fixture, NULL, KV_PAGED, false);
    fixture.memory.page_table[0] = -1;
    fixture.views[KV_QUERY].shape[2] = 0;
    fixture.views[KV_OUTPUT].shape[2] = 0;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

/* Columns that no row has, of a mask that repeats one element: a row of scores would be longer than
 * memory. */
static void columns_beyond_memory_are_refused(void **state) {
    (void)state;
    static const int32_t engines[] = {ATTN_ENGINE_FUSED, ATTN_ENGINE_BLAS};
    for (int engine = 0; engine < 2; ++engine) {
        kv_fixture fixture;
        attn_context *context = NULL;
        const attn_context_config config = {.struct_size = sizeof config,
                                            .engine = engines[engine]};
        refusal_assert_ok("attn_context_create", attn_context_create(&config, &context));
        kv_fixture_prepare(&fixture, context, KV_BEHIND, false);
        unsigned char shown = 1;
        const int64_t columns = INT64_C(1) << 62, stride = 0;
        refusal_assert_ok("attn_tensor_init_strided",
                          attn_tensor_init_strided(&fixture.views[KV_MASK], &shown, ATTN_DTYPE_BOOL,
                                                   1, &columns, &stride));
        fixture.arguments[KV_MASK] = &fixture.views[KV_MASK];
        refusal_assert("attn_sdpa", kv_fixture_run(&fixture), ATTN_ERROR_OVERFLOW,
                       "kv.key: a row of scores of S=4611686018427387904 keys exceeds 2^63 bytes");
        refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
        attn_context_destroy(context);
    }
}

/* Sequences that are one start repeated have no rows: nobody counts them. */
static void starts_that_repeat_are_looked_at_once(void **state) {
    (void)state;
    kv_fixture fixture;
    kv_fixture_prepare(&fixture, NULL, KV_BEHIND, true);
    int64_t start = 1;
    const int64_t length = (INT64_C(1) << 40) + 1, stride = 0;
    attn_tensor starts;
    refusal_assert_ok(
        "attn_tensor_init_strided",
        attn_tensor_init_strided(&starts, &start, ATTN_DTYPE_INT64, 1, &length, &stride));
    fixture.views[KV_STARTS] = starts;
    fixture.views[KV_QUERY_STARTS] = starts;
    fixture.arguments[KV_LENGTHS] = NULL;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

/* Scores before the mask are of all keys in use, those of a call without columns of value too. */
static void pages_of_scores_are_looked_at(void **state) {
    (void)state;
    static kv_fixture fixture;
    static float memory[KV_N * KV_H * KV_L * KV_C];
    const int64_t shape[] = {KV_N, KV_H, KV_L, KV_C};
    const attn_tensor scores = refusal_view(memory, ATTN_DTYPE_FLOAT32, 4, shape);
    for (int32_t stage = ATTN_SCORE_SCALED; stage <= ATTN_SCORE_MASKED; ++stage) {
        kv_fixture_prepare(&fixture, NULL, KV_PAGED, false);
        fixture.views[KV_VALUE].shape[3] = 0;
        fixture.views[KV_OUTPUT].shape[3] = 0;
        fixture.options.scores = &scores;
        fixture.options.scores_stage = stage;
        refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
        fixture.memory.page_table[0] = KV_PAGES;
        refusal_assert("attn_sdpa", kv_fixture_run(&fixture), ATTN_ERROR_VALUE,
                       "kv.page_table: expected the number of one of 7 pages, got 7 at entry 0 of "
                       "sequence 0");
    }
}

/* Of one sequence, whose table is its list of pages; then of the other. */
static void page_table_without_batch_axes_is_accepted(void **state) {
    (void)state;
    static const refusal_spoil spoils[] = {{REFUSAL_RANK, KV_QUERY, .value = 3},
                                           {REFUSAL_RANK, KV_OUTPUT, .value = 3},
                                           {REFUSAL_RANK, KV_PAGE_TABLE, .value = 1},
                                           {REFUSAL_RANK, KV_LENGTHS, .value = 0}};
    kv_fixture fixture;
    kv_memory *memory = &fixture.memory;
    kv_fixture_prepare(&fixture, NULL, KV_PAGED, false);
    for (int i = 0; i < 4; ++i) {
        refusal_spoil_view(fixture.views, &spoils[i]);
    }
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    fixture.views[KV_QUERY].data = memory->query + KV_H * KV_L * KV_E;
    fixture.views[KV_OUTPUT].data = memory->output + KV_H * KV_L * KV_EV;
    fixture.views[KV_PAGE_TABLE].data = memory->page_table + KV_M;
    fixture.views[KV_LENGTHS].data = memory->lengths + 1;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    kv_fixture_assert_values(&fixture);
}

/* The option is not looked at, so that it need not be a tensor yet. */
static void describing_outputs_asks_weights_for_no_columns(void **state) {
    (void)state;
    kv_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    kv_fixture_prepare(&fixture, NULL, KV_BEHIND, false);
    fixture.views[KV_WEIGHTS].shape[3] = 99;
    fixture.arguments[KV_WEIGHTS] = &fixture.views[KV_WEIGHTS];
    refusal_assert_ok("attn_sdpa_describe_outputs",
                      kv_fixture_describe_outputs(&fixture, &outputs));
    assert_int_equal(outputs.weights.shape[3], KV_TOTAL);
}

int main(void) {
    static refusal_suite suite;
#define ADD(table) kv_refusal_add(&suite, table, sizeof table / sizeof table[0])
    ADD(wrong_lengths);
    ADD(wrong_starts);
    ADD(wrong_pages);
    ADD(overlaps);
    ADD(accepted);
#undef ADD
    refusal_suite_add(&suite, "pages_of_outputs_without_elements_are_not_looked_at",
                      pages_of_outputs_without_elements_are_not_looked_at, NULL);
    refusal_suite_add(&suite, "columns_beyond_memory_are_refused",
                      columns_beyond_memory_are_refused, NULL);
    refusal_suite_add(&suite, "starts_that_repeat_are_looked_at_once",
                      starts_that_repeat_are_looked_at_once, NULL);
    refusal_suite_add(&suite, "pages_of_scores_are_looked_at", pages_of_scores_are_looked_at, NULL);
    refusal_suite_add(&suite, "page_table_without_batch_axes_is_accepted",
                      page_table_without_batch_axes_is_accepted, NULL);
    refusal_suite_add(&suite, "describing_outputs_asks_weights_for_no_columns",
                      describing_outputs_asks_weights_for_no_columns, NULL);
    return kv_refusal_main(&suite, "numbers of kv");
}
