/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_factors.c: the factors of attn_sdpa calls, their rules, and the tensors a case stands for.
 */
#include <stdlib.h>
#include <string.h>

#include "attention_options.h"
#include "hidden_rows.h"
#include "sdpa_case.h"
#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

static const char *const rank_names[] = {"2,2,2", "3,3,3", "4,4,4", "5,5,5", "8,8,8",
                                         "4,3,3", "3,4,4", "4,4,5", "2,4,3"};
static const int32_t ranks[][3] = {{2, 2, 2}, {3, 3, 3}, {4, 4, 4}, {5, 5, 5}, {8, 8, 8},
                                   {4, 3, 3}, {3, 4, 4}, {4, 4, 5}, {2, 4, 3}};
enum { NUM_RANKS = 9, RANKS_TWO = 0, RANKS_QUERY_TWO = 8 };

static const char *const batch_names[] = {"1", "2", "3", "0"};
static const int64_t batches[] = {1, 2, 3, 0};

static const char *const broadcast_names[] = {"none",  "query",         "key",
                                              "value", "key_and_value", "crossed"};
enum broadcast_level {
    BROADCAST_NONE,
    BROADCAST_QUERY,
    BROADCAST_KEY,
    BROADCAST_VALUE,
    BROADCAST_KEY_AND_VALUE,
    BROADCAST_CROSSED
};

typedef struct heads_level {
    int64_t query, key, value;
    int is_grouped;
} heads_level;
static const char *const heads_names[] = {"1,1,1",  "3,3,3", "4,2,2g", "6,2,3g", "4,1,4g",
                                          "2,2,2g", "4,1,1", "1,4,4",  "1,1,3",  "0,0,0"};
static const heads_level heads[] = {{1, 1, 1, 0}, {3, 3, 3, 0}, {4, 2, 2, 1}, {6, 2, 3, 1},
                                    {4, 1, 4, 1}, {2, 2, 2, 1}, {4, 1, 1, 0}, {1, 4, 4, 0},
                                    {1, 1, 3, 0}, {0, 0, 0, 0}};
enum { NUM_HEADS_LEVELS = 10, HEADS_NONE = 9 };

static const char *const features_names[] = {"1", "3", "8", "31", "64", "0"};
static const int64_t features[] = {1, 3, 8, 31, 64, 0};
static const char *const value_features_names[] = {"1", "5", "16", "37", "64", "0"};
static const int64_t value_features[] = {1, 5, 16, 37, 64, 0};
enum { FEATURES_ZERO = 5 };

static const char *const keys_names[NUM_KEYS_LEVELS] = {
    "arguments", "caches", "behind", "pages_1", "pages_16", "pages_17", "lists"};
static const char *const queries_names[NUM_QUERIES_LEVELS] = {"batched", "ragged"};

/* The axes the output has in all: what must fit the ranks. */
static int32_t largest_rank(int level) {
    const int32_t *r = ranks[level];
    const int32_t larger = r[0] > r[1] ? r[0] : r[1];
    return larger > r[2] ? larger : r[2];
}

/* Whether keys may be so for any batch axes: then each sequence has a place in a table. */
static int is_for_any_batch(int keys_level) {
    return keys_level >= KEYS_IN_PAGES_1 && keys_level <= KEYS_IN_PAGES_17;
}

static int rank_rule(int level, int other, int other_level) {
    const int has_batches = largest_rank(level) > 3, has_one_batch_axis = largest_rank(level) == 4;
    switch (other) {
    case SDPA_BATCH:
        return has_batches || other_level == 0;
    case SDPA_BROADCAST:
        return has_batches || other_level == BROADCAST_NONE;
    case SDPA_HEADS:
        return (level != RANKS_TWO || other_level == 0) &&
               (level != RANKS_QUERY_TWO || heads[other_level].query == 1);
    case SDPA_MASK_SHAPE:
        return (level != RANKS_TWO || other_level < SCORES_SHAPE_PER_HEAD) &&
               (has_batches || other_level < SCORES_SHAPE_PER_BATCH);
    case SDPA_KEYS_IN:
        return other_level <= KEYS_IN_CACHES ||
               (is_for_any_batch(other_level) ? level != RANKS_TWO : has_one_batch_axis);
    case SDPA_QUERIES:
        return other_level == QUERIES_BATCHED || has_one_batch_axis;
    default:
        return 1;
    }
}

static int sdpa_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == SDPA_RANKS) {
        return rank_rule(level_a, factor_b, level_b);
    }
    if (factor_b == SDPA_MASK_SHAPE &&
        (factor_a == FACTOR_MASK || factor_a == FACTOR_MASK_LAYOUT)) {
        return (level_a == 0) == (level_b == SCORES_SHAPE_NONE);
    }
    if (factor_a == FACTOR_MASK_START && level_a != 0 && factor_b == SDPA_MASK_SHAPE) {
        return level_b != SCORES_SHAPE_NONE;
    }
    if (factor_a == FACTOR_OPTIONS && level_a == OPTIONS_ABSENT && factor_b == SDPA_HEADS) {
        return !heads[level_b].is_grouped;
    }
    if (factor_a == FACTOR_OPTIONS && level_a == OPTIONS_ABSENT && factor_b == SDPA_MASK_SHAPE) {
        return level_b == SCORES_SHAPE_NONE;
    }
    if (factor_a == FACTOR_OPTIONS && level_a == OPTIONS_ABSENT &&
        (factor_b == SDPA_KEYS_IN || factor_b == SDPA_QUERIES)) {
        return level_b == 0;
    }
    if ((factor_a == FACTOR_SCORES || factor_a == FACTOR_SCORES_LAYOUT) &&
        (factor_b == SDPA_KEYS_IN || factor_b == SDPA_QUERIES)) {
        return level_a == 0 || level_b == 0; /* test_key_sources.c has the others */
    }
    if (factor_a == FACTOR_POISON && level_a == POISON_MASK && factor_b == SDPA_MASK_SHAPE) {
        return level_b != SCORES_SHAPE_NONE;
    }
    if (factor_a == FACTOR_DTYPE && level_a == DTYPE_OF_DOUBLE &&
        (factor_b == SDPA_KEY_TYPE || factor_b == SDPA_VALUE_TYPE)) {
        return level_b == STORED_AS_QUERY;
    }
    return shared_rule(factor_a, level_a, factor_b, level_b);
}

factor_set sdpa_factor_set(void) {
    factor_set set = {.is_allowed = sdpa_rule, .can_compute = can_see_keys};
    add_shared_factors(&set);
    add_factor(&set, SDPA_RANKS, "ranks", NUM_RANKS, rank_names, 0);
    add_factor(&set, SDPA_BATCH, "batch", 4, batch_names, 1u << 3);
    add_factor(&set, SDPA_BROADCAST, "broadcast", 6, broadcast_names, 0);
    add_factor(&set, SDPA_HEADS, "heads", NUM_HEADS_LEVELS, heads_names, 1u << HEADS_NONE);
    add_factor(&set, SDPA_FEATURES, "E", 6, features_names, 0);
    add_factor(&set, SDPA_VALUE_FEATURES, "Ev", 6, value_features_names, 1u << FEATURES_ZERO);
    add_factor(&set, SDPA_MASK_SHAPE, "mask_shape", NUM_SCORES_SHAPES, scores_shape_names, 0);
    add_factor(&set, SDPA_HIDDEN, "hidden_rows", NUM_HIDDEN_LEVELS, hidden_names, 0);
    add_factor(&set, SDPA_KEY_TYPE, "key_type", NUM_STORED_LEVELS, stored_names, 0);
    add_factor(&set, SDPA_VALUE_TYPE, "value_type", NUM_STORED_LEVELS, stored_names, 0);
    add_factor(&set, SDPA_OUTPUT_TYPE, "output_type", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, SDPA_WEIGHTS_TYPE, "weights_type", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, SDPA_KEYS_IN, "keys_in", NUM_KEYS_LEVELS, keys_names, 0);
    add_factor(&set, SDPA_QUERIES, "queries", NUM_QUERIES_LEVELS, queries_names, 0);
    return set;
}

enum operand { OPERAND_QUERY, OPERAND_KEY, OPERAND_VALUE };

/* Whether an operand has length 1 on the batch axis `from_end` (4: the last one). */
static int is_broadcast(int level, enum operand operand, int32_t from_end) {
    switch (level) {
    case BROADCAST_QUERY:
        return operand == OPERAND_QUERY;
    case BROADCAST_KEY:
        return operand == OPERAND_KEY;
    case BROADCAST_VALUE:
        return operand == OPERAND_VALUE;
    case BROADCAST_KEY_AND_VALUE:
        return operand != OPERAND_QUERY;
    case BROADCAST_CROSSED:
        return operand == (from_end == 4 ? OPERAND_QUERY : OPERAND_KEY);
    default:
        return 0;
    }
}

typedef struct operand_sizes {
    int64_t heads, rows, columns;
} operand_sizes;

static int32_t operand_dtype(const factor_case *chosen, enum operand operand) {
    const int factors[] = {SDPA_RANKS, SDPA_KEY_TYPE, SDPA_VALUE_TYPE};
    const int level = operand == OPERAND_QUERY ? STORED_AS_QUERY : chosen->level[factors[operand]];
    return stored_dtype(level, dtype_of_case(chosen));
}

static attn_tensor *build_operand(const factor_case *chosen, enum operand operand,
                                  operand_sizes sizes, random_state *random, tensor_pool *pool) {
    const int32_t rank = ranks[chosen->level[SDPA_RANKS]][operand];
    int64_t shape[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < rank; ++axis) {
        const int32_t from_end = rank - axis;
        /* The batch axes are (1, 1, 1, 2, B) as far as the rank has them. */
        shape[axis] = from_end == 4 ? batches[chosen->level[SDPA_BATCH]] : from_end == 5 ? 2 : 1;
        if (is_broadcast(chosen->level[SDPA_BROADCAST], operand, from_end)) {
            shape[axis] = 1;
        }
    }
    if (rank > 2) {
        shape[rank - 3] = sizes.heads;
    }
    shape[rank - 2] = sizes.rows;
    shape[rank - 1] = sizes.columns;
    const enum tensor_layout layout = chosen->level[FACTOR_QUERY_LAYOUT + operand];
    attn_tensor *tensor = pool_input(pool, operand_dtype(chosen, operand), rank, shape, layout);
    fill_operand(chosen, tensor, operand == OPERAND_VALUE, random);
    return tensor;
}

/* (H, rows of all sequences, E), and where each begins. */
static attn_tensor *build_ragged(const factor_case *chosen, operand_sizes sizes,
                                 random_state *random, sdpa_call *call) {
    const int64_t sequences = batches[chosen->level[SDPA_BATCH]], count = sequences + 1;
    const int64_t shape[] = {sizes.heads, sequences * sizes.rows, sizes.columns};
    attn_tensor *query = pool_input(&call->pool, dtype_of_case(chosen), 3, shape,
                                    chosen->level[FACTOR_QUERY_LAYOUT]);
    attn_tensor *starts =
        pool_input(&call->pool, index_dtype_of_level(chosen->level[FACTOR_INDEX_DTYPE]), 1, &count,
                   LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < count; ++i) {
        oracle_store_integer(starts, &i, i * sizes.rows);
    }
    fill_operand(chosen, query, 0, random);
    call->params.query_starts = starts;
    return query;
}

/* The shape of a call's output, and of what goes with it. */
static oracle_sdpa_shape options_shape(const factor_case *chosen, const sdpa_call *call,
                                       option_shape *shape) {
    const int is_ragged = call->params.query_starts != NULL;
    const int64_t keys = call->key->shape[call->key->rank - 2];
    oracle_sdpa_shape out =
        oracle_sdpa_output_shape(&call->seen.query, call->key, call->value, &call->params);
    *shape = (option_shape){.dtype = call->query->dtype,
                            .index_dtype = index_dtype_of_level(chosen->level[FACTOR_INDEX_DTYPE]),
                            .keys = keys,
                            .columns = sdpa_case_columns(chosen, keys),
                            .is_ragged = is_ragged,
                            .sequences = is_ragged ? out.shape[0] : 0};
    if (is_ragged) {
        memmove(out.shape, out.shape + 1, 3 * sizeof *out.shape);
        out.shape[1] *= shape->sequences;
        out.rank = 3;
    }
    shape->lead_rank = out.rank - 2;
    shape->rows = out.shape[out.rank - 2];
    shape->heads = out.rank > 2 ? out.shape[out.rank - 3] : 1;
    memcpy(shape->lead, out.shape, sizeof shape->lead);
    return out;
}

static void build_options(const factor_case *chosen, random_state *random, sdpa_call *call) {
    option_shape shape;
    const oracle_sdpa_shape out = options_shape(chosen, call, &shape);
    build_attention_options(chosen, &shape, &call->pool, random, &call->params);
    call->params.is_causal = chosen->level[FACTOR_CAUSAL];
    if (chosen->level[FACTOR_MASK] != MASK_LEVEL_NONE) {
        int64_t axes[ATTN_MAX_RANK];
        option_shape of_mask = shape;
        of_mask.columns = mask_columns(chosen, shape.columns, random);
        const int32_t rank = scores_axes(chosen->level[SDPA_MASK_SHAPE], &of_mask, axes);
        call->params.mask = build_mask(chosen->level[FACTOR_MASK], shape.dtype, rank, axes,
                                       chosen->level[FACTOR_MASK_LAYOUT], &call->pool, random,
                                       &call->params.mask_kind);
    }
    if (chosen->level[FACTOR_WEIGHTS] != WEIGHTS_NONE) {
        const int is_averaged = chosen->level[FACTOR_WEIGHTS] == WEIGHTS_AVERAGED;
        call->params.weights =
            build_weights(&shape, result_dtype(chosen, SDPA_WEIGHTS_TYPE), is_averaged,
                          shape.columns, chosen->level[FACTOR_WEIGHTS_LAYOUT], &call->pool);
    }
    build_scores(chosen, &shape, shape.keys, &call->pool, &call->params);
    call->output = pool_output(&call->pool, result_dtype(chosen, SDPA_OUTPUT_TYPE), out.rank,
                               out.shape, chosen->level[FACTOR_OUTPUT_LAYOUT]);
}

typedef struct case_sizes {
    int64_t rows, keys, features, value_features;
} case_sizes;

static int64_t feature_count(int64_t of_level, int free_lengths, random_state *random) {
    if (free_lengths == FREE_NONE || of_level <= 1) {
        return of_level;
    }
    const int is_wide = free_lengths == FREE_LONG && random_between(random, 0, 2) == 0;
    return is_wide ? random_between(random, 2, 300)
                   : draw_length(free_lengths == FREE_LONG ? FREE_SHORT : free_lengths, random);
}

/* Few rows over so many keys that these are split between threads. */
static void make_decoding(random_state *random, case_sizes *sizes) {
    sizes->rows = random_between(random, 1, 12);
    sizes->keys = random_between(random, 700, 9000);
}

/* The oracle takes its time: sizes shrink until the multiplications are few, but for one call in
 * sixteen. */
static void limit_work(const factor_case *chosen, random_state *random, case_sizes *sizes) {
    const heads_level *h = &heads[chosen->level[SDPA_HEADS]];
    const int32_t rank = largest_rank(chosen->level[SDPA_RANKS]);
    const int64_t all_heads = (h->query > h->value ? h->query : h->value) *
                              (rank > 3 ? batches[chosen->level[SDPA_BATCH]] : 1) *
                              (rank > 4 ? 2 : 1);
    const double most = random_between(random, 0, 15) == 0 ? 3e7 : 3e6;
    while ((double)all_heads * (double)sizes->rows * (double)sizes->keys *
               (double)(sizes->features + sizes->value_features) >
           most) {
        int64_t *shrunk[] = {&sizes->rows, &sizes->keys, &sizes->features, &sizes->value_features};
        int64_t *one = shrunk[random_between(random, 0, 3)];
        *one -= *one / 4;
    }
}

static case_sizes draw_sizes(const factor_case *chosen, int free_lengths, random_state *random) {
    case_sizes sizes = {
        .rows = length_of_level(chosen->level[FACTOR_ROWS], free_lengths, random),
        .keys = length_of_level(chosen->level[FACTOR_KEYS], free_lengths, random),
        .features = feature_count(features[chosen->level[SDPA_FEATURES]], free_lengths, random),
        .value_features =
            feature_count(value_features[chosen->level[SDPA_VALUE_FEATURES]], free_lengths, random),
    };
    if (free_lengths == FREE_LONG && sizes.rows > 0 && sizes.keys > 1) {
        if (random_between(random, 0, 3) == 0) {
            make_decoding(random, &sizes);
        }
        limit_work(chosen, random, &sizes);
    }
    return sizes;
}

void sdpa_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, sdpa_call *call) {
    random_state random = random_seeded(seed);
    const heads_level *h = &heads[chosen->level[SDPA_HEADS]];
    const case_sizes s = draw_sizes(chosen, free_lengths, &random);
    const operand_sizes of_query = {h->query, s.rows, s.features};
    const int is_ragged = chosen->level[SDPA_QUERIES] == QUERIES_RAGGED;
    const int64_t sequences = is_ragged ? batches[chosen->level[SDPA_BATCH]] : 0;
    *call = (sdpa_call){.params = {.struct_size = sizeof call->params},
                        .report = {.struct_size = sizeof call->report}};
    call->query = is_ragged ? build_ragged(chosen, of_query, &random, call)
                            : build_operand(chosen, OPERAND_QUERY, of_query, &random, &call->pool);
    call->seen.query = is_ragged ? split_rows(call->query, 2, sequences, s.rows) : *call->query;
    call->key = build_operand(chosen, OPERAND_KEY, (operand_sizes){h->key, s.keys, s.features},
                              &random, &call->pool);
    call->value =
        build_operand(chosen, OPERAND_VALUE, (operand_sizes){h->value, s.keys, s.value_features},
                      &random, &call->pool);
    call->params.enable_gqa = h->is_grouped;
    build_options(chosen, &random, call);
    call->params.report = &call->report;
    call->given_params = chosen->level[FACTOR_OPTIONS] == OPTIONS_ABSENT ? NULL : &call->params;
    sdpa_case_set_seen(chosen, s.keys, sequences, s.rows, call);
    sdpa_case_poison(chosen, &random, call);
    sdpa_case_place_keys(chosen, seed, call);
}

void sdpa_call_destroy(sdpa_call *call) {
    free(call->seen.key.data);
    free(call->seen.value.data);
    pool_destroy(&call->pool);
}
