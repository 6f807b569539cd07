/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_rope.c: what attn_mha_forward and its queries say of a rotation that is wrong.
 */
#include <math.h>

#include "mha_refusal.h"

static const mha_refusal wrong_numbers[] = {
    {.name = "rope_size_below_first_release_is_refused",
     .is_rotated = true,
     .rope = {.struct_size = 79},
     .status = ATTN_ERROR_VALUE,
     .line = "rope: expected struct_size ..."},
    {.name = "rope_base_below_zero_is_refused",
     .is_rotated = true,
     .rope = {.base = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.base: expected 0 (10000) or a positive number, got -1"},
    {.name = "rope_magnitude_infinite_is_refused",
     .is_rotated = true,
     .rope = {.magnitude = INFINITY},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.magnitude: expected 0 (1) or a finite number, got inf"},
    {.name = "rope_rotary_dim_odd_is_refused",
     .is_rotated = true,
     .rope = {.rotary_dim = 3},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.rotary_dim: expected an even number, 0 to E=4, got 3"},
    {.name = "rope_interleaved_twice_is_refused",
     .is_rotated = true,
     .rope = {.interleaved = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "rope.interleaved: expected 0 or 1, got 2"},
    {.name = "rope_inverse_below_zero_is_refused",
     .is_rotated = true,
     .rope = {.inverse = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.inverse: expected 0 or 1, got -1"},
    {.name = "rope_base_beside_frequencies_is_refused",
     .is_rotated = true,
     .rope = {.base = 5},
     .links = {MHA_ROPE_FREQUENCIES},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.base: expected 0 beside frequencies, got 5"},
    {.name = "rope_base_beside_tables_is_refused",
     .is_rotated = true,
     .rope = {.base = 5},
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.base: expected 0 beside cos and sin, got 5"},
};

static const mha_refusal wrong_tensors[] = {
    {.name = "rope_cos_alone_is_refused",
     .links = {MHA_ROPE_COS},
     .status = ATTN_ERROR_NULL,
     .line = "rope.sin: expected a tensor beside rope.cos, got NULL"},
    {.name = "rope_frequencies_beside_tables_are_refused",
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .spoils = {{REFUSAL_DTYPE, MHA_ROPE_FREQUENCIES, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.frequencies: expected NULL beside cos and sin"},
    {.name = "rope_frequencies_of_other_pairs_are_refused",
     .spoils = {{REFUSAL_LENGTH, MHA_ROPE_FREQUENCIES, .axis = 0, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.frequencies: expected shape (R/2=2), got (1)"},
    {.name = "rope_frequencies_of_indices_are_refused",
     .spoils = {{REFUSAL_DTYPE, MHA_ROPE_FREQUENCIES, .value = ATTN_DTYPE_INT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "rope.frequencies: expected ..."},
    {.name = "rope_frequencies_data_null_is_refused",
     .spoils = {{.fault = REFUSAL_NO_DATA, .tensor = MHA_ROPE_FREQUENCIES}},
     .call_only = true,
     .status = ATTN_ERROR_NULL,
     .line = "rope.frequencies: expected data for shape (2), got NULL"},
    {.name = "rope_cos_float64_is_refused",
     .links = {MHA_ROPE_SIN},
     .spoils = {{REFUSAL_DTYPE, MHA_ROPE_COS, .value = ATTN_DTYPE_FLOAT64}},
     .status = ATTN_ERROR_DTYPE,
     .line = "rope.cos: expected ..."},
    {.name = "rope_sin_of_other_pairs_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ROPE_COS},
     .spoils = {{REFUSAL_LENGTH, MHA_ROPE_SIN, .axis = 1, .value = 1}},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.sin: expected shape (P=9, R/2=2), got (9, 1)"},
    {.name = "rope_tables_of_other_rows_are_refused",
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.cos: expected ..."},
    {.name = "rope_positions_of_queries_alone_are_refused",
     .spoils = {{REFUSAL_LENGTH, MHA_ROPE_POSITIONS, .axis = 1, .value = MHA_L},
                {REFUSAL_STRIDE, MHA_ROPE_POSITIONS, .axis = 1, .value = 0}},
     .status = ATTN_ERROR_SHAPE,
     .line = "rope.positions: expected ..."},
    {.name = "rope_positions_of_numbers_are_refused",
     .spoils = {{REFUSAL_DTYPE, MHA_ROPE_POSITIONS, .value = ATTN_DTYPE_FLOAT32}},
     .status = ATTN_ERROR_DTYPE,
     .line = "rope.positions: expected ..."},
    {.name = "rope_positions_beside_lengths_are_refused",
     .links = {MHA_ROPE_POSITIONS, MHA_ROPE_LENGTHS},
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected NULL beside rope.positions"},
    {.name = "rope_length_below_zero_is_refused",
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_LENGTHS, .axis = 1, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected 0 ..."},
    {.name = "rope_length_below_zero_beside_a_cache_is_refused",
     .cache = MHA_CACHE_OWN,
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_LENGTHS, .axis = 0, .value = -1}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.lengths: expected 0 ..."},
    {.name = "rope_position_outside_the_tables_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ROPE_COS, MHA_ROPE_SIN},
     .spoils = {{REFUSAL_ELEMENT, MHA_ROPE_POSITIONS, .axis = 1, .value = MHA_POSITIONS}},
     .call_only = true,
     .status = ATTN_ERROR_VALUE,
     .line = "rope.positions: expected 0 to 8, got 9 at element 1"},
};

static const mha_refusal overlaps[] = {
    {.name = "output_on_rope_frequencies_is_refused",
     .spoils = {{REFUSAL_MEMORY, MHA_ROPE_FREQUENCIES, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps rope.frequencies"},
    {.name = "output_on_rope_cos_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ROPE_SIN},
     .spoils = {{REFUSAL_MEMORY, MHA_ROPE_COS, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps rope.cos"},
    {.name = "output_on_rope_sin_is_refused",
     .cache = MHA_CACHE_OWN,
     .links = {MHA_ROPE_COS},
     .spoils = {{REFUSAL_MEMORY, MHA_ROPE_SIN, .other = MHA_OUTPUT}},
     .call_only = true,
     .status = ATTN_ERROR_OVERLAP,
     .line = "output: expected memory of its own, got memory that overlaps rope.sin"},
};

static const mha_refusal accepted[] = {
    {.name = "rope_by_positions_zero_is_accepted", .links = {MHA_ROPE_POSITIONS}},
    {.name = "rope_by_frequencies_zero_is_accepted", .links = {MHA_ROPE_FREQUENCIES}},
};

/* Nothing says which of an odd number of features is left out. */
static void odd_head_dim_is_refused_where_all_of_it_is_rotated(void **state) {
    (void)state;
    attn_mha_config config = mha_fixture_config();
    config.head_dim = 3;
    attn_mha *layer;
    mha_fixture fixture;
    size_t bytes;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    fixture.layer = layer;
    fixture.options.rope = &fixture.rope;
    refusal_assert("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes),
                   ATTN_ERROR_VALUE,
                   "rope.rotary_dim: expected an even number of head_dim=3 features, got 0 (all of "
                   "them)");
    fixture.rope.rotary_dim = 2;
    refusal_assert_ok("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes));
    attn_mha_destroy(layer);
}

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

int main(void) {
    static refusal_suite suite;
    mha_refusal_add(&suite, wrong_numbers, COUNT(wrong_numbers));
    mha_refusal_add(&suite, wrong_tensors, COUNT(wrong_tensors));
    mha_refusal_add(&suite, overlaps, COUNT(overlaps));
    mha_refusal_add(&suite, accepted, COUNT(accepted));
    refusal_suite_add(&suite, "odd_head_dim_is_refused_where_all_of_it_is_rotated",
                      odd_head_dim_is_refused_where_all_of_it_is_rotated, NULL);
    return mha_refusal_main(&suite, "errors of multi-head attention's rotation");
}
