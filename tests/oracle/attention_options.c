/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention_options.c: builds the options of one call.
 */
#include "attention_options.h"

#include <math.h>
#include <string.h>

#include "block_options.h"
#include "support/half_numbers.h"
#include "support/oracle_tensor.h"

int32_t dtype_of_case(const factor_case *chosen) {
    static const int32_t dtypes[NUM_DTYPE_LEVELS] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64,
                                                     ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16};
    return dtypes[chosen->level[FACTOR_DTYPE]];
}

int32_t score_dtype(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

int32_t stored_dtype(int level, int32_t own) {
    const int32_t dtypes[NUM_STORED_LEVELS] = {own, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16,
                                               ATTN_DTYPE_FLOAT16};
    return dtypes[level];
}

int32_t result_dtype(const factor_case *chosen, int number) {
    const int32_t dtype = dtype_of_case(chosen);
    return chosen->level[number] == RESULT_AS_QUERY ? dtype : score_dtype(dtype);
}

static void set_scale(int level, attn_sdpa_params *params) {
    const double scales[] = {0, 0, -0.7, 0.3};
    if (level != SCALE_DEFAULT) {
        params->set |= ATTN_SDPA_SET_SCALE;
        params->scale = scales[level];
    }
}

/* Windows of a few keys, or, where there are many, of several blocks of them. */
static void set_window(int level, int64_t keys, attn_sdpa_params *params) {
    const int64_t unit = keys > 70 ? keys / 10 : 1;
    const int64_t windows[][2] = {
        {0, 0}, {-1, -1}, {0, 0}, {2 * unit, -1}, {-1, unit}, {3 * unit, 2 * unit}, {INT64_MAX, 0}};
    if (level != WINDOW_NONE) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = windows[level][0];
        params->window_right = windows[level][1];
    }
}

int32_t index_dtype_of_level(int level) {
    return level == 0 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32;
}

/* Numbers for one or for every batch. */
static attn_tensor *batch_integers(const option_shape *shape, int is_per_batch,
                                   enum tensor_layout layout, int64_t lowest, int64_t highest,
                                   tensor_pool *pool, random_state *random) {
    const int32_t batch_rank = shape->is_ragged       ? 1
                               : shape->lead_rank > 0 ? shape->lead_rank - 1
                                                      : 0;
    attn_tensor *integers = pool_input(pool, shape->index_dtype, is_per_batch ? batch_rank : 0,
                                       shape->is_ragged ? &shape->sequences : shape->lead, layout);
    random_fill_integers(integers, random, lowest, highest);
    return integers;
}

static attn_tensor *build_offset(int level, const option_shape *shape, tensor_pool *pool,
                                 random_state *random) {
    const int is_narrow = shape->index_dtype == ATTN_DTYPE_INT32;
    const int64_t huge = INT64_C(1) << (is_narrow ? 30 : 62);
    const int64_t fixed[] = {0,
                             2,
                             -3,
                             shape->keys + 5,
                             huge,
                             -huge,
                             is_narrow ? INT32_MAX : INT64_MAX,
                             is_narrow ? INT32_MIN : INT64_MIN};
    if (level == OFFSET_NONE) {
        return NULL;
    }
    if (level < OFFSET_PER_BATCH) {
        return batch_integers(shape, 0, LAYOUT_UNALIGNED, fixed[level], fixed[level], pool, random);
    }
    const enum tensor_layout layout =
        level == OFFSET_PER_BATCH ? LAYOUT_CONTIGUOUS : LAYOUT_REVERSED;
    const int64_t rows = shape->rows / (shape->sequences > 0 ? shape->sequences : 1);
    return batch_integers(shape, 1, layout, -rows, shape->keys + 2, pool, random);
}

static attn_tensor *build_lengths(int level, const option_shape *shape, tensor_pool *pool,
                                  random_state *random) {
    switch (level) {
    case LENGTHS_NONE:
        return NULL;
    case LENGTHS_ZERO:
        return batch_integers(shape, 0, LAYOUT_CONTIGUOUS, 0, 0, pool, random);
    case LENGTHS_ALL:
        return batch_integers(shape, 0, LAYOUT_UNALIGNED, shape->keys, shape->keys, pool, random);
    case LENGTHS_SOME: {
        const int64_t some = random_between(random, 0, shape->keys);
        return batch_integers(shape, 0, LAYOUT_CONTIGUOUS, some, some, pool, random);
    }
    default: {
        const enum tensor_layout layout =
            level == LENGTHS_PER_BATCH ? LAYOUT_CONTIGUOUS : LAYOUT_STEP_TWO;
        return batch_integers(shape, 1, layout, 0, shape->keys, pool, random);
    }
    }
}

static attn_tensor *build_mask_start(int level, const option_shape *shape, tensor_pool *pool,
                                     random_state *random) {
    const int is_narrow = shape->index_dtype == ATTN_DTYPE_INT32;
    const int64_t fixed[] = {0, 0, random_between(random, -2, shape->keys),
                             is_narrow ? INT32_MAX : INT64_MAX, is_narrow ? INT32_MIN : INT64_MIN};
    if (level == MASK_START_NONE) {
        return NULL;
    }
    if (level < MASK_START_PER_BATCH) {
        return batch_integers(shape, 0, LAYOUT_UNALIGNED, fixed[level], fixed[level], pool, random);
    }
    const enum tensor_layout layout =
        level == MASK_START_PER_BATCH ? LAYOUT_CONTIGUOUS : LAYOUT_REVERSED;
    return batch_integers(shape, 1, layout, -2, shape->keys + 2, pool, random);
}

int64_t mask_columns(const factor_case *chosen, int64_t columns, random_state *random) {
    return chosen->level[FACTOR_MASK_START] == MASK_START_NONE
               ? columns
               : random_between(random, random_between(random, 0, columns), columns + 2);
}

/* Of few distances, or of as many as there are. */
static attn_tensor *build_position_bias(int level, const option_shape *shape, tensor_pool *pool,
                                        random_state *random) {
    static const enum tensor_layout layouts[NUM_POSITION_BIAS_LEVELS] = {
        [POSITION_BIAS_FLOAT32_REVERSED] = LAYOUT_REVERSED,
        [POSITION_BIAS_ONE_HEAD] = LAYOUT_UNALIGNED,
        [POSITION_BIAS_TRANSPOSED] = LAYOUT_TRANSPOSED};
    const int64_t reach =
        random_between(random, 0, random_between(random, 0, 1) ? 3 : shape->keys + 2);
    const int64_t axes[] = {level == POSITION_BIAS_ONE_HEAD ? 1 : shape->heads, 2 * reach + 1};
    if (level == POSITION_BIAS_NONE) {
        return NULL;
    }
    attn_tensor *table = pool_input(
        pool, level == POSITION_BIAS_FLOAT32_REVERSED ? ATTN_DTYPE_FLOAT32 : shape->dtype, 2, axes,
        layouts[level]);
    random_fill(table, random, -2, 2, 0);
    if (level == POSITION_BIAS_LOWEST) {
        sprinkle(table, random, 0.3, -largest_of_dtype(table->dtype));
    }
    if (level == POSITION_BIAS_HIDING) {
        sprinkle(table, random, 0.3, -INFINITY);
    }
    return table;
}

/* Slopes or sinks: a number per head, or one for all. */
static attn_tensor *build_per_head(int level, const option_shape *shape, double lowest,
                                   double highest, tensor_pool *pool, random_state *random) {
    const int64_t one = 1;
    attn_tensor *numbers = NULL;
    switch (level) {
    case PER_HEAD_NONE:
        return NULL;
    case PER_HEAD_OWN_TYPE:
        numbers = pool_input(pool, shape->dtype, 1, &shape->heads, LAYOUT_CONTIGUOUS);
        break;
    case PER_HEAD_FLOAT32_REVERSED:
        numbers = pool_input(pool, ATTN_DTYPE_FLOAT32, 1, &shape->heads, LAYOUT_REVERSED);
        break;
    default:
        numbers = pool_input(pool, shape->dtype, 1, &one, LAYOUT_UNALIGNED);
        break;
    }
    random_fill(numbers, random, lowest, highest, 0);
    return numbers;
}

static attn_tensor *build_sinks(int level, const option_shape *shape, tensor_pool *pool,
                                random_state *random) {
    attn_tensor *sinks = build_per_head(level, shape, -2, 2, pool, random);
    int64_t index[ATTN_MAX_RANK];
    if (sinks != NULL && random_between(random, 0, 3) == 0 && random_index(sinks, random, index)) {
        oracle_store(sinks, index, -INFINITY);
    }
    return sinks;
}

attn_tensor *build_lse(int level, int32_t dtype, int32_t lead_rank, const int64_t *lead,
                       int64_t rows, tensor_pool *pool) {
    const enum tensor_layout layouts[] = {LAYOUT_CONTIGUOUS, LAYOUT_CONTIGUOUS, LAYOUT_TRANSPOSED,
                                          LAYOUT_REVERSED, LAYOUT_UNALIGNED};
    int64_t shape[ATTN_MAX_RANK];
    if (level == LSE_NONE) {
        return NULL;
    }
    memcpy(shape, lead, (size_t)lead_rank * sizeof *shape);
    shape[lead_rank] = rows;
    return pool_output(pool, dtype, lead_rank + 1, shape, layouts[level]);
}

int32_t scores_axes(int level, const option_shape *shape, int64_t *axes) {
    const int has_heads = level == SCORES_SHAPE_FULL || level == SCORES_SHAPE_PER_HEAD;
    const int has_batches = level == SCORES_SHAPE_FULL || level >= SCORES_SHAPE_PER_BATCH;
    const int has_rows = level == SCORES_SHAPE_FULL || level == SCORES_SHAPE_MATRIX ||
                         level == SCORES_SHAPE_COLUMN || level == SCORES_SHAPE_BATCH_ROWS;
    const int has_keys = level != SCORES_SHAPE_ONE && level != SCORES_SHAPE_COLUMN &&
                         level != SCORES_SHAPE_BATCH_ROWS;
    const int32_t all_rank = shape->lead_rank + 2;
    int64_t all[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < shape->lead_rank; ++axis) {
        const int is_head_axis = axis == shape->lead_rank - 1;
        all[axis] = (is_head_axis ? has_heads : has_batches) ? shape->lead[axis] : 1;
    }
    all[all_rank - 2] = has_rows ? shape->rows : 1;
    all[all_rank - 1] = has_keys ? shape->columns : 1;

    int32_t rank = 2;
    if (level == SCORES_SHAPE_VECTOR || level == SCORES_SHAPE_ONE) {
        rank = 1;
    } else if (level == SCORES_SHAPE_PER_HEAD && all_rank > 2) {
        rank = 3;
    } else if (has_batches) {
        rank = all_rank;
    }
    memcpy(axes, all + all_rank - rank, (size_t)rank * sizeof *axes);
    return rank;
}

static attn_tensor *build_bias(const factor_case *chosen, const option_shape *shape,
                               tensor_pool *pool, random_state *random) {
    int64_t axes[ATTN_MAX_RANK];
    int32_t kind;
    const int32_t rank = scores_axes(chosen->level[FACTOR_BIAS_SHAPE], shape, axes);
    return build_mask(chosen->level[FACTOR_BIAS], shape->dtype, rank, axes,
                      chosen->level[FACTOR_BIAS_LAYOUT], pool, random, &kind);
}

static const attn_dropout *dropout_of(int level) {
    static const attn_dropout dropouts[NUM_DROPOUT_LEVELS] = {
        [DROPOUT_HALF] = {.struct_size = sizeof(attn_dropout), .probability = 0.5, .seed = 17},
        [DROPOUT_TENTH_OF_A_PART] = {sizeof(attn_dropout), 0.1, 0xfedcba9876543210U, 3, 70001, 5, 9,
                                     22},
        [DROPOUT_MOST] = {.struct_size = sizeof(attn_dropout), .probability = 0.9, .offset = 1},
    };
    return level == DROPOUT_NONE ? NULL : &dropouts[level];
}

void build_attention_options(const factor_case *chosen, const option_shape *shape,
                             tensor_pool *pool, random_state *random, attn_sdpa_params *params) {
    const double softcaps[] = {0, 1.5, 30};
    set_scale(chosen->level[FACTOR_SCALE], params);
    set_window(chosen->level[FACTOR_WINDOW], shape->keys, params);
    params->softcap = softcaps[chosen->level[FACTOR_SOFTCAP]];
    params->normalizer = chosen->level[FACTOR_NORMALIZER];
    params->query_offset = build_offset(chosen->level[FACTOR_OFFSET], shape, pool, random);
    params->key_lengths = build_lengths(chosen->level[FACTOR_LENGTHS], shape, pool, random);
    params->align_end = chosen->level[FACTOR_ALIGN_END];
    params->mask_start = build_mask_start(chosen->level[FACTOR_MASK_START], shape, pool, random);
    params->bias = build_bias(chosen, shape, pool, random);
    params->position_bias =
        build_position_bias(chosen->level[FACTOR_POSITION_BIAS], shape, pool, random);
    build_blocks(chosen->level[FACTOR_BLOCKS], shape, pool, random, params);
    params->dropout = dropout_of(chosen->level[FACTOR_DROPOUT]);
    params->alibi_slopes =
        build_per_head(chosen->level[FACTOR_ALIBI], shape, -0.3, 0.7, pool, random);
    params->sinks = build_sinks(chosen->level[FACTOR_SINKS], shape, pool, random);
    params->lse = build_lse(chosen->level[FACTOR_LSE], score_dtype(shape->dtype), shape->lead_rank,
                            shape->lead, shape->rows, pool);
}

void sprinkle(const attn_tensor *tensor, random_state *random, double probability, double number) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(tensor->rank, tensor->shape) == 0) {
        return;
    }
    do {
        if (random_real(random, 0, 1) < probability) {
            oracle_store(tensor, index, number);
        }
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

attn_tensor *build_mask(int level, int32_t dtype, int32_t rank, const int64_t *shape, int layout,
                        tensor_pool *pool, random_state *random, int32_t *kind) {
    const double hidden_parts[] = {0.1, 0.5, 0.9};
    const double hidden_part = hidden_parts[random_between(random, 0, 2)];
    if (level == MASK_LEVEL_NONE) {
        *kind = ATTN_MASK_NONE;
        return NULL;
    }
    if (level == MASK_LEVEL_INCLUDE || level == MASK_LEVEL_EXCLUDE) {
        attn_tensor *mask =
            pool_input(pool, ATTN_DTYPE_BOOL, rank, shape, (enum tensor_layout)(layout - 1));
        random_fill_bool(mask, random, level == MASK_LEVEL_INCLUDE ? hidden_part : 1 - hidden_part);
        *kind = level == MASK_LEVEL_INCLUDE ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_BOOL_EXCLUDE;
        return mask;
    }
    const int is_float32 =
        level == MASK_LEVEL_ADDITIVE_FLOAT32 || level == MASK_LEVEL_HIDING_FLOAT32;
    attn_tensor *mask = pool_input(pool, is_float32 ? ATTN_DTYPE_FLOAT32 : dtype, rank, shape,
                                   (enum tensor_layout)(layout - 1));
    random_fill(mask, random, -2, 2, 0);
    if (level == MASK_LEVEL_HIDING || level == MASK_LEVEL_HIDING_FLOAT32) {
        sprinkle(mask, random, hidden_part, -INFINITY);
    }
    if (level == MASK_LEVEL_HUGE) {
        sprinkle(mask, random, hidden_part, -1e30);
    }
    if (level == MASK_LEVEL_LOWEST) {
        sprinkle(mask, random, hidden_part, -largest_of_dtype(mask->dtype));
    }
    *kind = ATTN_MASK_ADDITIVE;
    return mask;
}

attn_tensor *build_weights(const option_shape *shape, int32_t dtype, int is_averaged,
                           int64_t num_keys, int layout, tensor_pool *pool) {
    int64_t weights_shape[ATTN_MAX_RANK];
    const int32_t lead_rank =
        is_averaged && shape->lead_rank > 0 ? shape->lead_rank - 1 : shape->lead_rank;
    memcpy(weights_shape, shape->lead, sizeof weights_shape);
    weights_shape[lead_rank] = shape->rows;
    weights_shape[lead_rank + 1] = num_keys;
    return pool_output(pool, dtype, lead_rank + 2, weights_shape, (enum tensor_layout)(layout - 1));
}

void build_scores(const factor_case *chosen, const option_shape *shape, int64_t num_keys,
                  tensor_pool *pool, attn_sdpa_params *params) {
    static const int32_t stages[NUM_SCORES_LEVELS] = {0, ATTN_SCORE_SCALED, ATTN_SCORE_CAPPED,
                                                      ATTN_SCORE_MASKED};
    const int level = chosen->level[FACTOR_SCORES];
    if (level != SCORES_NONE) {
        params->scores = build_weights(shape, score_dtype(shape->dtype), 0, num_keys,
                                       chosen->level[FACTOR_SCORES_LAYOUT], pool);
        params->scores_stage = stages[level];
    }
}

void fill_operand(const factor_case *chosen, const attn_tensor *tensor, int is_value,
                  random_state *random) {
    switch (chosen->level[FACTOR_VALUES]) {
    case VALUES_ORDINARY:
        random_fill(tensor, random, -1, 1, 0);
        break;
    case VALUES_LARGE:
        random_fill(tensor, random, is_value ? -30 : -6, is_value ? 30 : 6, 0);
        break;
    default:
        random_fill(tensor, random, -2, 2, 1);
        break;
    }
}
