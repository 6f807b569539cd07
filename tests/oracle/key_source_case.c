/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source_case.c: builds calls over sequences, and each sequence's own.
 */
#include "key_source_places.h"

#include <string.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static const char *const engine_names[] = {"fused_float32", "fused_bfloat16", "fused_float16",
                                           "fused_mixed",   "native_float32", "native_bfloat16",
                                           "native_float64"};
static const int32_t dtype_of[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT16,
                                   ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT32,  ATTN_DTYPE_BFLOAT16,
                                   ATTN_DTYPE_FLOAT64};

static const char *const kind_names[NUM_KINDS] = {"tensors",  "starts",    "pages_1", "pages_16",
                                                  "pages_17", "pages_128", "flat_3",  "flat_32"};

static const char *const lengths_names[] = {"given", "none"};
static const char *const rows_names[] = {"1", "3", "70", "ragged_1", "ragged_few", "ragged_many"};
static const char *const keys_names[] = {"few", "hundreds", "thousands"};
static const char *const batch_names[] = {"1", "2", "9"};
static const int64_t batch_of[] = {1, 2, 9};
static const char *const heads_names[] = {"1,1", "2,2", "4,1", "6,2"};
static const char *const feature_names[] = {"8,8", "40,24", "64,64", "7,33"};
enum positions { ALL_KEYS, CAUSAL_END, CAUSAL_OFFSETS, WINDOW };
static const char *const position_names[] = {"none", "causal_end", "causal_offsets", "window"};
enum masks { NO_MASK, BOOL_MASK, ADDITIVE_MASK };
static const char *const mask_names[] = {"none", "bool", "additive"};
static const char *const bias_names[] = {"none", "per_head"};
enum options { PLAIN, ALIBI_CAPPED, SINKS, SIGMOID, LINEAR };
static const char *const option_names[] = {"none", "alibi_softcap", "sinks", "sigmoid", "linear"};
enum outputs { OUTPUT_ALONE, LSE, WEIGHTS, AVERAGED, CAPPED_SCORES, MASKED_SCORES };
static const char *const output_names[] = {"output",   "lse",    "weights",
                                           "averaged", "capped", "masked"};
static const char *const value_names[] = {"finite", "infinite_where_hidden_from_some"};
static const char *const index_names[] = {"int64", "int32"};
static const char *const workspace_names[] = {"library", "exact"};
static const char *const thread_names[] = {"1", "2", "7"};
const int32_t source_threads_of[NUM_SOURCE_THREADS] = {1, 2, 7};

/* Many sequences of many keys, or of many rows, say no more, and take long. A row that hides an
 * infinite value by its mask alone may be NaN or finite, by what rows share its tile (sdpa.h). */
static int is_compared(int factor_a, int level_a, int factor_b, int level_b) {
    int levels[SOURCE_FACTORS] = {0};
    levels[factor_a] = level_a;
    levels[factor_b] = level_b;
    const int is_wide = levels[SOURCE_BATCH] == 2;
    const int is_long = levels[SOURCE_KEYS] == 2;
    const int is_tall = levels[SOURCE_ROWS] == ROWS_SEVENTY || levels[SOURCE_ROWS] == RAGGED_MANY;
    const int is_unspecified = levels[SOURCE_VALUES] == 1 && levels[SOURCE_MASKS] == BOOL_MASK;
    return !(is_long && (is_wide || is_tall)) && !is_unspecified;
}

#define FACTOR(name, names) \
    { name, (int)(sizeof names / sizeof names[0]), names, 0 }

factor_set source_factor_set(void) {
    factor_set set = {.factors = {[SOURCE_ENGINE] = FACTOR("engine", engine_names),
                                  [SOURCE_KIND] = FACTOR("keys_in", kind_names),
                                  [SOURCE_LENGTHS] = FACTOR("lengths", lengths_names),
                                  [SOURCE_ROWS] = FACTOR("L", rows_names),
                                  [SOURCE_KEYS] = FACTOR("S", keys_names),
                                  [SOURCE_BATCH] = FACTOR("batch", batch_names),
                                  [SOURCE_HEADS] = FACTOR("heads", heads_names),
                                  [SOURCE_FEATURES] = FACTOR("E,Ev", feature_names),
                                  [SOURCE_POSITIONS] = FACTOR("positions", position_names),
                                  [SOURCE_MASKS] = FACTOR("mask", mask_names),
                                  [SOURCE_BIAS] = FACTOR("bias", bias_names),
                                  [SOURCE_OPTIONS] = FACTOR("options", option_names),
                                  [SOURCE_OUTPUTS] = FACTOR("outputs", output_names),
                                  [SOURCE_VALUES] = FACTOR("values", value_names),
                                  [SOURCE_INDICES] = FACTOR("indices", index_names),
                                  [SOURCE_WORKSPACE] = FACTOR("workspace", workspace_names),
                                  [SOURCE_THREADS] = FACTOR("threads", thread_names)},
                      .count = SOURCE_FACTORS,
                      .is_allowed = is_compared};
    static const char *const layouts_of[] = {"key", "value", "query", "output"};
    for (int f = SOURCE_KEY_LAYOUT; f <= SOURCE_OUTPUT_LAYOUT; ++f) {
        set.factors[f] = (factor){layouts_of[f - SOURCE_KEY_LAYOUT], LAYOUT_UNALIGNED + 1,
                                  tensor_layout_names, 0};
    }
    return set;
}

/* ---- what has rows ---- */

/* Rows of all sequences: (batch, ...) or, one behind the other, without that axis. Two rows behind
 * the last are nobody's. */
static attn_tensor *add_rows(source_case *built, int is_output, int32_t dtype, int32_t rank,
                             const int64_t *shape, int32_t row_axis, int layout) {
    int64_t own[4];
    memcpy(own, shape, (size_t)rank * sizeof *shape);
    const int is_ragged = source_is_ragged(built);
    const int64_t last = built->batch - 1;
    own[0] = built->batch;
    own[row_axis] = is_ragged ? built->first_row[last] + built->rows[last] + 2 : built->rows[last];
    return (is_output ? pool_output : pool_input)(&built->all.pool, dtype, rank - is_ragged,
                                                  own + is_ragged, (enum tensor_layout)layout);
}

static void set_queries(source_case *built) {
    const int64_t heads = source_heads_of[source_level(built, SOURCE_HEADS)][0];
    const int64_t query[] = {0, heads, 0,
                             source_features_of[source_level(built, SOURCE_FEATURES)][0]};
    built->all.query =
        add_rows(built, 0, built->dtype, 4, query, 2, source_level(built, SOURCE_QUERY_LAYOUT));
    random_fill(built->all.query, &built->random, -1, 1, 0);
    if (source_is_ragged(built)) {
        attn_tensor *starts = source_add_integers(built, built->batch + 1);
        const int64_t last = built->batch - 1;
        for (int64_t b = 0; b < built->batch; ++b) {
            source_store(starts, b, built->first_row[b]);
        }
        source_store(starts, built->batch, built->first_row[last] + built->rows[last]);
        built->all.params.query_starts = starts;
    }
}

static void set_positions(source_case *built) {
    const int positions = source_level(built, SOURCE_POSITIONS);
    attn_sdpa_params *params = &built->all.params;
    params->is_causal = positions == CAUSAL_END || positions == CAUSAL_OFFSETS;
    params->align_end = positions == CAUSAL_END;
    if (positions == WINDOW) {
        params->set = ATTN_SDPA_SET_WINDOW;
        params->window_left = 19;
        params->window_right = 3;
    }
    if (positions == CAUSAL_OFFSETS || positions == WINDOW) {
        attn_tensor *offsets = source_add_integers(built, built->batch);
        for (int64_t b = 0; b < built->batch; ++b) {
            source_store(offsets, b, random_between(&built->random, -2, built->keys[b]));
        }
        params->query_offset = offsets;
    }
}

static attn_tensor *add_dense(source_case *built, int32_t dtype, int64_t heads) {
    const int64_t shape[] = {0, heads, 0, built->columns};
    attn_tensor *dense = add_rows(built, 0, dtype, 4, shape, 2, LAYOUT_CONTIGUOUS);
    if (dtype == ATTN_DTYPE_BOOL) {
        random_fill_bool(dense, &built->random, 0.3);
    } else {
        random_fill(dense, &built->random, -2, 2, 0);
    }
    return dense;
}

static void set_options(source_case *built) {
    const int64_t heads = source_heads_of[source_level(built, SOURCE_HEADS)][0];
    const int masks = source_level(built, SOURCE_MASKS),
              options = source_level(built, SOURCE_OPTIONS);
    attn_sdpa_params *params = &built->all.params;
    if (masks != NO_MASK) {
        params->mask_kind = masks == BOOL_MASK ? ATTN_MASK_BOOL_EXCLUDE : ATTN_MASK_ADDITIVE;
        params->mask = add_dense(built, masks == BOOL_MASK ? ATTN_DTYPE_BOOL : built->dtype, 1);
    }
    if (source_level(built, SOURCE_BIAS) == 1) {
        params->bias = add_dense(built, built->dtype, heads);
    }
    if (options == ALIBI_CAPPED || options == SINKS) {
        attn_tensor *of_heads =
            pool_input(&built->all.pool, built->dtype, 1, &heads, LAYOUT_CONTIGUOUS);
        random_fill(of_heads, &built->random, 0, 0.125, 0);
        params->softcap = options == ALIBI_CAPPED ? 2 : 0;
        params->alibi_slopes = options == ALIBI_CAPPED ? of_heads : NULL;
        params->sinks = options == SINKS ? of_heads : NULL;
    }
    params->normalizer = options == SIGMOID  ? ATTN_NORMALIZER_SIGMOID
                         : options == LINEAR ? ATTN_NORMALIZER_LINEAR
                                             : ATTN_NORMALIZER_SOFTMAX;
}

static int wants_lse(const source_case *built) {
    return source_level(built, SOURCE_OUTPUTS) == LSE &&
           built->all.params.normalizer == ATTN_NORMALIZER_SOFTMAX;
}

static int32_t lse_dtype(const source_case *built) {
    return built->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

/* A number that no result is: what nobody writes keeps it. */
static attn_tensor *add_output(source_case *built, int32_t dtype, int32_t rank,
                               const int64_t *shape, int32_t row_axis, int layout) {
    attn_tensor *output = add_rows(built, 1, dtype, rank, shape, row_axis, layout);
    int64_t index[4] = {0};
    if (oracle_count(output->rank, output->shape) > 0) {
        do {
            oracle_store(output, index, 7777);
        } while (oracle_next_index(output->rank, output->shape, index));
    }
    return output;
}

static void set_outputs(source_case *built) {
    const int64_t heads = source_heads_of[source_level(built, SOURCE_HEADS)][0];
    const int64_t output[] = {0, heads, 0,
                              source_features_of[source_level(built, SOURCE_FEATURES)][1]};
    const int64_t lse[] = {0, heads, 0};
    const int64_t weights[] = {0, heads, 0, built->columns};
    const int64_t averaged[] = {0, 0, built->columns};
    const int outputs = source_level(built, SOURCE_OUTPUTS);
    source_call *all = &built->all;
    all->output =
        add_output(built, built->dtype, 4, output, 2, source_level(built, SOURCE_OUTPUT_LAYOUT));
    if (wants_lse(built)) {
        all->lse = add_output(built, lse_dtype(built), 3, lse, 2, LAYOUT_CONTIGUOUS);
    } else if (outputs == WEIGHTS) {
        all->weights = add_output(built, built->dtype, 4, weights, 2, LAYOUT_CONTIGUOUS);
    } else if (outputs == AVERAGED) {
        all->weights = add_output(built, built->dtype, 3, averaged, 1, LAYOUT_CONTIGUOUS);
    }
    if (outputs >= CAPPED_SCORES) {
        all->scores = add_output(built, lse_dtype(built), 4, weights, 2, LAYOUT_CONTIGUOUS);
        all->params.scores_stage = outputs == CAPPED_SCORES ? ATTN_SCORE_CAPPED : ATTN_SCORE_MASKED;
    }
    all->params.lse = all->lse;
    all->params.weights = all->weights;
    all->params.scores = all->scores;
}

void source_case_build(source_case *built, const factor_case *chosen, uint64_t seed) {
    memset(built, 0, sizeof *built);
    built->chosen = chosen;
    built->random = random_seeded(seed);
    built->dtype = dtype_of[source_level(built, SOURCE_ENGINE)];
    built->batch = batch_of[source_level(built, SOURCE_BATCH)];
    built->all.params.struct_size = sizeof built->all.params;
    built->all.params.enable_gqa = 1;
    source_choose_rows(built);
    source_choose_keys(built);
    source_set_keys(built);
    set_queries(built);
    set_positions(built);
    set_options(built);
    set_outputs(built);
}

void source_case_destroy(source_case *built) {
    pool_destroy(&built->all.pool);
}

/* ---- a sequence alone ---- */

/* Contiguous, (1, ...): the rows of a sequence of what has rows of all, and of its columns the
 * first `columns`. */
static attn_tensor *rows_alone(const source_case *built, int64_t sequence, const attn_tensor *all,
                               int32_t row_axis, int64_t columns, int is_output,
                               tensor_pool *pool) {
    const int is_ragged = source_is_ragged(built);
    int64_t shape[4] = {1, 1, 1, 1}, index[4] = {0};
    if (all == NULL) {
        return NULL;
    }
    for (int32_t axis = 1; axis < all->rank + is_ragged; ++axis) {
        shape[axis] = all->shape[axis - is_ragged];
    }
    const int32_t rank = all->rank + is_ragged;
    shape[row_axis] = built->rows[sequence];
    shape[rank - 1] = columns >= 0 ? columns : shape[rank - 1];
    attn_tensor *alone =
        (is_output ? pool_output : pool_input)(pool, all->dtype, rank, shape, LAYOUT_CONTIGUOUS);
    if (is_output || oracle_count(rank, shape) == 0) {
        return alone;
    }
    do {
        int64_t source[4];
        memcpy(source, index, sizeof source);
        source[0] = sequence;
        source[row_axis] += is_ragged ? built->first_row[sequence] : 0;
        memcpy(oracle_address(alone, index), oracle_address(all, source + is_ragged),
               attn_dtype_size_bytes(all->dtype));
    } while (oracle_next_index(rank, shape, index));
    return alone;
}

static attn_tensor *keys_alone(const source_case *built, int64_t sequence, const attn_tensor *all,
                               tensor_pool *pool) {
    const int64_t shape[] = {1, source_heads_of[source_level(built, SOURCE_HEADS)][1],
                             built->keys[sequence], all->shape[all->rank - 1]};
    int64_t index[4] = {0}, source[4];
    attn_tensor *alone = pool_input(pool, all->dtype, 4, shape, LAYOUT_CONTIGUOUS);
    if (oracle_count(4, shape) == 0) {
        return alone;
    }
    do {
        source_place_key(built, sequence, index[1], index[2], index[3], source);
        memcpy(oracle_address(alone, index), oracle_address(all, source),
               attn_dtype_size_bytes(all->dtype));
    } while (oracle_next_index(4, shape, index));
    return alone;
}

void source_sequence_build(source_case *built, int64_t sequence, source_call *alone) {
    const source_call *all = &built->all;
    const int64_t keys = built->keys[sequence];
    memset(alone, 0, sizeof *alone);
    alone->params = all->params;
    alone->params.kv = NULL;
    alone->params.query_starts = NULL;
    alone->query = rows_alone(built, sequence, all->query, 2, -1, 0, &alone->pool);
    alone->key = keys_alone(built, sequence, all->key, &alone->pool);
    alone->value = keys_alone(built, sequence, all->value, &alone->pool);
    alone->output = rows_alone(built, sequence, all->output, 2, -1, 1, &alone->pool);
    alone->lse = rows_alone(built, sequence, all->lse, 2, built->rows[sequence], 1, &alone->pool);
    const int is_averaged = source_level(built, SOURCE_OUTPUTS) == AVERAGED;
    alone->weights =
        rows_alone(built, sequence, all->weights, is_averaged ? 1 : 2, keys, 1, &alone->pool);
    alone->scores = rows_alone(built, sequence, all->scores, 2, keys, 1, &alone->pool);
    alone->params.scores = alone->scores;
    alone->params.lse = alone->lse;
    alone->params.weights = alone->weights;
    alone->params.mask = rows_alone(built, sequence, all->params.mask, 2, keys, 0, &alone->pool);
    alone->params.bias = rows_alone(built, sequence, all->params.bias, 2, keys, 0, &alone->pool);
    if (all->params.query_offset != NULL) {
        attn_tensor *offset =
            pool_input(&alone->pool, ATTN_DTYPE_INT64, 0, NULL, LAYOUT_CONTIGUOUS);
        oracle_store_integer(offset, NULL, oracle_integer(all->params.query_offset, &sequence));
        alone->params.query_offset = offset;
    }
}
