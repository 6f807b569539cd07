/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_case.c: the factors of attn_rope calls, the tensors of a case, the call and its comparison.
 */
#include "rope_case.h"

#include <math.h>
#include <string.h>

#include "attention_options.h"
#include "support/oracle_rope.h"

static const char *const options_names[] = {"present", "absent"};
static const char *const rank_names[] = {"2", "3", "4", "5", "8"};
static const int32_t ranks[] = {2, 3, 4, 5, 8};
static const char *const feature_names[] = {"2", "8", "34", "130", "1100", "0"};
static const int64_t widths[] = {2, 8, 34, 130, 1100, 0};
static const char *const rotary_dim_names[] = {"all", "2", "half", "E"};
static const char *const lead_names[] = {"some", "one", "zero"};
static const char *const switch_names[] = {"off", "on"};
static const char *const magnitude_names[] = {"1", "1.25", "-0.5"};
static const double magnitudes[] = {0, 1.25, -0.5};
static const char *const source_names[] = {"default",     "base 500000", "base 0.25",
                                           "frequencies", "table",       "table of rows"};
static const char *const places_names[] = {"none",
                                           "positions",
                                           "positions per batch",
                                           "positions of batches",
                                           "negative positions",
                                           "far positions",
                                           "length",
                                           "lengths per batch"};
static const char *const output_names[] = {"contiguous", "sequence_first", "packed",    "step_two",
                                           "transposed", "reversed",       "unaligned", "in_place"};
static const char *const special_names[] = {"none", "nan", "inf"};

enum {
    ROWS_ZERO = 0,
    WIDTH_ZERO = 5,
    LEAD_ONE = 1,
    LEAD_ZERO = 2,
    RANK_THREE = 1,
    OUTPUT_IN_PLACE = LAYOUT_NUM_OUTPUT,
    TABLE_ROWS = 90,
    LONGEST_ROW = 300
};
enum dim_level { DIM_ALL, DIM_TWO, DIM_HALF, DIM_GIVEN };
enum source_level {
    SOURCE_DEFAULT,
    SOURCE_BASE,
    SOURCE_SMALL_BASE,
    SOURCE_FREQUENCIES,
    SOURCE_TABLE,
    SOURCE_TABLE_OF_ROWS, /* the same for all batches, where rows are not looked up */
    NUM_SOURCES
};
enum places_level {
    PLACES_NONE,
    PLACES_POSITIONS, /* (L) */
    PLACES_PER_BATCH,
    PLACES_OF_BATCHES, /* (batch axes, 1) */
    PLACES_NEGATIVE,
    PLACES_FAR,
    PLACES_LENGTH, /* rank 0 */
    PLACES_LENGTHS,
    NUM_PLACES
};

static int is_table(int source) {
    return source >= SOURCE_TABLE;
}

static int rope_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == ROPE_OPTIONS && level_a == 1 && factor_b >= ROPE_ROTARY_DIM &&
        factor_b != ROPE_LEAD && factor_b <= ROPE_INDEX_DTYPE) {
        return level_b == 0;
    }
    if (factor_a == FACTOR_DTYPE && level_a == DTYPE_OF_DOUBLE && factor_b == ROPE_TABLE_DTYPE) {
        return level_b == STORED_AS_QUERY;
    }
    if (factor_a == ROPE_RANK && level_a <= RANK_THREE) {
        if (factor_b == ROPE_LEAD) {
            return level_a == RANK_THREE || level_b == LEAD_ONE;
        }
    }
    if (factor_a == ROPE_SOURCE && is_table(level_a) && factor_b == ROPE_PLACES) {
        return level_b != PLACES_NEGATIVE && level_b != PLACES_FAR;
    }
    if (factor_a == ROPE_OUTPUT_LAYOUT && level_a == OUTPUT_IN_PLACE) {
        if (factor_b == ROPE_INPUT_LAYOUT) {
            return level_b < LAYOUT_NUM_OUTPUT;
        }
        return factor_b != ROPE_RESULT || level_b == RESULT_AS_QUERY;
    }
    return 1;
}

factor_set rope_factor_set(void) {
    factor_set set = {.is_allowed = rope_rule};
    add_run_factors(&set);
    add_factor(&set, ROPE_OPTIONS, "options", 2, options_names, 0);
    add_factor(&set, ROPE_RANK, "rank", 5, rank_names, 0);
    add_factor(&set, ROPE_ROWS, "L", NUM_LENGTH_LEVELS, length_names, 1u << ROWS_ZERO);
    add_factor(&set, ROPE_FEATURES, "E", 6, feature_names, 1u << WIDTH_ZERO);
    add_factor(&set, ROPE_ROTARY_DIM, "rotary_dim", 4, rotary_dim_names, 0);
    add_factor(&set, ROPE_LEAD, "lead", 3, lead_names, 1u << LEAD_ZERO);
    add_factor(&set, ROPE_INTERLEAVED, "interleaved", 2, switch_names, 0);
    add_factor(&set, ROPE_INVERSE, "inverse", 2, switch_names, 0);
    add_factor(&set, ROPE_MAGNITUDE, "magnitude", 3, magnitude_names, 0);
    add_factor(&set, ROPE_SOURCE, "source", NUM_SOURCES, source_names, 0);
    add_factor(&set, ROPE_TABLE_DTYPE, "table_dtype", NUM_STORED_LEVELS, stored_names, 0);
    add_factor(&set, ROPE_TABLE_LAYOUT, "table_layout", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, ROPE_PLACES, "places", NUM_PLACES, places_names, 0);
    add_factor(&set, ROPE_INDEX_DTYPE, "index_dtype", 2, index_dtype_names, 0);
    add_factor(&set, ROPE_INPUT_LAYOUT, "input", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, ROPE_OUTPUT_LAYOUT, "output", 1 + LAYOUT_NUM_OUTPUT, output_names, 0);
    add_factor(&set, ROPE_RESULT, "result", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, ROPE_SPECIAL, "special", 3, special_names, 0);
    return set;
}

/* The sizes of a case. */
typedef struct rope_sizes {
    int32_t rank, batch_rank;
    int64_t shape[ATTN_MAX_RANK]; /* of input */
    int64_t axes[ATTN_MAX_RANK];  /* batch axes, L, R/2 */
} rope_sizes;

static rope_sizes sizes_of(const factor_case *chosen, int free_lengths, random_state *random) {
    rope_sizes sizes = {.rank = ranks[chosen->level[ROPE_RANK]], .shape = {3, 2, 1, 1, 2, 1, 1, 1}};
    const int32_t rank = sizes.rank;
    const int lead = chosen->level[ROPE_LEAD];
    int64_t features = widths[chosen->level[ROPE_FEATURES]];
    if (free_lengths != FREE_NONE && features > 2) {
        features = 2 * draw_length(free_lengths, random);
    }
    for (int32_t axis = 0; axis < rank - 2 && lead != 0; ++axis) {
        sizes.shape[axis] = lead == LEAD_ZERO && axis == 0 ? 0 : 1;
    }
    sizes.shape[rank - 2] = length_of_level(chosen->level[ROPE_ROWS], free_lengths, random);
    sizes.shape[rank - 1] = features;
    sizes.batch_rank = rank > 3 ? rank - 3 : 0;
    memcpy(sizes.axes, sizes.shape, sizeof sizes.axes);
    sizes.axes[sizes.batch_rank] = sizes.shape[rank - 2];
    return sizes;
}

static int64_t rotary_dim_of(int level, int64_t features) {
    const int64_t dims[] = {0, features < 2 ? features : 2, features / 4 * 2, features};
    return dims[level];
}

static void build_frequencies(const factor_case *chosen, const rope_sizes *sizes,
                              random_state *random, rope_call *call) {
    attn_tensor *frequencies = pool_input(
        &call->pool, stored_dtype(chosen->level[ROPE_TABLE_DTYPE], dtype_of_case(chosen)), 1,
        sizes->axes + sizes->batch_rank + 1, (enum tensor_layout)chosen->level[ROPE_TABLE_LAYOUT]);
    random_fill(frequencies, random, -1.5, 1.5, 0);
    call->params.frequencies = frequencies;
}

static void build_tables(const factor_case *chosen, const rope_sizes *sizes, random_state *random,
                         rope_call *call) {
    const int32_t dtype = stored_dtype(chosen->level[ROPE_TABLE_DTYPE], dtype_of_case(chosen));
    const enum tensor_layout layout = chosen->level[ROPE_TABLE_LAYOUT];
    const int64_t *last = sizes->axes + sizes->batch_rank;
    const int64_t looked_up[] = {TABLE_ROWS, last[1]};
    const int is_looked_up = chosen->level[ROPE_PLACES] != PLACES_NONE;
    const int is_full = chosen->level[ROPE_SOURCE] == SOURCE_TABLE;
    const int32_t rank = is_full && !is_looked_up ? sizes->batch_rank + 2 : 2;
    const int64_t *shape = is_looked_up ? looked_up : is_full ? sizes->axes : last;
    attn_tensor *cosines = pool_input(&call->pool, dtype, rank, shape, layout);
    attn_tensor *sines = pool_input(&call->pool, dtype, rank, shape, LAYOUT_CONTIGUOUS);
    random_fill(cosines, random, -1, 1, 0);
    random_fill(sines, random, -1, 1, 0);
    call->params.cos = cosines;
    call->params.sin = sines;
}

static void build_places(const factor_case *chosen, const rope_sizes *sizes, random_state *random,
                         rope_call *call) {
    const int level = chosen->level[ROPE_PLACES];
    const int32_t dtype = index_dtype_of_level(chosen->level[ROPE_INDEX_DTYPE]);
    const int64_t rows = sizes->axes[sizes->batch_rank];
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, sizes->axes, sizeof shape);
    if (level == PLACES_NONE) {
        return;
    }
    if (level >= PLACES_LENGTH) {
        const int32_t rank = level == PLACES_LENGTH ? 0 : sizes->batch_rank;
        attn_tensor *lengths = pool_input(&call->pool, dtype, rank, shape, LAYOUT_REVERSED);
        const int64_t lowest = is_table(chosen->level[ROPE_SOURCE]) ? rows : 0;
        random_fill_integers(lengths, random, lowest, TABLE_ROWS);
        call->params.lengths = lengths;
        return;
    }
    shape[sizes->batch_rank] = level == PLACES_OF_BATCHES ? 1 : rows;
    attn_tensor *positions =
        level == PLACES_POSITIONS
            ? pool_input(&call->pool, dtype, 1, &rows, LAYOUT_UNALIGNED)
            : pool_input(&call->pool, dtype, sizes->batch_rank + 1, shape, LAYOUT_STEP_TWO);
    const int64_t lowest = level == PLACES_NEGATIVE ? -TABLE_ROWS : 0;
    random_fill_integers(positions, random, level == PLACES_FAR ? 1 << 20 : lowest,
                         level == PLACES_FAR ? 1 << 21 : TABLE_ROWS - 1);
    call->params.positions = positions;
}

static void build_options(const factor_case *chosen, rope_sizes *sizes, random_state *random,
                          rope_call *call) {
    const int source = chosen->level[ROPE_SOURCE];
    const int64_t features = sizes->shape[sizes->rank - 1];
    attn_rope_params *params = &call->params;
    params->rotary_dim = rotary_dim_of(chosen->level[ROPE_ROTARY_DIM], features);
    sizes->axes[sizes->batch_rank + 1] =
        (params->rotary_dim == 0 ? features : params->rotary_dim) / 2;
    params->interleaved = chosen->level[ROPE_INTERLEAVED];
    params->inverse = chosen->level[ROPE_INVERSE];
    params->magnitude = magnitudes[chosen->level[ROPE_MAGNITUDE]];
    params->base = source == SOURCE_BASE ? 500000 : source == SOURCE_SMALL_BASE ? 0.25 : 0;
    if (source == SOURCE_FREQUENCIES) {
        build_frequencies(chosen, sizes, random, call);
    } else if (is_table(source)) {
        build_tables(chosen, sizes, random, call);
    }
    build_places(chosen, sizes, random, call);
}

void rope_case_build(const factor_case *chosen, uint64_t seed, int free_lengths, rope_call *call) {
    random_state random = random_seeded(seed);
    rope_sizes sizes = sizes_of(chosen, free_lengths, &random);
    const int32_t dtype = dtype_of_case(chosen);
    const enum tensor_layout input_layout = chosen->level[ROPE_INPUT_LAYOUT];
    const int output_level = chosen->level[ROPE_OUTPUT_LAYOUT];
    *call = (rope_call){.params = {.struct_size = sizeof call->params}};
    if (output_level == OUTPUT_IN_PLACE) {
        call->input = call->output =
            pool_output(&call->pool, dtype, sizes.rank, sizes.shape, input_layout);
    } else {
        call->input = pool_input(&call->pool, dtype, sizes.rank, sizes.shape, input_layout);
        call->output = pool_output(&call->pool, result_dtype(chosen, ROPE_RESULT), sizes.rank,
                                   sizes.shape, (enum tensor_layout)output_level);
    }
    random_fill(call->input, &random, -3, 3, 0);
    if (chosen->level[ROPE_SPECIAL] != 0) {
        sprinkle(call->input, &random, 0.03, chosen->level[ROPE_SPECIAL] == 1 ? NAN : -INFINITY);
    }
    build_options(chosen, &sizes, &random, call);
    call->given_params = chosen->level[ROPE_OPTIONS] == 1 ? NULL : &call->params;
}

void rope_call_destroy(rope_call *call) {
    pool_destroy(&call->pool);
}

int rope_call_run(const factor_set *set, const factor_case *chosen, rope_call *call,
                  call_outcome *outcome) {
    /* Before the call, which may overwrite its input. */
    oracle_array expected = oracle_rope(call->input, call->given_params);
    pool_begin(&call->pool);
    const attn_status status =
        attn_rope(case_context(set, chosen), call->input, call->given_params, call->output);
    const int failed = call_failed("attn_rope", status, outcome) ||
                       pool_check(&call->pool, outcome->message, sizeof outcome->message) ||
                       compare_tensor("output", call->output, &expected, &outcome->output,
                                      outcome->message, sizeof outcome->message);
    ++outcome->num_calls;
    outcome->num_visible += expected.count;
    outcome->num_seeing += expected.count > 0;
    oracle_array_destroy(&expected);
    return failed;
}

int rope_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed, int free_lengths,
                  call_outcome *outcome) {
    rope_call call;
    rope_case_build(chosen, seed, free_lengths, &call);
    const int failed = rope_call_run(set, chosen, &call, outcome);
    rope_call_destroy(&call);
    return failed;
}
