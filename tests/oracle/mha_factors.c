/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_factors.c: the factors of attn_mha_forward calls, and which of their levels exclude one
 * another.
 */
#include "hidden_rows.h"
#include "mha_case.h"
#include "support/random_tensor.h"

static const char *const form_names[] = {"sequence_first", "batch_first", "unbatched"};
static const char *const batch_names[] = {"1", "2", "3", "0"};
static const char *const sizes_names[] = {"12/3",       "8/1",        "16/4,kv2", "10/2,kv1,D3",
                                          "6/2,D6,Dv6", "6/3,D4,Dv7", "1/1",      "64/4"};
static const char *const dim_names[] = {"default", "embed_dim", "other"};
static const char *const switch_names[] = {"off", "on"};
static const char *const mask_form_names[NUM_MASK_FORMS] = {
    "none", "L,S", "NH,L,S", "N,H,L,S", "1,H,L,S", "N,1,L,S", "1,1,L,S"};
static const char *const attention_names[] = {"present", "absent"};
static const char *const norm_names[] = {"none", "head", "all_heads"};
static const char *const rope_names[] = {"none", "base", "lengths"};
static const char *const storage_names[] = {
    "copied",           "copied_strided", "copied_converted", "bound",
    "bound_transposed", "bound_reversed", "bound_unaligned",  "mixed"};
static const char *const parameter_names[NUM_PARAMETER_TYPES] = {"query's", "float32", "bfloat16",
                                                                 "float16", "int8"};
static const char *const names_names[] = {"state_dict", "separate_weights", "separate"};

/* Whether a level other than 0 needs attn_mha_params.attention. */
static int needs_attention(int f) {
    return (f >= FACTOR_SCALE && f <= FACTOR_SCORES_LAYOUT) || f == MHA_MASK_FORM;
}

/* Whether a level other than 0 needs attn_mha_params. */
static int needs_params(int f) {
    return f == MHA_MASK_FORM || f == MHA_PADDING || f == MHA_PADDING_LAYOUT || f == MHA_ROPE;
}

static int mha_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == MHA_FORM && level_a == FORM_UNBATCHED && factor_b == MHA_BATCH) {
        return level_b == 0;
    }
    if (factor_a == MHA_ATTENTION && level_a == ATTENTION_ABSENT) {
        return !needs_attention(factor_b) || level_b == 0;
    }
    if (factor_a == FACTOR_OPTIONS && level_a == OPTIONS_ABSENT && needs_params(factor_b)) {
        return level_b == 0;
    }
    if (factor_b == MHA_MASK_FORM && (factor_a == FACTOR_MASK || factor_a == FACTOR_MASK_LAYOUT)) {
        return (level_a == 0) == (level_b == 0);
    }
    if (factor_a == FACTOR_MASK_START && level_a != 0 && factor_b == MHA_MASK_FORM) {
        return level_b != MASK_FORM_NONE;
    }
    if (factor_a == MHA_PADDING && factor_b == MHA_PADDING_LAYOUT) {
        return (level_a == 0) == (level_b == 0);
    }
    if (factor_a == FACTOR_POISON && level_a == POISON_MASK && factor_b == MHA_MASK_FORM) {
        return level_b != MASK_FORM_NONE;
    }
    if (factor_a == FACTOR_POISON && level_a >= POISON_MASK && factor_b == MHA_ATTENTION) {
        return level_b == ATTENTION_PRESENT;
    }
    if (factor_a == FACTOR_NORMALIZER && level_a == ATTN_NORMALIZER_LINEAR &&
        factor_b == MHA_PADDING) {
        return level_b != MASK_LEVEL_LOWEST;
    }
    /* What becomes of an infinite pair is left open by a rotation. */
    if (factor_a == MHA_HIDDEN && level_a == HIDDEN_INFINITE && factor_b == MHA_ROPE) {
        return level_b == MHA_ROPE_NONE;
    }
    if (factor_a == MHA_NAMES && level_a == NAMES_SEPARATE && factor_b == MHA_NO_BIAS) {
        return level_b == 0;
    }
    if (factor_a == FACTOR_DTYPE && level_a == DTYPE_OF_DOUBLE && factor_b == MHA_PARAMETER_TYPE) {
        return level_b == STORED_AS_QUERY;
    }
    return shared_rule(factor_a, level_a, factor_b, level_b);
}

factor_set mha_factor_set(void) {
    factor_set set = {.is_allowed = mha_rule, .can_compute = can_see_keys};
    add_shared_factors(&set);
    add_factor(&set, MHA_FORM, "form", 3, form_names, 0);
    add_factor(&set, MHA_BATCH, "N", 4, batch_names, 1u << 3);
    add_factor(&set, MHA_SIZES, "sizes", 8, sizes_names, 0);
    add_factor(&set, MHA_QDIM, "qdim", 3, dim_names, 0);
    add_factor(&set, MHA_KDIM, "kdim", 3, dim_names, 0);
    add_factor(&set, MHA_VDIM, "vdim", 3, dim_names, 0);
    add_factor(&set, MHA_NO_BIAS, "no_bias", 2, switch_names, 0);
    add_factor(&set, MHA_BIAS_KV, "bias_kv", 2, switch_names, 0);
    add_factor(&set, MHA_ZERO_ATTN, "zero_attn", 2, switch_names, 0);
    add_factor(&set, MHA_MASK_FORM, "mask_form", NUM_MASK_FORMS, mask_form_names, 0);
    add_factor(&set, MHA_PADDING, "padding", NUM_MASK_LEVELS, mask_names, 0);
    add_factor(&set, MHA_PADDING_LAYOUT, "padding_layout", 1 + LAYOUT_NUM_INPUT,
               optional_layout_names, 0);
    add_factor(&set, MHA_ATTENTION, "attention", 2, attention_names, 0);
    add_factor(&set, MHA_STORAGE, "parameters", 8, storage_names, 0);
    add_factor(&set, MHA_NAMES, "names", 3, names_names, 0);
    add_factor(&set, MHA_HIDDEN, "hidden_rows", NUM_HIDDEN_LEVELS, hidden_names, 0);
    add_factor(&set, MHA_PARAMETER_TYPE, "parameter_type", NUM_PARAMETER_TYPES, parameter_names, 0);
    add_factor(&set, MHA_OUTPUT_TYPE, "output_type", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, MHA_WEIGHTS_TYPE, "weights_type", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, MHA_QK_NORM, "qk_norm", 3, norm_names, 0);
    add_factor(&set, MHA_ROPE, "rope", 3, rope_names, 0);
    return set;
}
