/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_cache.c: what attn_mha_forward and its queries say of a cache that is wrong, or
 * of new rows that do not go into it.
 */
#include <stdio.h>
#include <string.h>

#include "mha_refusal.h"

static const mha_refusal wrong_tensors[] = {
    {.name = "cache_size_below_first_release_is_refused",
     .cache = MHA_CACHE_OWN,
     .cache_size = 55,
     .status = ATTN_ERROR_VALUE,
     .line = "cache: expected struct_size 56 (sizeof the struct) or more, got 55"},
    {.name = "cache_key_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = MHA_KV_KEY}},
     .status = ATTN_ERROR_NULL,
     .line = "cache.key: expected a tensor, got NULL"},
    {.name = "cache_value_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = MHA_KV_VALUE}},
     .status = ATTN_ERROR_NULL,
     .line = "cache.value: expected a tensor, got NULL"},
    {.name = "cache_key_data_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_DATA, .tensor = MHA_KV_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "cache.key: expected data for shape (2, 2, 6, 4), got NULL"},
    {.name = "cache_key_of_indices_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_DTYPE, MHA_KV_KEY, .value = ATTN_DTYPE_INT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "cache.key: expected ..."},
    {.name = "cache_key_float64_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_DTYPE, MHA_KV_KEY, .value = ATTN_DTYPE_FLOAT64},
                {REFUSAL_LENGTH, MHA_KV_KEY, .axis = 0, .value = 2}},
     .status = ATTN_ERROR_DTYPE,
     .line = "cache.key: expected ..."},
    {.name = "cache_key_of_rank_3_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_RANK, MHA_KV_KEY, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected rank 4, got 3"},
    {.name = "cache_with_a_batch_axis_unbatched_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_RANK, MHA_QUERY, .value = 2},
                {REFUSAL_RANK, MHA_KEY, .value = 2},
                {REFUSAL_RANK, MHA_VALUE, .value = 2},
                {REFUSAL_RANK, MHA_OUTPUT, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected rank 3, got 4"},
    {.name = "cache_key_of_other_heads_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_KEY, .axis = 1, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected num_kv_heads=2 heads of head_dim=4 values, got (2, 1, 6, 4)"},
    {.name = "cache_value_of_other_features_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_VALUE, .axis = 3, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.value: expected num_kv_heads=2 heads of value_head_dim=4 values, got (2, 2, 6, "
             "3)"},
    {.name = "cache_key_of_other_sequences_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_KEY, .axis = 0, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected N=2 sequences, got (1, 2, 6, 4)"},
    {.name = "cache_value_of_other_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_VALUE, .axis = 2, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.value: expected shape (2, H=2, C=6, E=4), got (2, 2, 5, 4)"},
    {.name = "cache_key_that_overlaps_itself_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_STRIDE, MHA_KV_KEY, .axis = 0, .value = 0}},
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.key: expected ..."},
    {.name = "cache_scale_beside_float32_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_KV_KEY_SCALE},
     .status = ATTN_ERROR_VALUE,
     .line = "cache.key_scale: expected NULL ..."},
    {.name = "cache_zero_of_each_row_beside_a_scale_that_is_read_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_KV_KEY_SCALE},
     .spoils = {{REFUSAL_DTYPE, MHA_KV_KEY, .value = ATTN_DTYPE_INT8},
                {REFUSAL_LENGTH, MHA_KV_KEY_ZERO, .axis = 2, .value = MHA_C}},
     .status = ATTN_ERROR_VALUE,
     .line = "cache.key_zero: expected fewer rows than are stored, since cache.key_scale is read, "
             "not written"},
};

static const mha_refusal wrong_places[] = {
    {.name = "cache_lengths_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = MHA_KV_LENGTHS}},
     .status = ATTN_ERROR_NULL,
     .line = "cache.lengths: expected the rows in use of each sequence, got NULL"},
    {.name = "cache_lengths_data_null_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_DATA, .tensor = MHA_KV_LENGTHS}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "cache.lengths: expected data for shape (2), got NULL"},
    {.name = "cache_lengths_of_numbers_are_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_DTYPE, MHA_KV_LENGTHS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "cache.lengths: expected ..."},
    {.name = "cache_lengths_of_other_sequences_are_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_LENGTHS, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.lengths: expected ..."},
    {.name = "cache_length_below_new_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 1, .value = MHA_S - 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 4 new rows and more, which they count, got 3 of sequence 1"},
    {.name = "cache_length_past_the_room_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 1, .value = MHA_C + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 0 to S=6, got 7 at element 1"},
    {.name = "cache_length_past_the_room_between_starts_is_refused",
     .cache = MHA_CACHE_STARTS,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 0, .value = MHA_C + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 0 to 6, got 7 in sequence 0"},
    {.name = "cache_length_beside_rope_below_zero_is_refused",
     .cache = MHA_CACHE_OWN,
     .is_rotated = true,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 0, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 0 ..."},
    {.name = "cache_page_table_of_other_sequences_is_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_PAGE_TABLE, .axis = 0, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.page_table: expected N=2 sequences, got (1, 3)"},
    {.name = "cache_page_table_without_batch_axis_is_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_RANK, MHA_KV_PAGE_TABLE, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.page_table: expected one batch axis, as query has, got 0 batch axes"},
    {.name = "cache_page_table_with_batch_axis_unbatched_is_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_RANK, MHA_QUERY, .value = 2},
                {REFUSAL_RANK, MHA_KEY, .value = 2},
                {REFUSAL_RANK, MHA_VALUE, .value = 2},
                {REFUSAL_RANK, MHA_OUTPUT, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.page_table: expected no batch axis, as query has none, got 1 batch axes"},
    {.name = "cache_page_that_is_none_is_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_PAGE_TABLE, .axis = 4, .value = MHA_PAGES}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line =
         "cache.page_table: expected the number of one of 6 pages, got 6 at entry 1 of sequence "
         "1"},
    {.name = "cache_pages_without_rows_are_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_KEY, .axis = 2, .value = 0},
                {REFUSAL_LENGTH, MHA_KV_VALUE, .axis = 2, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.key: expected pages of 1 row or more, got 0"},
    {.name = "cache_pages_of_other_rows_are_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_VALUE, .axis = 2, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.value: expected shape (pages=6, Hv, page=2, Ev) with as many pages and rows as "
             "cache.key, got (6, 2, 1, 4)"},
    {.name = "cache_starts_beside_page_table_are_refused",
     .cache = MHA_CACHE_PAGES,
     .links = {MHA_KV_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "cache.starts: expected NULL beside cache.page_table"},
    {.name = "cache_page_starts_without_page_table_are_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_KV_PAGE_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "cache.page_starts: expected NULL without cache.page_table"},
    {.name = "cache_starts_of_other_sequences_are_refused",
     .cache = MHA_CACHE_STARTS,
     .spoils = {{REFUSAL_LENGTH, MHA_KV_STARTS, .axis = 0, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.starts: expected shape (B + 1 = 3), got (2)"},
    {.name = "cache_starts_past_the_rows_are_refused",
     .cache = MHA_CACHE_STARTS,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_STARTS, .axis = 2, .value = 13}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.starts: expected 6 (the element before it) to 12, got 13 at element 2"},
    {.name = "cache_page_starts_that_descend_are_refused",
     .cache = MHA_CACHE_FLAT_PAGES,
     .spoils = {{REFUSAL_ELEMENT, MHA_KV_PAGE_STARTS, .axis = 1, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.page_starts: expected 0 (the element before it) to 6, got -1 at element 1"},
};

static const mha_refusal wrong_beside_it[] = {
    {.name = "key_alone_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = MHA_VALUE}},
     .status = ATTN_ERROR_NULL,
     .line = "value: expected a tensor, got NULL"},
    {.name = "value_alone_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_NO_TENSOR, .tensor = MHA_KEY}},
     .status = ATTN_ERROR_NULL,
     .line = "key: expected a tensor, got NULL"},
    {.name = "attention_key_lengths_beside_cache_are_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ATTENTION_LENGTHS},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.key_lengths: expected NULL beside cache, which has its own"},
    {.name = "attention_align_end_of_two_is_refused",
     .cache = MHA_CACHE_OWN,
     .attention = {.align_end = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "attention.align_end: expected 0 or 1, got 2"},
    {.name = "attention_offset_beside_align_end_is_refused",
     .cache = MHA_CACHE_OWN,
     .attention = {.align_end = 1},
     .links = {MHA_ATTENTION_OFFSET},
     .status = ATTN_ERROR_VALUE,
     .line = "attention.query_offset: expected NULL beside align_end, which sets it"},
    {.name = "key_padding_mask_of_new_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .params = {.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE},
     .links = {MHA_KEY_PADDING_MASK},
     .status = ATTN_ERROR_SHAPE,
     .line = "key_padding_mask: expected shape (N=2, S=6), got (2, 4)"},
    {.name = "attention_mask_of_new_rows_is_refused",
     .cache = MHA_CACHE_OWN,
     .attention = {.mask_kind = ATTN_MASK_ADDITIVE},
     .links = {MHA_ATTENTION_MASK},
     .status = ATTN_ERROR_SHAPE,
     .line = "attention.mask: expected shape (L=3, S=6), got (3, 4)"},
};

static const mha_refusal overlaps[] = {
    {.name = "cache_key_on_output_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_MEMORY, MHA_KV_KEY, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.key: expected memory of its own, got memory that overlaps output"},
    {.name = "cache_value_on_query_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_MEMORY, MHA_KV_VALUE, .other = MHA_QUERY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.value: expected memory of its own, got memory that overlaps query"},
    {.name = "cache_value_on_cache_key_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_MEMORY, MHA_KV_VALUE, .other = MHA_KV_KEY, .value = 4}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.value: expected memory of its own, got memory that overlaps cache.key"},
    {.name = "cache_key_on_rope_positions_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_MEMORY, MHA_ROPE_POSITIONS, .other = MHA_KV_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.key: expected memory of its own, got memory that overlaps rope.positions"},
    {.name = "cache_key_on_out_weight_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_MEMORY, MHA_KV_KEY, .other = MHA_OUT_WEIGHT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "cache.key: expected memory of its own, got memory that overlaps out_proj.weight"},
};

/* Calls that only read the cache: its errors are found by the attention inside. */
#define READS_ONLY                             \
    {REFUSAL_NO_TENSOR, .tensor = MHA_KEY}, {  \
        REFUSAL_NO_TENSOR, .tensor = MHA_VALUE \
    }

static const mha_refusal wrong_where_it_is_read[] = {
    {.name = "cache_length_past_the_room_that_is_read_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {READS_ONLY, {REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 1, .value = MHA_C + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 0 to S=6, got 7 at element 1"},
    {.name = "cache_lengths_of_numbers_that_are_read_are_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {READS_ONLY, {REFUSAL_DTYPE, MHA_KV_LENGTHS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "cache.lengths: expected ..."},
    {.name = "cache_length_of_pages_that_is_read_is_refused",
     .cache = MHA_CACHE_FLAT_PAGES,
     .spoils = {READS_ONLY, {REFUSAL_ELEMENT, MHA_KV_LENGTHS, .axis = 0, .value = MHA_C + 1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.lengths: expected 0 to 6, got 7 in sequence 0"},
    {.name = "cache_page_that_is_read_and_none_is_refused",
     .cache = MHA_CACHE_PAGES,
     .spoils = {READS_ONLY, {REFUSAL_ELEMENT, MHA_KV_PAGE_TABLE, .axis = 1, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "cache.page_table: expected the number of one of 6 pages, got -1 at entry 1 of "
             "sequence 0"},
    {.name = "cache_value_of_other_rows_that_is_read_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {READS_ONLY, {REFUSAL_LENGTH, MHA_KV_VALUE, .axis = 2, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "cache.value: expected shape ..."},
    {.name = "cache_key_float64_that_is_read_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {READS_ONLY, {REFUSAL_DTYPE, MHA_KV_KEY, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "cache.key: expected ..."},
};

static const mha_refusal accepted[] = {
    {.name = "cache_of_each_sequence_is_accepted", .cache = MHA_CACHE_OWN},
    {.name = "cache_in_pages_is_accepted", .cache = MHA_CACHE_PAGES},
    {.name = "cache_in_flat_pages_is_accepted", .cache = MHA_CACHE_FLAT_PAGES},
    {.name = "cache_between_starts_is_accepted", .cache = MHA_CACHE_STARTS},
    {.name = "cache_of_first_release_is_accepted", .cache = MHA_CACHE_OWN, .cache_size = 56},
    {.name = "cache_beside_positions_zero_is_accepted",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ROPE_POSITIONS}},
};

/* A padding mask with a column for each row of the longest sequence says what S is. */
static void key_padding_mask_tells_columns_of_ragged_caches(void **state) {
    (void)state;
    mha_fixture fixture;
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    mha_fixture_cache(&fixture, MHA_CACHE_STARTS);
    mha_fixture_link(&fixture, MHA_KEY_PADDING_MASK);
    fixture.options.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
    refusal_assert_ok("attn_mha_describe_outputs",
                      mha_fixture_describe_outputs(&fixture, &outputs));
    assert_int_equal(outputs.weights.shape[3], MHA_S);
}

/* The cache is read alone then, by all sequences; the layer needs no weights of keys and values. */
static void layer_without_key_parameters_reads_a_shared_cache(void **state) {
    (void)state;
    static const char *const read[] = {"q_proj_weight", "q_proj_bias", "out_proj.weight",
                                       "out_proj.bias"};
    mha_layer alone;
    mha_fixture fixture;
    const attn_mha_config config = mha_fixture_config();
    mha_parameters_fill(&alone.parameters);
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &alone.layer));
    for (int i = 0; i < 4; ++i) {
        attn_tensor values =
            mha_parameters_view(&alone.parameters, i == 1 ? "out_proj.bias" : read[i]);
        refusal_assert_ok("attn_mha_load_parameter",
                          attn_mha_load_parameter(NULL, alone.layer, read[i], &values, NULL));
    }
    mha_fixture_prepare(&fixture, mha_refusal_context, &alone);
    mha_fixture_cache(&fixture, MHA_CACHE_OWN);
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_PARAMETER,
                   "k_proj_weight: expected a parameter that has been loaded or bound, got none");
    refusal_assert_untouched("cache", fixture.memory.cached, sizeof fixture.memory.cached);
    memset(fixture.memory.cached, 0, sizeof fixture.memory.cached);
    fixture.arguments[MHA_KEY] = fixture.arguments[MHA_VALUE] = NULL;
    fixture.views[MHA_KV_KEY].shape[0] = fixture.views[MHA_KV_VALUE].shape[0] = 1;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    double expected[MHA_N * MHA_L * MHA_E];
    for (int64_t i = 0; i < MHA_N * MHA_L * MHA_E; ++i) {
        expected[i] = (double)alone.parameters.out_bias[i % MHA_E];
    }
    refusal_assert_close("output", fixture.memory.output, expected, MHA_N * MHA_L * MHA_E);
    fixture.views[MHA_KV_KEY].shape[0] = 3;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_SHAPE,
                   "cache.key: expected N=2 sequences, got (3, 2, 6, 4)");
    attn_mha_destroy(alone.layer);
}

/* Nor the weight of a norm of keys; what queries need is asked for. */
static void layer_without_norm_of_keys_reads_a_cache(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_layer alone;
    attn_mha_config config = mha_fixture_config();
    config.qk_norm = ATTN_QK_NORM_HEAD;
    config.no_bias = 1;
    mha_parameters_fill(&alone.parameters);
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &alone.layer));
    mha_fixture_prepare(&fixture, mha_refusal_context, &alone);
    mha_fixture_cache(&fixture, MHA_CACHE_OWN);
    memset(fixture.memory.cached, 0, sizeof fixture.memory.cached);
    fixture.arguments[MHA_KEY] = fixture.arguments[MHA_VALUE] = NULL;
    const char *const read[] = {"q_proj_weight", "out_proj.weight", "q_norm.weight"};
    for (int i = 0; i < 3; ++i) {
        char line[100];
        snprintf(line, sizeof line,
                 "%s: expected a parameter that has been loaded or bound, got none", read[i]);
        refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_PARAMETER, line);
        attn_tensor values =
            mha_parameters_view(&alone.parameters, i == 2 ? "out_proj.bias" : read[i]);
        values.shape[0] = i == 2 ? MHA_D : values.shape[0];
        refusal_assert_ok("attn_mha_load_parameter",
                          attn_mha_load_parameter(NULL, alone.layer, read[i], &values, NULL));
    }
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    attn_mha_destroy(alone.layer);
}

/* One page table for all, too, where nothing is stored. */
static void shared_page_table_is_read(void **state) {
    (void)state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    mha_fixture_cache(&fixture, MHA_CACHE_PAGES);
    memset(fixture.memory.cached, 0, sizeof fixture.memory.cached);
    fixture.arguments[MHA_KEY] = fixture.arguments[MHA_VALUE] = NULL;
    fixture.views[MHA_KV_PAGE_TABLE].shape[0] = 1;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    fixture.views[MHA_KV_PAGE_TABLE].shape[0] = 3;
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), ATTN_ERROR_SHAPE,
                   "cache.page_table: expected N=2 sequences, got (3, 3)");
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(key_padding_mask_tells_columns_of_ragged_caches),
    cmocka_unit_test(layer_without_key_parameters_reads_a_shared_cache),
    cmocka_unit_test(layer_without_norm_of_keys_reads_a_cache),
    cmocka_unit_test(shared_page_table_is_read),
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

int main(void) {
    static refusal_suite suite;
    mha_refusal_add(&suite, wrong_tensors, COUNT(wrong_tensors));
    mha_refusal_add(&suite, wrong_places, COUNT(wrong_places));
    mha_refusal_add(&suite, wrong_beside_it, COUNT(wrong_beside_it));
    mha_refusal_add(&suite, overlaps, COUNT(overlaps));
    mha_refusal_add(&suite, wrong_where_it_is_read, COUNT(wrong_where_it_is_read));
    mha_refusal_add(&suite, accepted, COUNT(accepted));
    for (size_t i = 0; i < COUNT(single_tests); ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return mha_refusal_main(&suite, "errors of multi-head attention's cache");
}
