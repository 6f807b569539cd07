/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_factors.c: names and levels of the shared options.
 */
#include "call_factors.h"

#include <stdio.h>
#include <stdlib.h>

#include <attention/context.h>
#include <attention/sdpa.h>

#include "support/random_tensor.h"

const char *const length_names[NUM_LENGTH_LEVELS] = {"0", "1", "2", "7", "33", "66"};

static const char *const dtype_names[] = {"float32", "float64", "bfloat16", "float16"};
const char *const stored_names[NUM_STORED_LEVELS] = {"query's", "float32", "bfloat16", "float16"};
const char *const result_names[NUM_RESULT_LEVELS] = {"query's", "scores'"};
static const char *const options_names[] = {"present", "absent"};
static const char *const scale_names[] = {"default", "0", "-0.7", "0.3"};
static const char *const switch_names[] = {"off", "on"};
static const char *const offset_names[] = {
    "none",  "2",         "-3",        "S+5",       "2^62",
    "-2^62", "INT64_MAX", "INT64_MIN", "per_batch", "per_batch_reversed"};
static const char *const lengths_names[] = {"none", "0",         "S",
                                            "some", "per_batch", "per_batch_step_two"};
static const char *const window_names[] = {"none", "-1,-1", "0,0",        "2,-1",
                                           "-1,1", "3,2",   "INT64_MAX,0"};
static const char *const softcap_names[] = {"none", "1.5", "30"};
static const char *const per_head_names[] = {"none", "per_head", "per_head_float32_reversed",
                                             "one_unaligned"};
static const char *const normalizer_names[] = {"softmax", "sigmoid", "linear"};
const char *const lse_names[NUM_LSE_LEVELS] = {"none", "contiguous", "transposed", "reversed",
                                               "unaligned"};
const char *const mask_names[NUM_MASK_LEVELS] = {"none",   "additive",       "additive_float32",
                                                 "hiding", "hiding_float32", "huge",
                                                 "lowest", "include",        "exclude"};
const char *const scores_shape_names[NUM_SCORES_SHAPES] = {
    "none", "full", "L,S", "1,S", "L,1", "S", "1", "H,1,S", "B,1,1,S", "B,1,L,1"};
const char *const index_dtype_names[2] = {"int64", "int32"};
static const char *const weights_names[] = {"none", "per_head", "averaged"};
static const char *const scores_names[NUM_SCORES_LEVELS] = {"none", "scaled", "capped", "masked"};
const char *const optional_layout_names[] = {
    "none",     "contiguous", "sequence_first", "packed",        "step_two",        "transposed",
    "reversed", "unaligned",  "repeated_first", "repeated_rows", "repeated_columns"};
static const char *const mask_start_names[NUM_MASK_START_LEVELS] = {
    "none", "0", "some", "largest", "smallest", "per_batch", "per_batch_reversed"};
static const char *const dropout_names[NUM_DROPOUT_LEVELS] = {"none", "half", "tenth_of_a_part",
                                                              "most"};
static const char *const position_bias_names[NUM_POSITION_BIAS_LEVELS] = {
    "none", "per_head", "per_head_float32_reversed", "one_head", "transposed", "lowest", "hiding"};
static const char *const blocks_names[NUM_BLOCKS_LEVELS] = {
    "none", "full", "per_head", "matrix", "columns", "per_batch", "one", "hiding"};
static const char *const values_names[] = {"ordinary", "large", "integers"};
static const char *const poison_names[] = {"none", "query", "key", "value", "mask", "bias"};
static const char *const workspace_names[] = {"none", "exact", "unaligned", "larger"};
static const char *const engine_names[] = {"auto", "blas", "fused"};
static const char *const gemm_names[] = {"auto", "native", "blas"};
static const char *const threads_names[] = {"1", "2", "3", "caller"};

int64_t draw_length(int free_lengths, random_state *random) {
    static const int64_t largest[] = {[FREE_TINY] = 6, [FREE_SHORT] = 70, [FREE_LONG] = 700};
    const int is_rare = free_lengths == FREE_TINY && random_between(random, 0, 31) == 0;
    return random_between(random, 2, is_rare ? 40 : largest[free_lengths]);
}

int64_t length_of_level(int level, int free_lengths, random_state *random) {
    if (free_lengths != FREE_NONE && level >= FIRST_FREE_LENGTH) {
        return draw_length(free_lengths, random);
    }
    return strtoll(length_names[level], NULL, 10);
}

void add_factor(factor_set *set, int number, const char *name, int num_levels,
                const char *const *level_names, uint32_t void_levels) {
    if (number != set->count || set->count == MAX_FACTORS || num_levels > MAX_LEVELS) {
        fprintf(stderr, "factor %s is out of order or too large\n", name);
        abort();
    }
    set->factors[set->count++] = (factor){name, num_levels, level_names, void_levels};
}

/* 1 if a context with these settings can be made. */
static int is_supported(int32_t engine, int32_t gemm) {
    const attn_context_config params = {
        .struct_size = sizeof params, .engine = engine, .gemm = gemm};
    attn_context *context;
    const attn_status status = attn_context_create(&params, &context);
    attn_context_destroy(context);
    return status == ATTN_OK;
}

/* "default", then the names of attn_kernels_name. */
static int kernel_names(const char *const **names) {
    static const char *all[MAX_LEVELS] = {"default"};
    int count = 1;
    while (count < MAX_LEVELS && attn_kernels_name(count - 1) != NULL) {
        all[count] = attn_kernels_name(count - 1);
        ++count;
    }
    *names = all;
    return count;
}

void add_run_factors(factor_set *set) {
    const char *const *kernels;
    const int num_kernels = kernel_names(&kernels);
    const int has_fused = is_supported(ATTN_ENGINE_FUSED, ATTN_GEMM_AUTO);
    const int has_blas = is_supported(ATTN_ENGINE_AUTO, ATTN_GEMM_BLAS);
    if (!has_fused) {
        puts("engine=fused is left out: this build has no fused engine");
    }
    if (!has_blas) {
        puts("gemm=blas is left out: this build has no BLAS");
    }
    add_factor(set, FACTOR_DTYPE, "dtype", NUM_DTYPE_LEVELS, dtype_names, 0);
    add_factor(set, FACTOR_WORKSPACE, "workspace", 4, workspace_names, 0);
    add_factor(set, FACTOR_ENGINE, "engine", 2 + has_fused, engine_names, 0);
    add_factor(set, FACTOR_KERNELS, "kernels", num_kernels, kernels, 0);
    add_factor(set, FACTOR_GEMM, "gemm", 2 + has_blas, gemm_names, 0);
    add_factor(set, FACTOR_THREADS, "threads", 4, threads_names, 0);
    add_factor(set, FACTOR_FLOAT32_WEIGHTS, "float32_weights", 2, switch_names, 0);
}

void add_shared_factors(factor_set *set) {
    add_run_factors(set);
    add_factor(set, FACTOR_ROWS, "L", NUM_LENGTH_LEVELS, length_names, 1);
    add_factor(set, FACTOR_KEYS, "S", NUM_LENGTH_LEVELS, length_names, 1);
    add_factor(set, FACTOR_OPTIONS, "options", 2, options_names, 0);
    add_factor(set, FACTOR_SCALE, "scale", 4, scale_names, 0);
    add_factor(set, FACTOR_CAUSAL, "causal", 2, switch_names, 0);
    add_factor(set, FACTOR_OFFSET, "offset", 10, offset_names, 0);
    add_factor(set, FACTOR_ALIGN_END, "align_end", 2, switch_names, 0);
    add_factor(set, FACTOR_LENGTHS, "lengths", 6, lengths_names, 1u << LENGTHS_ZERO);
    add_factor(set, FACTOR_INDEX_DTYPE, "index_dtype", 2, index_dtype_names, 0);
    add_factor(set, FACTOR_WINDOW, "window", 7, window_names, 0);
    add_factor(set, FACTOR_SOFTCAP, "softcap", 3, softcap_names, 0);
    add_factor(set, FACTOR_ALIBI, "alibi", 4, per_head_names, 0);
    add_factor(set, FACTOR_SINKS, "sinks", 4, per_head_names, 0);
    add_factor(set, FACTOR_NORMALIZER, "normalizer", 3, normalizer_names, 0);
    add_factor(set, FACTOR_LSE, "lse", NUM_LSE_LEVELS, lse_names, 0);
    add_factor(set, FACTOR_MASK, "mask", NUM_MASK_LEVELS, mask_names, 0);
    add_factor(set, FACTOR_MASK_LAYOUT, "mask_layout", 1 + LAYOUT_NUM_INPUT, optional_layout_names,
               0);
    add_factor(set, FACTOR_MASK_START, "mask_start", NUM_MASK_START_LEVELS, mask_start_names,
               1u << MASK_START_SMALLEST);
    add_factor(set, FACTOR_BIAS, "bias", NUM_BIAS_LEVELS, mask_names, 0);
    add_factor(set, FACTOR_BIAS_SHAPE, "bias_shape", NUM_SCORES_SHAPES, scores_shape_names, 0);
    add_factor(set, FACTOR_BIAS_LAYOUT, "bias_layout", 1 + LAYOUT_NUM_INPUT, optional_layout_names,
               0);
    add_factor(set, FACTOR_POSITION_BIAS, "position_bias", NUM_POSITION_BIAS_LEVELS,
               position_bias_names, 0);
    add_factor(set, FACTOR_BLOCKS, "blocks", NUM_BLOCKS_LEVELS, blocks_names, 0);
    add_factor(set, FACTOR_DROPOUT, "dropout", NUM_DROPOUT_LEVELS, dropout_names, 0);
    add_factor(set, FACTOR_WEIGHTS, "weights", 3, weights_names, 0);
    add_factor(set, FACTOR_WEIGHTS_LAYOUT, "weights_layout", 1 + LAYOUT_NUM_OUTPUT,
               optional_layout_names, 0);
    add_factor(set, FACTOR_SCORES, "scores", NUM_SCORES_LEVELS, scores_names, 0);
    add_factor(set, FACTOR_SCORES_LAYOUT, "scores_layout", 1 + LAYOUT_NUM_OUTPUT,
               optional_layout_names, 0);
    add_factor(set, FACTOR_QUERY_LAYOUT, "query", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(set, FACTOR_KEY_LAYOUT, "key", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(set, FACTOR_VALUE_LAYOUT, "value", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(set, FACTOR_OUTPUT_LAYOUT, "output", LAYOUT_NUM_OUTPUT, tensor_layout_names, 0);
    add_factor(set, FACTOR_VALUES, "values", 3, values_names, 0);
    add_factor(set, FACTOR_POISON, "nan", 6, poison_names, 0);
}

/* Options that live in the params struct, so that none of them can be set where there is no struct.
 */
static int needs_params(int f) {
    return (f >= FACTOR_SCALE && f <= FACTOR_SCORES_LAYOUT);
}

/* A shape or layout is one of the thing it belongs to: both absent or both present. */
static int is_layout_of(int f, int owner) {
    return (f == FACTOR_MASK_LAYOUT && owner == FACTOR_MASK) ||
           (f == FACTOR_BIAS_SHAPE && owner == FACTOR_BIAS) ||
           (f == FACTOR_BIAS_LAYOUT && (owner == FACTOR_BIAS || owner == FACTOR_BIAS_SHAPE)) ||
           (f == FACTOR_WEIGHTS_LAYOUT && owner == FACTOR_WEIGHTS) ||
           (f == FACTOR_SCORES_LAYOUT && owner == FACTOR_SCORES);
}

static int is_additive(int mask) {
    return mask >= MASK_LEVEL_ADDITIVE && mask <= MASK_LEVEL_LOWEST;
}

/* A mask can only hold NaN if there is one and it is additive. */
static int poisoned_mask_rule(int f, int level) {
    switch (f) {
    case FACTOR_MASK:
        return is_additive(level);
    case FACTOR_MASK_LAYOUT:
        return level != 0;
    case FACTOR_OPTIONS:
        return level == OPTIONS_PRESENT;
    default:
        return 1;
    }
}

/* A bias can only hold NaN if there is one. */
static int poisoned_bias_rule(int f, int level) {
    const int is_of_bias = f == FACTOR_BIAS || f == FACTOR_BIAS_SHAPE || f == FACTOR_BIAS_LAYOUT;
    return (!is_of_bias || level != 0) && (f != FACTOR_OPTIONS || level == OPTIONS_PRESENT);
}

int shared_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == FACTOR_DTYPE && factor_b == FACTOR_ENGINE) {
        return !(level_a == DTYPE_OF_DOUBLE && level_b == ATTN_ENGINE_FUSED);
    }
    if (factor_a == FACTOR_OPTIONS && level_a == OPTIONS_ABSENT && needs_params(factor_b)) {
        return level_b == 0;
    }
    if ((factor_a == FACTOR_MASK || factor_a == FACTOR_MASK_LAYOUT) && level_a == 0 &&
        factor_b == FACTOR_MASK_START) {
        return level_b == MASK_START_NONE;
    }
    if (is_layout_of(factor_b, factor_a)) {
        return (level_a == 0) == (level_b == 0);
    }
    if (factor_a == FACTOR_NORMALIZER && level_a != 0 &&
        (factor_b == FACTOR_SINKS || factor_b == FACTOR_LSE)) {
        return level_b == 0;
    }
    if (factor_a == FACTOR_POISON && level_a == POISON_MASK) {
        return poisoned_mask_rule(factor_b, level_b);
    }
    if (factor_a == FACTOR_POISON && level_a == POISON_BIAS) {
        return poisoned_bias_rule(factor_b, level_b);
    }
    if (factor_a == FACTOR_ALIGN_END && level_a != 0 && factor_b == FACTOR_OFFSET) {
        return level_b == OFFSET_NONE;
    }
    /* A linear weight of the lowest number leaves no finite output. */
    if (factor_a == FACTOR_NORMALIZER && level_a == ATTN_NORMALIZER_LINEAR &&
        (factor_b == FACTOR_MASK || factor_b == FACTOR_BIAS)) {
        return level_b != MASK_LEVEL_LOWEST;
    }
    if (factor_a == FACTOR_NORMALIZER && level_a == ATTN_NORMALIZER_LINEAR &&
        factor_b == FACTOR_POSITION_BIAS) {
        return level_b != POSITION_BIAS_LOWEST;
    }
    return 1;
}

static int is_before_all_keys(int offset) {
    return offset == OFFSET_MINUS_HUGE || offset == OFFSET_SMALLEST;
}

static int is_after_all_keys(int offset) {
    return offset == OFFSET_BEYOND || offset == OFFSET_HUGE || offset == OFFSET_LARGEST;
}

int can_see_keys(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a != FACTOR_OFFSET) {
        return 1;
    }
    if (is_before_all_keys(level_a)) {
        const int has_right = level_b == WINDOW_DIAGONAL || level_b >= WINDOW_RIGHT;
        return !(factor_b == FACTOR_CAUSAL && level_b != 0) &&
               !(factor_b == FACTOR_WINDOW && has_right);
    }
    const int has_left =
        level_b == WINDOW_DIAGONAL || level_b == WINDOW_LEFT || level_b == WINDOW_BOTH;
    return !(is_after_all_keys(level_a) && factor_b == FACTOR_WINDOW && has_left);
}
