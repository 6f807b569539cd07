/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_blocks.c: what attn_sdpa and its queries say of a mask by blocks.
 */
#include <string.h>

#include "kv_fixture.h"
#include "sdpa_refusal.h"

static const sdpa_refusal wrong_sizes[] = {
    {.name = "block_rows_without_block_mask_are_refused",
     .params = {.block_rows = 64},
     .status = ATTN_ERROR_VALUE,
     .line = "block_rows: expected 0 without a block_mask, got 64"},
    {.name = "block_columns_without_block_mask_are_refused",
     .params = {.block_columns = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "block_columns: expected 0 without a block_mask, got -1"},
    {.name = "block_rows_of_0_are_refused",
     .params = {.block_columns = SDPA_BLOCK_COLUMNS},
     .links = {SDPA_BLOCK_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "block_rows: expected 1 and up with a block_mask, got 0"},
    {.name = "block_columns_negative_are_refused",
     .params = {.block_rows = SDPA_BLOCK_ROWS, .block_columns = INT64_MIN},
     .links = {SDPA_BLOCK_MASK},
     .status = ATTN_ERROR_VALUE,
     .line = "block_columns: expected 1 and up with a block_mask, got -9223372036854775808"},
};

static const sdpa_refusal wrong_views[] = {
    {.name = "block_mask_data_null_is_refused",
     .spoils = {{REFUSAL_NO_DATA, .tensor = SDPA_BLOCK_MASK}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "block_mask: expected data for shape (4, 2, 2), got NULL"},
    {.name = "block_mask_of_bools_is_refused",
     .spoils = {{REFUSAL_DTYPE, SDPA_BLOCK_MASK, .value = ATTN_DTYPE_BOOL}},
     .status = ATTN_ERROR_DTYPE,
     .line = "block_mask: expected dtype uint8, got bool"},
    {.name = "block_mask_rank_0_is_refused",
     .spoils = {{REFUSAL_RANK, SDPA_BLOCK_MASK, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "block_mask: expected rank 1 to 8, got 0"},
    {.name = "block_mask_rows_differ_is_refused",
     .spoils = {{REFUSAL_LENGTH, SDPA_BLOCK_MASK, .axis = 1, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "block_mask: expected a shape that broadcasts to (2, Hq=4, rows of blocks=2, columns "
             "of blocks=2), got (4, 3, 2)"},
    {.name = "block_mask_columns_differ_is_refused",
     .params = {.block_rows = INT64_C(1) << 62, .block_columns = 3},
     .spoils = {{REFUSAL_LENGTH, SDPA_BLOCK_MASK, .axis = 1, .value = 1},
                {REFUSAL_LENGTH, SDPA_BLOCK_MASK, .axis = 2, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "block_mask: expected a shape that broadcasts to (2, Hq=4, rows of blocks=1, columns "
             "of blocks=2), got (4, 1, 3)"},
    {.name = "block_mask_would_add_batches_is_refused",
     .spoils = {{REFUSAL_RANK, SDPA_BLOCK_MASK, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "block_mask: expected a shape that broadcasts to (2, Hq=4, rows of blocks=2, columns "
             "of blocks=2), got (1, 1, 4, 2, 2)"},
    {.name = "block_unknown_is_refused",
     .spoils = {{REFUSAL_BYTE, SDPA_BLOCK_MASK, .axis = 15, .value = 3}},
     .call_only = true,
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "block_mask: expected elements of enum attn_block (0 to 2), got 3"},
    {.name = "block_unknown_among_columns_apart_is_refused",
     .spoils = {{REFUSAL_STRIDE, SDPA_BLOCK_MASK, .axis = 1, .value = 1},
                {REFUSAL_STRIDE, SDPA_BLOCK_MASK, .axis = 2, .value = 2},
                {REFUSAL_BYTE, SDPA_BLOCK_MASK, .axis = 2, .value = 255}},
     .call_only = true,
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "block_mask: expected elements of enum attn_block (0 to 2), got 255"},
};

static const sdpa_refusal accepted[] = {
    {.name = "block_mask_is_accepted", .links = {SDPA_BLOCK_MASK}},
    {.name = "block_mask_that_repeats_is_looked_at_once",
     .spoils = {{REFUSAL_STRIDE, SDPA_BLOCK_MASK, .axis = 0, .value = 0},
                {REFUSAL_BYTE, SDPA_BLOCK_MASK, .axis = 4, .value = 99}}},
    {.name = "block_masked_without_mask_is_visible",
     .spoils = {{REFUSAL_BYTE, SDPA_BLOCK_MASK, .value = ATTN_BLOCK_MASKED}}},
    {.name = "block_mask_of_one_block_larger_than_all_is_accepted",
     .params = {.block_rows = INT64_MAX, .block_columns = INT64_MAX},
     .spoils = {{REFUSAL_RANK, SDPA_BLOCK_MASK, .value = 1},
                {REFUSAL_LENGTH, SDPA_BLOCK_MASK, .axis = 0, .value = 1}}},
};

/* ---- ragged queries: sequences of 3 rows and of 1 ---- */

/* A mask of as many rows of blocks, whose blocks have 2 rows and as many columns as there are. */
static void prepare_ragged(kv_fixture *fixture, attn_tensor *blocks, unsigned char *memory,
                           int64_t rows) {
    const int64_t shape[] = {rows, 1};
    kv_fixture_prepare(fixture, sdpa_refusal_context, KV_CACHES, true);
    *blocks = refusal_view(memory, ATTN_DTYPE_UINT8, 2, shape);
    fixture->options.block_mask = blocks;
    fixture->options.block_rows = 2;
    fixture->options.block_columns = KV_C;
}

static void block_rows_that_end_before_a_sequence_are_refused(void **state) {
    (void)state;
    unsigned char memory[] = {ATTN_BLOCK_VISIBLE, ATTN_BLOCK_MASKED, ATTN_BLOCK_VISIBLE};
    kv_fixture fixture;
    attn_tensor blocks;
    prepare_ragged(&fixture, &blocks, memory, 2);
    fixture.memory.query_starts[1] = 0;
    fixture.memory.query_starts[2] = KV_ROWS;
    refusal_assert("attn_sdpa", kv_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   "block_mask: expected 3 rows of blocks or more for the 6 rows of sequence 1, "
                   "got 2");
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

static void block_rows_none_are_refused(void **state) {
    (void)state;
    unsigned char memory[1];
    size_t bytes;
    kv_fixture fixture;
    attn_tensor blocks;
    prepare_ragged(&fixture, &blocks, memory, 0);
    refusal_assert("attn_sdpa_workspace_bytes", kv_fixture_workspace_bytes(&fixture, &bytes),
                   ATTN_ERROR_SHAPE,
                   "block_mask: expected rows of blocks for those of query, got none");
}

/* Nobody has a row: no blocks are missed. */
static void block_rows_of_no_rows_are_accepted(void **state) {
    (void)state;
    unsigned char memory[1];
    kv_fixture fixture;
    attn_tensor blocks;
    prepare_ragged(&fixture, &blocks, memory, 0);
    memset(fixture.memory.query_starts, 0, sizeof fixture.memory.query_starts);
    fixture.views[KV_QUERY].shape[1] = 0;
    fixture.views[KV_OUTPUT].shape[1] = 0;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    prepare_ragged(&fixture, &blocks, (unsigned char[]){ATTN_BLOCK_VISIBLE, ATTN_BLOCK_VISIBLE}, 2);
    fixture.views[KV_QUERY_STARTS].strides[0] = 0;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    refusal_assert_untouched("output", fixture.memory.output, sizeof fixture.memory.output);
}

static void block_rows_that_reach_every_sequence_are_accepted(void **state) {
    (void)state;
    unsigned char memory[] = {ATTN_BLOCK_VISIBLE, ATTN_BLOCK_MASKED, ATTN_BLOCK_VISIBLE};
    for (int64_t rows = 1; rows <= 3; ++rows) {
        kv_fixture fixture;
        attn_tensor blocks;
        prepare_ragged(&fixture, &blocks, memory, rows);
        refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
        kv_fixture_assert_values(&fixture);
        blocks.rank = 1; /* one row for all */
        blocks.shape[0] = 1;
        refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
        kv_fixture_assert_values(&fixture);
    }
}

/* ---- the columns that a mask by blocks stands for, where sequences share rows of key ---- */

static int64_t described_columns(kv_kind kind, int64_t block_columns, const attn_tensor *blocks) {
    kv_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    kv_fixture_prepare(&fixture, sdpa_refusal_context, kind, false);
    fixture.options.block_mask = blocks;
    fixture.options.block_rows = 1;
    fixture.options.block_columns = block_columns;
    refusal_assert_ok("attn_sdpa_describe_outputs",
                      kv_fixture_describe_outputs(&fixture, &outputs));
    return outputs.weights.shape[3];
}

static void block_columns_say_how_many_keys_there_are(void **state) {
    (void)state;
    unsigned char memory[KV_TOTAL] = {0};
    const int64_t two = 2;
    const int64_t one = 1;
    const attn_tensor blocks = refusal_view(memory, ATTN_DTYPE_UINT8, 1, &two);
    const attn_tensor for_all = refusal_view(memory, ATTN_DTYPE_UINT8, 1, &one);
    assert_int_equal(described_columns(KV_BEHIND, 3, &blocks), 6);
    assert_int_equal(described_columns(KV_BEHIND, KV_TOTAL - 1, &blocks), KV_TOTAL);
    assert_int_equal(described_columns(KV_BEHIND, 3, &for_all), KV_TOTAL);
    assert_int_equal(described_columns(KV_LISTED, 3, &blocks), 6);
    assert_int_equal(described_columns(KV_LISTED, INT64_MAX, &blocks), KV_ENTRIES * KV_PAGE);
}

static attn_status ask(const attn_tensor *blocks, int64_t block_columns) {
    kv_fixture fixture;
    size_t bytes;
    kv_fixture_prepare(&fixture, sdpa_refusal_context, KV_BEHIND, false);
    fixture.options.block_mask = blocks;
    fixture.options.block_rows = 1;
    fixture.options.block_columns = block_columns;
    return kv_fixture_workspace_bytes(&fixture, &bytes);
}

/* What is wrong about it is said, whatever it would stand for. */
static void block_masks_that_are_none_are_refused_beside_starts(void **state) {
    (void)state;
    static const char call[] = "attn_sdpa_workspace_bytes";
    unsigned char memory[2] = {0};
    const int64_t two = 2;
    attn_tensor blocks = refusal_view(memory, ATTN_DTYPE_UINT8, 1, &two);
    refusal_assert(call, ask(&blocks, 0), ATTN_ERROR_VALUE,
                   "block_columns: expected 1 and up with a block_mask, got 0");
    blocks.rank = 0;
    refusal_assert(call, ask(&blocks, 3), ATTN_ERROR_SHAPE,
                   "block_mask: expected rank 1 to 8, got 0");
    blocks.rank = ATTN_MAX_RANK + 1;
    refusal_assert(call, ask(&blocks, 3), ATTN_ERROR_VALUE,
                   "block_mask: expected rank 0 to 8, got 9");
    blocks.rank = 1;
    blocks.shape[0] = -1;
    refusal_assert(call, ask(&blocks, 3), ATTN_ERROR_VALUE,
                   "block_mask: expected lengths of 0 and up, got -1 on axis 0");
}

/* ---- pages that nobody sees ---- */

static void pages_are_looked_at_where_blocks_are_seen(void **state) {
    (void)state;
    unsigned char memory[KV_M] = {ATTN_BLOCK_VISIBLE, ATTN_BLOCK_HIDDEN, ATTN_BLOCK_VISIBLE};
    const int64_t columns = KV_M;
    const attn_tensor blocks = refusal_view(memory, ATTN_DTYPE_UINT8, 1, &columns);
    kv_fixture fixture;
    kv_fixture_prepare(&fixture, sdpa_refusal_context, KV_PAGED, false);
    fixture.options.block_mask = &blocks;
    fixture.options.block_rows = 2;
    fixture.options.block_columns = KV_PAGE;
    fixture.memory.page_table[1] = -5;
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    memory[1] = ATTN_BLOCK_MASKED;
    refusal_assert("attn_sdpa", kv_fixture_run(&fixture), ATTN_ERROR_VALUE,
                   "kv.page_table: expected the number of one of 7 pages, got -5 at entry 1 of "
                   "sequence 0");
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(block_rows_that_end_before_a_sequence_are_refused),
    cmocka_unit_test(block_rows_none_are_refused),
    cmocka_unit_test(block_rows_of_no_rows_are_accepted),
    cmocka_unit_test(pages_are_looked_at_where_blocks_are_seen),
    cmocka_unit_test(block_rows_that_reach_every_sequence_are_accepted),
    cmocka_unit_test(block_columns_say_how_many_keys_there_are),
    cmocka_unit_test(block_masks_that_are_none_are_refused_beside_starts),
};

int main(void) {
    static refusal_suite suite;
#define ADD(table) sdpa_refusal_add(&suite, table, sizeof table / sizeof table[0])
    ADD(wrong_sizes);
    ADD(wrong_views);
    ADD(accepted);
#undef ADD
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return sdpa_refusal_main(&suite, "errors of masks by blocks");
}
