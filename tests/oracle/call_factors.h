/* SPDX-License-Identifier: BSD-3-Clause
 *
 * call_factors.h: how a call is run, and the options attn_sdpa and attn_mha_forward have in common,
 * as factors of a covering array, and the rules which of their settings exclude one another. Level
 * 0 is always the default.
 */
#ifndef ATTENTION_TESTS_CALL_FACTORS_H
#define ATTENTION_TESTS_CALL_FACTORS_H

#include "covering_array.h"

/* How any call of the library is run. */
enum run_factor {
    FACTOR_DTYPE,
    FACTOR_WORKSPACE,
    FACTOR_ENGINE,
    FACTOR_KERNELS,
    FACTOR_GEMM,
    FACTOR_THREADS,
    FACTOR_FLOAT32_WEIGHTS,
    NUM_RUN_FACTORS
};

enum shared_factor {
    FACTOR_ROWS = NUM_RUN_FACTORS, /* L */
    FACTOR_KEYS,                   /* S */
    FACTOR_OPTIONS,
    FACTOR_SCALE,
    FACTOR_CAUSAL,
    FACTOR_OFFSET,
    FACTOR_ALIGN_END,
    FACTOR_LENGTHS,
    FACTOR_INDEX_DTYPE, /* of query_offset, key_lengths and mask_start */
    FACTOR_WINDOW,
    FACTOR_SOFTCAP,
    FACTOR_ALIBI,
    FACTOR_SINKS,
    FACTOR_NORMALIZER,
    FACTOR_LSE,
    FACTOR_MASK,
    FACTOR_MASK_LAYOUT,
    FACTOR_MASK_START,
    FACTOR_BIAS,
    FACTOR_BIAS_SHAPE,
    FACTOR_BIAS_LAYOUT,
    FACTOR_POSITION_BIAS,
    FACTOR_BLOCKS,
    FACTOR_DROPOUT,
    FACTOR_WEIGHTS,
    FACTOR_WEIGHTS_LAYOUT,
    FACTOR_SCORES,
    FACTOR_SCORES_LAYOUT,
    FACTOR_QUERY_LAYOUT,
    FACTOR_KEY_LAYOUT,
    FACTOR_VALUE_LAYOUT,
    FACTOR_OUTPUT_LAYOUT,
    FACTOR_VALUES,
    FACTOR_POISON,
    NUM_SHARED_FACTORS
};

enum dtype_level {
    DTYPE_OF_FLOAT,
    DTYPE_OF_DOUBLE,
    DTYPE_OF_BFLOAT16,
    DTYPE_OF_FLOAT16,
    NUM_DTYPE_LEVELS
};
enum options_level { OPTIONS_PRESENT, OPTIONS_ABSENT /* the params pointer is NULL */ };
enum scale_level { SCALE_DEFAULT, SCALE_ZERO, SCALE_NEGATIVE, SCALE_POSITIVE };
enum offset_level {
    OFFSET_NONE,
    OFFSET_TWO, /* rank 0, as the next seven */
    OFFSET_BEFORE,
    OFFSET_BEYOND,
    OFFSET_HUGE,
    OFFSET_MINUS_HUGE,
    OFFSET_LARGEST,
    OFFSET_SMALLEST,
    OFFSET_PER_BATCH,
    OFFSET_PER_BATCH_REVERSED
};
enum window_level {
    WINDOW_NONE,
    WINDOW_UNLIMITED,
    WINDOW_DIAGONAL,
    WINDOW_LEFT,  /* 2 */
    WINDOW_RIGHT, /* 1 */
    WINDOW_BOTH,  /* 3, 2 */
    WINDOW_LARGEST_LEFT
};
enum lengths_level {
    LENGTHS_NONE,
    LENGTHS_ZERO,
    LENGTHS_ALL,
    LENGTHS_SOME,
    LENGTHS_PER_BATCH,
    LENGTHS_PER_BATCH_STEP_TWO
};
enum per_head_level {
    PER_HEAD_NONE,
    PER_HEAD_OWN_TYPE,
    PER_HEAD_FLOAT32_REVERSED,
    PER_HEAD_ONE_UNALIGNED
};
enum mask_start_level {
    MASK_START_NONE,
    MASK_START_ZERO, /* rank 0, as the next three */
    MASK_START_SOME,
    MASK_START_LARGEST,
    MASK_START_SMALLEST,
    MASK_START_PER_BATCH,
    MASK_START_PER_BATCH_REVERSED,
    NUM_MASK_START_LEVELS
};
enum position_bias_level {
    POSITION_BIAS_NONE,
    POSITION_BIAS_PER_HEAD,
    POSITION_BIAS_FLOAT32_REVERSED,
    POSITION_BIAS_ONE_HEAD,
    POSITION_BIAS_TRANSPOSED,
    POSITION_BIAS_LOWEST, /* with the lowest number among its values */
    POSITION_BIAS_HIDING, /* with -inf among its values */
    NUM_POSITION_BIAS_LEVELS
};
enum blocks_level {
    BLOCKS_NONE,
    BLOCKS_FULL,      /* (batch axes, Hq, rows, columns) */
    BLOCKS_PER_HEAD,  /* (Hq, rows, columns), reversed */
    BLOCKS_MATRIX,    /* (rows, columns), transposed */
    BLOCKS_COLUMNS,   /* (columns) */
    BLOCKS_PER_BATCH, /* (batch axes, 1, 1, columns), unaligned */
    BLOCKS_ONE,       /* (1), of blocks that nothing exceeds */
    BLOCKS_HIDING,    /* as full, of which most are hidden */
    NUM_BLOCKS_LEVELS
};
enum dropout_level {
    DROPOUT_NONE,
    DROPOUT_HALF,
    DROPOUT_TENTH_OF_A_PART, /* with places of a larger problem */
    DROPOUT_MOST,
    NUM_DROPOUT_LEVELS
};
enum lse_level {
    LSE_NONE,
    LSE_CONTIGUOUS,
    LSE_TRANSPOSED,
    LSE_REVERSED,
    LSE_UNALIGNED,
    NUM_LSE_LEVELS
};
enum mask_level {
    MASK_LEVEL_NONE,
    MASK_LEVEL_ADDITIVE,
    MASK_LEVEL_ADDITIVE_FLOAT32,
    MASK_LEVEL_HIDING, /* additive with -inf among its values */
    MASK_LEVEL_HIDING_FLOAT32,
    MASK_LEVEL_HUGE,   /* additive with -1e30 among its values, which hides nothing */
    MASK_LEVEL_LOWEST, /* additive with the lowest number among its values, whose sums overflow */
    MASK_LEVEL_INCLUDE,
    MASK_LEVEL_EXCLUDE,
    NUM_MASK_LEVELS,
    NUM_BIAS_LEVELS = MASK_LEVEL_INCLUDE /* a bias is additive */
};
/* The axes of scores (batch axes, H, L, S) along which a mask or bias differs. */
enum scores_shape {
    SCORES_SHAPE_NONE,
    SCORES_SHAPE_FULL,
    SCORES_SHAPE_MATRIX,     /* (L, S) */
    SCORES_SHAPE_ROW,        /* (1, S) */
    SCORES_SHAPE_COLUMN,     /* (L, 1) */
    SCORES_SHAPE_VECTOR,     /* (S) */
    SCORES_SHAPE_ONE,        /* (1) */
    SCORES_SHAPE_PER_HEAD,   /* (H, 1, S) */
    SCORES_SHAPE_PER_BATCH,  /* (batch axes, 1, 1, S) */
    SCORES_SHAPE_BATCH_ROWS, /* (batch axes, 1, L, 1) */
    NUM_SCORES_SHAPES
};
/* The type of a key or value, or of parameters: query's, or one by its name; of a result: query's
 * or the scores'. */
enum stored_level {
    STORED_AS_QUERY,
    STORED_FLOAT32,
    STORED_BFLOAT16,
    STORED_FLOAT16,
    NUM_STORED_LEVELS
};
enum result_level { RESULT_AS_QUERY, RESULT_AS_SCORES, NUM_RESULT_LEVELS };
extern const char *const stored_names[NUM_STORED_LEVELS];
extern const char *const result_names[NUM_RESULT_LEVELS];

enum weights_level { WEIGHTS_NONE, WEIGHTS_PER_HEAD, WEIGHTS_AVERAGED };
enum scores_level { SCORES_NONE, SCORES_SCALED, SCORES_CAPPED, SCORES_MASKED, NUM_SCORES_LEVELS };
enum values_level { VALUES_ORDINARY, VALUES_LARGE, VALUES_INTEGERS };
enum poison_level { POISON_NONE, POISON_QUERY, POISON_KEY, POISON_VALUE, POISON_MASK, POISON_BIAS };
/* Where keys and values are. */
enum keys_level {
    KEYS_IN_ARGUMENTS,
    KEYS_IN_CACHES,
    KEYS_BEHIND, /* one sequence behind the other */
    KEYS_IN_PAGES_1,
    KEYS_IN_PAGES_16,
    KEYS_IN_PAGES_17,
    KEYS_IN_LISTS, /* of pages of 3 rows */
    NUM_KEYS_LEVELS
};
enum queries_level { QUERIES_BATCHED, QUERIES_RAGGED, NUM_QUERIES_LEVELS };
enum workspace_level { WORKSPACE_NONE, WORKSPACE_EXACT, WORKSPACE_UNALIGNED, WORKSPACE_LARGER };
enum threads_level { THREADS_ONE, THREADS_TWO, THREADS_THREE, THREADS_OF_CALLER };

/* Lengths of FACTOR_ROWS and FACTOR_KEYS; those from `first_free_length` on may be replaced by any
 * other length of 2 and up: none; mostly so small that a million calls take a minute; those of
 * small calls; those that cross the blocks of the engines. */
enum { NUM_LENGTH_LEVELS = 6, FIRST_FREE_LENGTH = 2 };
enum free_lengths {
    FREE_NONE,
    FREE_TINY /* to 6, rarely to 40 */,
    FREE_SHORT /* to 70 */,
    FREE_LONG /* to 700 */
};
extern const char *const length_names[NUM_LENGTH_LEVELS];
/* A length of 2 and up, not of FREE_NONE. */
int64_t draw_length(int free_lengths, random_state *random);
int64_t length_of_level(int level, int free_lengths, random_state *random);

/* "none", then the layouts of random_tensor.h. */
extern const char *const optional_layout_names[];
extern const char *const mask_names[NUM_MASK_LEVELS];
extern const char *const lse_names[NUM_LSE_LEVELS];
extern const char *const scores_shape_names[NUM_SCORES_SHAPES];
extern const char *const index_dtype_names[2]; /* level 0 is int64, 1 is int32 */

/* Adds the run factors to an empty set. What this build or CPU lacks (a BLAS, an engine, kernels)
 * is no level. */
void add_run_factors(factor_set *set);

/* Adds the run factors and the shared ones to an empty set. */
void add_shared_factors(factor_set *set);

/* Appends a factor; its number must be the one the caller's enum gives it. */
void add_factor(factor_set *set, int number, const char *name, int num_levels,
                const char *const *level_names, uint32_t void_levels);

/* The rule for two shared factors; anything goes with others. */
int shared_rule(int factor_a, int level_a, int factor_b, int level_b);

/* 0 for positions so far from the keys that causality or the window hides all of them. */
int can_see_keys(int factor_a, int level_a, int factor_b, int level_b);

#endif
