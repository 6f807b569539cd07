/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_ragged.c: what attn_mha_forward and its queries say of rows of sequences of
 * different lengths.
 */
#include "mha_refusal.h"

static const mha_refusal wrong_starts[] = {
    {.name = "starts_data_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_NO_DATA, .tensor = MHA_QUERY_STARTS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "attention.query_starts: expected data for shape (3), got NULL"},
    {.name = "starts_of_numbers_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_DTYPE, MHA_QUERY_STARTS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "attention.query_starts: expected ..."},
    {.name = "starts_of_rank_2_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, MHA_QUERY_STARTS, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.query_starts: expected rank 1, got 2"},
    {.name = "starts_without_elements_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_QUERY_STARTS, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.query_starts: expected shape (B + 1), got (0)"},
    {.name = "starts_that_descend_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, MHA_QUERY_STARTS, .axis = 1, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "attention.query_starts: expected 0 (the element before it) to 6, got -1 at element "
             "1"},
    {.name = "starts_past_the_rows_are_refused",
     .cache = MHA_CACHE_PAGES,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, MHA_QUERY_STARTS, .axis = 2, .value = 7}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "attention.query_starts: expected 3 (the element before it) to 6, got 7 at element "
             "2"},
    {.name = "starts_on_output_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_MEMORY, MHA_OUTPUT, .other = MHA_QUERY_STARTS}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps attention.query_starts"},
};

static const mha_refusal wrong_rows[] = {
    {.name = "query_with_a_batch_axis_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, MHA_QUERY, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "query: expected rank 2, got 3"},
    {.name = "key_of_other_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_KEY, .axis = 0, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "key: expected shape (L=6, kdim=6), got (5, 6)"},
    {.name = "output_of_other_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_OUTPUT, .axis = 0, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (L=6, embed_dim=8), got (5, 8)"},
    {.name = "mask_of_one_sequence_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .attention = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {MHA_ATTENTION_MASK},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.mask: expected shape (L=6, S=6), got (3, 4)"},
    {.name = "key_padding_mask_of_other_columns_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .params = {.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .links = {MHA_KEY_PADDING_MASK},
     .status = ATTN_ERROR_SHAPE,
     .line = "key_padding_mask: expected shape (B=2, S=6), got (2, 4)"},
};

static const mha_refusal wrong_caches[] = {
    {.name = "cache_of_other_sequences_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_KEY, .axis = 0, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected B=2 sequences, got (1, 2, 6, 4)"},
    {.name = "cache_without_sequences_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, MHA_KV_KEY, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected rank 4, got 3"},
    {.name = "page_table_of_other_sequences_is_refused",
     .cache = MHA_CACHE_PAGES,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_PAGE_TABLE, .axis = 0, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.page_table: expected B=2 sequences, got (1, 3)"},
    {.name = "page_table_without_batch_axis_is_refused",
     .cache = MHA_CACHE_PAGES,
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, MHA_KV_PAGE_TABLE, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line =
         "cache.page_table: expected one batch axis, as attention.query_starts has, got 0 batch "
         "axes"},
    {.name = "cache_starts_of_other_sequences_are_refused",
     .cache = MHA_CACHE_STARTS,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_STARTS, .axis = 0, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.starts: expected shape (B + 1 = 3), got (2)"},
    {.name = "cache_length_below_new_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 1, .value = MHA_L - 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 3 new rows and more, which they count, got 2 of sequence 1"},
    {.name = "cache_lengths_of_other_sequences_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_LENGTHS, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.lengths: expected ..."},
};

static const mha_refusal wrong_positions[] = {
    {.name = "rope_lengths_data_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_NO_DATA, .tensor = MHA_ROPE_LENGTHS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "rope.lengths: expected data for shape (2), got NULL"},
    {.name = "rope_lengths_of_numbers_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_DTYPE, MHA_ROPE_LENGTHS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "rope.lengths: expected ..."},
    {.name = "rope_lengths_of_other_sequences_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, MHA_ROPE_LENGTHS, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.lengths: expected a shape that broadcasts to ..."},
    {.name = "rope_length_below_zero_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_LENGTHS, .axis = 0, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected 0 ..."},
    {.name = "rope_length_below_the_rows_beside_tables_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_LENGTHS, .axis = 1, .value = MHA_L - 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected 3 to 9, got 2 in sequence 1"},
    {.name = "rope_length_past_tables_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_LENGTHS, .axis = 0, .value = MHA_POSITIONS + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected 3 to 9, got 10 in sequence 0"},
    {.name = "rope_positions_of_each_sequence_are_refused",
     .cache = MHA_CACHE_OWN,
     .is_ragged = true,
     .links = {MHA_ROPE_POSITIONS},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.positions: expected ..."},
};

/* Where every row is of no sequence there is no key either, and the output is the bias. */
static void rows_of_no_sequence_give_the_bias(void **state) {
    (void)state;
    mha_fixture fixture;
    double expected[MHA_N * MHA_L * MHA_E];
    for (int64_t i = 0; i < MHA_N * MHA_L * MHA_E; ++i) {
        expected[i] = (double)mha_refusal_layer.parameters.out_bias[i % MHA_E];
    }
    for (int64_t sequences = 0; sequences <= MHA_N; sequences += MHA_N) {
        mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
        mha_fixture_cache(&fixture, MHA_CACHE_OWN);
        mha_fixture_ragged(&fixture);
        fixture.options.rope = &fixture.rope;
        fixture.views[MHA_QUERY_STARTS].shape[0] = sequences + 1;
        for (int i = 0; i <= MHA_N; ++i) {
            fixture.memory.query_starts[i] = MHA_L;
        }
        fixture.views[MHA_KV_KEY].shape[0] = fixture.views[MHA_KV_VALUE].shape[0] = sequences;
        fixture.views[MHA_KV_LENGTHS].shape[0] = sequences;
        refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
        refusal_assert_close("output", fixture.memory.output, expected, MHA_N * MHA_L * MHA_E);
        refusal_assert_untouched("cache", fixture.memory.cached, sizeof fixture.memory.cached);
    }
}

#define ADD(TABLE) mha_refusal_add(&suite, TABLE, sizeof(TABLE) / sizeof(TABLE)[0])

int main(void) {
    static refusal_suite suite;
    ADD(wrong_starts);
    ADD(wrong_rows);
    ADD(wrong_caches);
    ADD(wrong_positions);
    refusal_suite_add(&suite, "rows_of_no_sequence_give_the_bias",
                      rows_of_no_sequence_give_the_bias, NULL);
    return mha_refusal_main(&suite, "errors_mha_ragged");
}
