/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_kv.c: what attn_sdpa and its queries say of keys and values in kv, and of ragged
 * queries, whose tensors are missing, may not stand together, or have the wrong type or shape.
 */
#include "kv_refusal.h"

static const kv_refusal wrong_company[] = {
    {.name = "key_beside_kv_is_refused",
     .links = {KV_PLAIN_KEY},
     .status = ATTN_ERROR_VALUE,
     .line = "key: expected NULL beside kv, which has its own"},
    {.name = "value_beside_kv_is_refused",
     .links = {KV_PLAIN_VALUE},
     .status = ATTN_ERROR_VALUE,
     .line = "value: expected NULL beside kv, which has its own"},
    {.name = "key_lengths_beside_kv_is_refused",
     .links = {KV_KEY_LENGTHS},
     .status = ATTN_ERROR_VALUE,
     .line = "key_lengths: expected NULL beside kv, which has its own"},
    {.name = "starts_beside_page_table_is_refused",
     .kind = KV_PAGED,
     .links = {KV_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.starts: expected NULL beside kv.page_table"},
    {.name = "page_starts_without_page_table_is_refused",
     .links = {KV_PAGE_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.page_starts: expected NULL without kv.page_table"},
    {.name = "page_starts_beside_starts_is_refused",
     .kind = KV_BEHIND,
     .links = {KV_PAGE_STARTS},
     .status = ATTN_ERROR_VALUE,
     .line = "kv.page_starts: expected NULL without kv.page_table"},
    {.name = "kv_size_below_first_release_is_refused",
     .kv_size = 55,
     .status = ATTN_ERROR_VALUE,
     .line = "kv: expected struct_size 56 (sizeof the struct) or more, got 55"},
};

static const kv_refusal wrong_keys[] = {
    {.name = "kv_key_null_is_refused",
     .spoils = {{.fault = REFUSAL_NO_TENSOR, .tensor = KV_KEY}},
     .status = ATTN_ERROR_NULL,
     .line = "kv.key: expected a tensor, got NULL"},
    {.name = "kv_value_null_is_refused",
     .kind = KV_PAGED,
     .spoils = {{.fault = REFUSAL_NO_TENSOR, .tensor = KV_VALUE}},
     .status = ATTN_ERROR_NULL,
     .line = "kv.value: expected a tensor, got NULL"},
    {.name = "kv_key_data_null_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{.fault = REFUSAL_NO_DATA, .tensor = KV_KEY}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "kv.key: expected data for shape (2, 12, 4), got NULL"},
    {.name = "kv_value_data_null_is_refused",
     .kind = KV_LISTED,
     .spoils = {{.fault = REFUSAL_NO_DATA, .tensor = KV_VALUE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "kv.value: expected data for shape (7, 2, 2, 3), got NULL"},
    {.name = "kv_key_int64_is_refused",
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_INT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.key: expected dtype float32, float64, bfloat16, float16, int8, uint8, int4x2, "
             "uint4x2, q8_0 or q4_0, got int64"},
    {.name = "kv_key_float64_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_DTYPE, KV_KEY, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.key: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "kv_value_float64_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_DTYPE, KV_VALUE, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.value: expected dtype float32, bfloat16 or float16, got float64"},
    {.name = "kv_key_rank_1_is_refused",
     .spoils = {{REFUSAL_RANK, KV_KEY, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected rank 2 to 8, got 1"},
    {.name = "kv_key_rank_4_with_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_RANK, KV_KEY, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected rank 3, got 4"},
    {.name = "kv_value_rank_3_in_pages_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_RANK, KV_VALUE, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value: expected rank 4, got 3"},
    {.name = "kv_key_features_differ_is_refused",
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 3, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected shape (..., S, E=4) as query's last axis, got (2, 2, 6, 3)"},
    {.name = "kv_key_features_differ_with_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 2, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected shape (..., total, E=4) as query's last axis, got (2, 12, 3)"},
    {.name = "kv_key_features_differ_in_pages_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 3, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected shape (..., page, E=4) as query's last axis, got (7, 2, 2, 3)"},
    {.name = "kv_value_rows_differ_is_refused",
     .spoils = {{REFUSAL_LENGTH, KV_VALUE, .axis = 2, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line =
         "kv.value: expected shape (..., S=6, Ev) with as many rows as kv.key, got (2, 2, 5, 3)"},
    {.name = "kv_value_rows_differ_with_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_VALUE, .axis = 1, .value = 11}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value: expected shape (..., total=12, Ev) with as many rows as kv.key, got (2, "
             "11, 3)"},
    {.name = "kv_key_heads_do_not_broadcast_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 1, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected 2 (as query) or 1 on axis -3, got (7, 3, 2, 4)"},
    {.name = "kv_key_heads_do_not_divide_is_refused",
     .kind = KV_PAGED,
     .options = {.enable_gqa = 1},
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 1, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected a number of heads that divides query's 2, got 3"},
    {.name = "kv_key_batch_does_not_broadcast_is_refused",
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected 2 (as query) or 1 on axis -4, got (3, 2, 6, 4)"},
};

static const kv_refusal wrong_pages[] = {
    {.name = "kv_value_of_other_pages_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_VALUE, .axis = 0, .value = 6}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value: expected shape (pages=7, Hv, page=2, Ev) with as many pages and rows as "
             "kv.key, got (6, 2, 2, 3)"},
    {.name = "kv_value_of_shorter_pages_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_LENGTH, KV_VALUE, .axis = 2, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.value: expected shape (pages=7, Hv, page=2, Ev) with as many pages and rows as "
             "kv.key, got (7, 2, 1, 3)"},
    {.name = "pages_without_rows_are_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_KEY, .axis = 2, .value = 0},
                {REFUSAL_LENGTH, KV_VALUE, .axis = 2, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.key: expected pages of 1 row or more, got 0"},
    {.name = "page_table_data_null_is_refused",
     .kind = KV_PAGED,
     .spoils = {{.fault = REFUSAL_NO_DATA, .tensor = KV_PAGE_TABLE}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "kv.page_table: expected data for shape (2, 3), got NULL"},
    {.name = "page_table_float32_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_DTYPE, KV_PAGE_TABLE, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.page_table: expected dtype int64 or int32, got float32"},
    {.name = "page_table_rank_0_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_RANK, KV_PAGE_TABLE, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.page_table: expected rank 1 to 6, got 0"},
    {.name = "page_table_rank_7_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_RANK, KV_PAGE_TABLE, .value = 7}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.page_table: expected rank 1 to 6, got 7"},
    {.name = "page_table_rank_2_beside_page_starts_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_RANK, KV_PAGE_TABLE, .value = 2}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.page_table: expected rank 1, got 2"},
    {.name = "page_table_batch_does_not_broadcast_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_LENGTH, KV_PAGE_TABLE, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.page_table: expected 2 (as query) or 1 on axis -2, got (3, 3)"},
    {.name = "page_table_of_rows_past_2_63_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_DTYPE, KV_PAGE_TABLE, .value = ATTN_DTYPE_INT32},
                {REFUSAL_LENGTH, KV_PAGE_TABLE, .axis = 0, .value = INT64_C(1) << 60},
                {REFUSAL_LENGTH, KV_KEY, .axis = 2, .value = 8},
                {REFUSAL_LENGTH, KV_VALUE, .axis = 2, .value = 8}},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "kv.page_table: 1152921504606846976 pages of 8 rows exceed 2^63"},
};

/* Each of the three that say where sequences begin. */
#define WRONG_STARTS(tensor, text, with_kind, ragged)                                            \
    {.name = text "_data_null_is_refused",                                                       \
     .kind = with_kind,                                                                          \
     .is_ragged = ragged,                                                                        \
     .spoils = {{REFUSAL_NO_DATA, tensor, .axis = 0}},                                           \
     .call_only = true,                                                                          \
     .status = ATTN_ERROR_NULL,                                                                  \
     .line = text ": expected data for shape (3), got NULL"},                                    \
        {.name = text "_float32_is_refused",                                                     \
         .kind = with_kind,                                                                      \
         .is_ragged = ragged,                                                                    \
         .spoils = {{REFUSAL_DTYPE, tensor, .value = ATTN_DTYPE_FLOAT32}},                       \
         .status = ATTN_ERROR_DTYPE,                                                             \
         .line = text ": expected dtype int64 or int32, got float32"},                           \
        {.name = text "_rank_2_is_refused",                                                      \
         .kind = with_kind,                                                                      \
         .is_ragged = ragged,                                                                    \
         .spoils = {{REFUSAL_RANK, tensor, .value = 2}},                                         \
         .status = ATTN_ERROR_SHAPE,                                                             \
         .line = text ": expected rank 1, got 2"},                                               \
        {.name = text "_empty_is_refused",                                                       \
         .kind = with_kind,                                                                      \
         .is_ragged = ragged,                                                                    \
         .spoils = {{REFUSAL_LENGTH, tensor, .axis = 0, .value = 0}},                            \
         .status = ATTN_ERROR_SHAPE,                                                             \
         .line = text ": expected shape (B + 1), got (0)"},                                      \
        {.name = text "_of_one_sequence_is_refused",                                             \
         .kind = with_kind,                                                                      \
         .is_ragged = ragged,                                                                    \
         .spoils = {{REFUSAL_LENGTH, tensor, .axis = 0, .value = 2}},                            \
         .status = ATTN_ERROR_SHAPE,                                                             \
         .line = text ": expected shape (B + 1 = 3), got (2)"},                                  \
    {                                                                                            \
        .name = text "_of_more_sequences_is_refused", .kind = with_kind, .is_ragged = ragged,    \
        .spoils = {{REFUSAL_LENGTH, tensor, .axis = 0, .value = 4}}, .status = ATTN_ERROR_SHAPE, \
        .line = text ": expected shape (B + 1 = 3), got (4)"                                     \
    }

static const kv_refusal wrong_starts[] = {
    WRONG_STARTS(KV_STARTS, "kv.starts", KV_BEHIND, false),
    WRONG_STARTS(KV_PAGE_STARTS, "kv.page_starts", KV_LISTED, false),
    WRONG_STARTS(KV_QUERY_STARTS, "query_starts", KV_CACHES, true),
    {.name = "query_starts_of_other_sequences_than_starts_is_refused",
     .kind = KV_BEHIND,
     .is_ragged = true,
     .spoils = {{REFUSAL_LENGTH, KV_QUERY_STARTS, .axis = 0, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "query_starts: expected shape (B + 1 = 3), got (4)"},
    {.name = "starts_beside_two_batch_axes_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_RANK, KV_QUERY, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.starts: expected one batch axis beside it, got 2"},
    {.name = "page_starts_beside_two_batch_axes_is_refused",
     .kind = KV_LISTED,
     .spoils = {{REFUSAL_RANK, KV_QUERY, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.page_starts: expected one batch axis beside it, got 2"},
    {.name = "query_starts_beside_two_batch_axes_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_KEY, .value = 5}},
     .status = ATTN_ERROR_SHAPE,
     .line = "query_starts: expected one batch axis beside it, got 2"},
    {.name = "query_rank_4_beside_query_starts_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_QUERY, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "query: expected rank 3, got 4"},
};

static const kv_refusal wrong_others[] = {
    {.name = "lengths_float32_is_refused",
     .kind = KV_PAGED,
     .spoils = {{REFUSAL_DTYPE, KV_LENGTHS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "kv.lengths: expected dtype int64 or int32, got float32"},
    {.name = "lengths_of_more_sequences_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_LENGTHS, .axis = 0, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "kv.lengths: expected a shape that broadcasts to (2), got (3)"},
    {.name = "ragged_output_with_batch_axis_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_OUTPUT, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "output: expected shape (Hq=2, L=6, Ev=3), got (1, 2, 6, 3)"},
    {.name = "ragged_lse_with_batch_axis_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_LSE, .value = 3}},
     .status = ATTN_ERROR_SHAPE,
     .line = "lse: expected shape (Hq=2, L=6), got (1, 2, 6)"},
    {.name = "ragged_weights_with_batch_axis_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_WEIGHTS, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "weights: expected shape (Hq=2, L=6, S=6), got (1, 2, 6, 6)"},
    {.name = "ragged_mask_with_batch_axis_is_refused",
     .is_ragged = true,
     .spoils = {{REFUSAL_RANK, KV_MASK, .value = 4}},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected a shape that broadcasts to (Hq=2, L=6, S=6), got (1, 1, 6, 6)"},
    {.name = "mask_of_other_columns_than_bias_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_BIAS, .axis = 1, .value = 5}},
     .links = {KV_MASK},
     .status = ATTN_ERROR_SHAPE,
     .line = "bias: expected a shape that broadcasts to (2, Hq=2, L=3, S=6), got (3, 5)"},
    /* Whoever counts columns meets masks that were not checked. */
    {.name = "mask_rank_0_beside_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_RANK, KV_MASK, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "mask: expected rank 1 to 8, got 0"},
    {.name = "mask_rank_9_beside_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_RANK, KV_MASK, .value = 9}},
     .status = ATTN_ERROR_VALUE,
     .line = "mask: expected rank 0 to 8, got 9"},
    {.name = "mask_of_negative_columns_beside_starts_is_refused",
     .kind = KV_BEHIND,
     .spoils = {{REFUSAL_LENGTH, KV_MASK, .axis = 1, .value = -1}},
     .status = ATTN_ERROR_VALUE,
     .line = "mask: expected lengths of 0 and up, got -1 on axis 1"},
};

int main(void) {
    static refusal_suite suite;
#define ADD(table) kv_refusal_add(&suite, table, sizeof table / sizeof table[0])
    ADD(wrong_company);
    ADD(wrong_keys);
    ADD(wrong_pages);
    ADD(wrong_starts);
    ADD(wrong_others);
#undef ADD
    return kv_refusal_main(&suite, "shapes of kv");
}
