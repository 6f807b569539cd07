/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_case.c: the factors of attn_sdpa_merge calls, the tensors of a case, the call and its
 * comparison.
 */
#include "merge_case.h"

#include <math.h>
#include <string.h>

#include "attention_options.h"
#include "support/oracle_merge.h"
#include "support/random_tensor.h"

static const char *const options_names[] = {"present", "absent"};
static const char *const count_names[] = {"1", "2", "3", "5", "15"};
static const int64_t counts[] = {1, 2, 3, 5, 15};
static const char *const rank_names[] = {"2", "3", "4", "5", "8"};
static const int32_t ranks[] = {2, 3, 4, 5, 8};
static const char *const row_names[] = {"1", "3", "17", "40", "0"};
static const int64_t row_counts[] = {1, 3, 17, 40, 0};
static const char *const col_names[] = {"1", "7", "16", "67", "131", "0"};
static const int64_t col_counts[] = {1, 7, 16, 67, 131, 0};
static const char *const lead_names[] = {"some", "one", "zero"};
static const char *const part_dtype_names[] = {"output's", "scores'", "by_turns"};
static const char *const lses_names[] = {"contiguous", "transposed", "reversed",     "unaligned",
                                         "step_two",   "repeated",   "repeated_row", "none"};
static const char *const in_place_names[] = {"no", "output", "lse", "both", "twice"};
static const char *const sinks_names[] = {"none", "per_head", "per_head_narrow_reversed",
                                          "one_unaligned"};
static const char *const values_names[] = {"ordinary", "large", "integers"};
static const char *const special_names[] = {"none",       "nan_lse",    "inf_lse", "hidden",
                                            "all_hidden", "nan_output", "nan_sink"};

enum { ROWS_ZERO = 4, COLS_ZERO = 5, LEAD_ZERO = 2 };
enum part_dtypes { PARTS_AS_OUTPUT, PARTS_AS_SCORES, PARTS_BY_TURNS };
enum lses_level { LSES_REPEATED = 5, LSES_NONE = 7, NUM_LSES_LEVELS };
enum in_place { IN_PLACE_NO, IN_PLACE_OUTPUT, IN_PLACE_LSE, IN_PLACE_BOTH, IN_PLACE_TWICE };
enum special_level {
    SPECIAL_NONE,
    SPECIAL_NAN,
    SPECIAL_INF,
    SPECIAL_HIDDEN,
    SPECIAL_ALL_HIDDEN,
    SPECIAL_NAN_OUTPUT,
    SPECIAL_NAN_SINK
};

static int is_output_in_place(int level) {
    return level == IN_PLACE_OUTPUT || level >= IN_PLACE_BOTH;
}

static int is_lse_in_place(int level) {
    return level == IN_PLACE_LSE || level == IN_PLACE_BOTH;
}

/* Without lses there are no options, no lse, and nothing special about one. */
static int rule_without_lses(int other, int level) {
    return (other != MERGE_SINKS && other != MERGE_LSE) || level == 0;
}

static int merge_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == MERGE_OPTIONS && level_a == 1 && factor_b == MERGE_SINKS) {
        return level_b == PER_HEAD_NONE;
    }
    if (factor_a == MERGE_LSES && level_a == LSES_NONE) {
        return rule_without_lses(factor_b, level_b) &&
               !(factor_b == MERGE_IN_PLACE && is_lse_in_place(level_b)) &&
               !(factor_b == MERGE_SPECIAL && level_b != SPECIAL_NONE);
    }
    if (factor_a == MERGE_IN_PLACE && is_output_in_place(level_a) &&
        factor_b == MERGE_PARTS_LAYOUT) {
        return level_b < LAYOUT_NUM_OUTPUT;
    }
    if (factor_a == MERGE_IN_PLACE && is_lse_in_place(level_a)) {
        return !(factor_b == MERGE_LSES && level_b >= LSES_REPEATED) &&
               !(factor_b == MERGE_LSE && level_b == LSE_NONE);
    }
    if (factor_a == MERGE_SPECIAL && level_a == SPECIAL_NAN_SINK) {
        return (factor_b != MERGE_SINKS || level_b != PER_HEAD_NONE) &&
               (factor_b != MERGE_OPTIONS || level_b == 0);
    }
    return 1;
}

factor_set merge_factor_set(void) {
    factor_set set = {.is_allowed = merge_rule};
    add_run_factors(&set);
    add_factor(&set, MERGE_OPTIONS, "options", 2, options_names, 0);
    add_factor(&set, MERGE_COUNT, "count", 5, count_names, 0);
    add_factor(&set, MERGE_RANK, "rank", 5, rank_names, 0);
    add_factor(&set, MERGE_ROWS, "L", 5, row_names, 1u << ROWS_ZERO);
    add_factor(&set, MERGE_COLS, "Ev", 6, col_names, 1u << COLS_ZERO);
    add_factor(&set, MERGE_LEAD, "lead", 3, lead_names, 1u << LEAD_ZERO);
    add_factor(&set, MERGE_PART_DTYPES, "part_dtypes", 3, part_dtype_names, 0);
    add_factor(&set, MERGE_OUTPUT_LAYOUT, "output", LAYOUT_NUM_OUTPUT, tensor_layout_names, 0);
    add_factor(&set, MERGE_PARTS_LAYOUT, "outputs", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, MERGE_LSES, "lses", NUM_LSES_LEVELS, lses_names, 0);
    add_factor(&set, MERGE_LSE, "lse", NUM_LSE_LEVELS, lse_names, 0);
    add_factor(&set, MERGE_IN_PLACE, "in_place", 5, in_place_names, 0);
    add_factor(&set, MERGE_SINKS, "sinks", 4, sinks_names, 0);
    add_factor(&set, MERGE_VALUES, "values", 3, values_names, 0);
    add_factor(&set, MERGE_SPECIAL, "special", 7, special_names, 0);
    return set;
}

static int32_t part_dtype(int level, const merge_call *call, int64_t part) {
    const int32_t scores = score_dtype(call->dtype);
    const int32_t turns[] = {ATTN_DTYPE_FLOAT16, ATTN_DTYPE_BFLOAT16, ATTN_DTYPE_FLOAT32};
    if (level == PARTS_BY_TURNS && scores == ATTN_DTYPE_FLOAT32) {
        return turns[part % 3];
    }
    return level == PARTS_AS_OUTPUT ? call->dtype : scores;
}

static void fill_part(const factor_case *chosen, const attn_tensor *output, const attn_tensor *lses,
                      random_state *random) {
    const int values = chosen->level[MERGE_VALUES];
    random_fill(output, random, -3, 3, values == VALUES_INTEGERS ? 1 : 0);
    if (lses == NULL) {
        return;
    }
    if (values == VALUES_LARGE) {
        random_fill(lses, random, -150, 150, 0);
    } else {
        random_fill(lses, random, -4, 4, values == VALUES_INTEGERS ? 1 : 0);
    }
}

/* What is hidden, or all of it, holds NaN in its output. */
static void hide_part(const attn_tensor *output, const attn_tensor *lses, double probability,
                      random_state *random) {
    int64_t index[ATTN_MAX_RANK] = {0};
    sprinkle(lses, random, probability, -INFINITY);
    if (oracle_count(output->rank, output->shape) == 0) {
        return;
    }
    do {
        if (oracle_element(lses, index) == -(double)INFINITY) {
            oracle_store(output, index, NAN);
        }
    } while (oracle_next_index(output->rank, output->shape, index));
}

static void make_special(const factor_case *chosen, const attn_tensor *output,
                         const attn_tensor *lses, random_state *random) {
    switch (chosen->level[MERGE_SPECIAL]) {
    case SPECIAL_NAN:
        sprinkle(lses, random, 0.1, NAN);
        break;
    case SPECIAL_INF:
        sprinkle(lses, random, 0.1, INFINITY);
        break;
    case SPECIAL_HIDDEN:
        hide_part(output, lses, 0.5, random);
        break;
    case SPECIAL_ALL_HIDDEN:
        hide_part(output, lses, 1, random);
        break;
    case SPECIAL_NAN_OUTPUT:
        sprinkle(output, random, 0.05, NAN);
        break;
    case SPECIAL_NAN_SINK:
        hide_part(output, lses, 0.3, random);
        break;
    default:
        break;
    }
}

/* Where columns or rows repeat, NaN for a hidden row would be in visible ones too. */
static int is_repeated(const factor_case *chosen) {
    return chosen->level[MERGE_PARTS_LAYOUT] >= LAYOUT_NUM_OUTPUT;
}

static void build_parts(const factor_case *chosen, merge_call *call, random_state *random) {
    static const enum tensor_layout lses_layouts[] = {
        LAYOUT_CONTIGUOUS, LAYOUT_TRANSPOSED,     LAYOUT_REVERSED,         LAYOUT_UNALIGNED,
        LAYOUT_STEP_TWO,   LAYOUT_REPEATED_FIRST, LAYOUT_REPEATED_COLUMNS, LAYOUT_CONTIGUOUS};
    const int in_place = chosen->level[MERGE_IN_PLACE];
    const int64_t last = call->count - 1; /* the part that is in place */
    const int dtypes = chosen->level[MERGE_PART_DTYPES];
    const enum tensor_layout layout = chosen->level[MERGE_PARTS_LAYOUT];
    const enum tensor_layout lses_layout = lses_layouts[chosen->level[MERGE_LSES]];
    for (int64_t i = 0; i < call->count; ++i) {
        const int is_last = i == last;
        const int32_t dtype = part_dtype(dtypes, call, i);
        const int writes_output = is_last && is_output_in_place(in_place);
        const attn_tensor *part =
            writes_output ? pool_output(&call->pool, dtype, call->rank, call->shape, layout)
                          : pool_input(&call->pool, dtype, call->rank, call->shape, layout);
        const attn_tensor *lses = NULL;
        if (call->given_lses != NULL) {
            const int32_t scores = score_dtype(call->dtype);
            lses = is_last && is_lse_in_place(in_place)
                       ? pool_output(&call->pool, scores, call->rank - 1, call->shape, lses_layout)
                       : pool_input(&call->pool, scores, call->rank - 1, call->shape, lses_layout);
            call->lses[i] = *lses;
        }
        fill_part(chosen, part, lses, random);
        if (lses != NULL && !is_repeated(chosen)) {
            make_special(chosen, part, lses, random);
        }
        call->outputs[i] = *part;
    }
    if (in_place == IN_PLACE_TWICE) {
        call->outputs[0] = call->outputs[last];
    }
}

static const attn_tensor *build_sinks(const factor_case *chosen, merge_call *call,
                                      random_state *random) {
    const int level = chosen->level[MERGE_SINKS];
    const int32_t scores = score_dtype(call->dtype);
    const int64_t heads = call->rank > 2 ? call->shape[call->rank - 3] : 1, one = 1;
    if (level == PER_HEAD_NONE) {
        return NULL;
    }
    const int32_t narrow = scores == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_BFLOAT16;
    const attn_tensor *sinks = level == PER_HEAD_OWN_TYPE ? pool_input(&call->pool, call->dtype, 1,
                                                                       &heads, LAYOUT_CONTIGUOUS)
                               : level == PER_HEAD_FLOAT32_REVERSED
                                   ? pool_input(&call->pool, narrow, 1, &heads, LAYOUT_REVERSED)
                                   : pool_input(&call->pool, scores, 1, &one, LAYOUT_UNALIGNED);
    random_fill(sinks, random, -2, 3, 0);
    if (chosen->level[MERGE_SPECIAL] == SPECIAL_NAN_SINK) {
        sprinkle(sinks, random, 0.5, NAN);
        sprinkle(sinks, random, 0.3, INFINITY);
        sprinkle(sinks, random, 0.3, -INFINITY);
    }
    return sinks;
}

static void build_results(const factor_case *chosen, merge_call *call) {
    const int in_place = chosen->level[MERGE_IN_PLACE];
    const int32_t rows_rank = call->rank - 1;
    call->output = is_output_in_place(in_place)
                       ? &call->outputs[call->count - 1]
                       : pool_output(&call->pool, call->dtype, call->rank, call->shape,
                                     (enum tensor_layout)chosen->level[MERGE_OUTPUT_LAYOUT]);
    call->lse = is_lse_in_place(in_place)
                    ? &call->lses[call->count - 1]
                    : build_lse(chosen->level[MERGE_LSE], score_dtype(call->dtype), rows_rank - 1,
                                call->shape, call->shape[rows_rank - 1], &call->pool);
}

void merge_case_build(const factor_case *chosen, uint64_t seed, int free_lengths,
                      merge_call *call) {
    random_state random = random_seeded(seed);
    *call = (merge_call){.shape = {2, 1, 2, 1, 3, 2},
                         .count = counts[chosen->level[MERGE_COUNT]],
                         .rank = ranks[chosen->level[MERGE_RANK]],
                         .dtype = dtype_of_case(chosen),
                         .params = {.struct_size = sizeof call->params}};
    const int lead = chosen->level[MERGE_LEAD];
    for (int32_t axis = 0; axis < call->rank - 2 && lead != 0; ++axis) {
        call->shape[axis] = lead == LEAD_ZERO && axis == 0 ? 0 : 1;
    }
    int64_t *rows = &call->shape[call->rank - 2], *cols = &call->shape[call->rank - 1];
    *rows = row_counts[chosen->level[MERGE_ROWS]];
    *cols = col_counts[chosen->level[MERGE_COLS]];
    if (free_lengths != FREE_NONE) {
        *rows = *rows > 1 ? draw_length(FREE_TINY, &random) : *rows;
        *cols = *cols > 1 ? draw_length(free_lengths, &random) : *cols;
    }
    call->given_lses = chosen->level[MERGE_LSES] == LSES_NONE ? NULL : call->lses;
    build_parts(chosen, call, &random);
    call->params.sinks = build_sinks(chosen, call, &random);
    build_results(chosen, call);
    call->given_params = chosen->level[MERGE_OPTIONS] == 1 ? NULL : &call->params;
}

static int call_library(const factor_set *set, const factor_case *chosen, merge_call *call,
                        call_outcome *outcome) {
    pool_begin(&call->pool);
    const attn_status status =
        attn_sdpa_merge(case_context(set, chosen), call->count, call->outputs, call->given_lses,
                        call->given_params, call->output, call->lse);
    return call_failed("attn_sdpa_merge", status, outcome) ||
           pool_check(&call->pool, outcome->message, sizeof outcome->message);
}

int merge_call_run(const factor_set *set, const factor_case *chosen, merge_call *call,
                   call_outcome *outcome) {
    /* Before the call, which may overwrite its inputs. */
    oracle_parts parts =
        oracle_parts_create(call->count, call->outputs, call->given_lses, call->params.sinks);
    oracle_merge_result expected = oracle_merge(&parts);
    int failed = call_library(set, chosen, call, outcome) ||
                 compare_tensor("output", call->output, &expected.output, &outcome->output,
                                outcome->message, sizeof outcome->message);
    if (!failed && call->lse != NULL) {
        failed = compare_tensor("lse", call->lse, &expected.lse, &outcome->lse, outcome->message,
                                sizeof outcome->message);
    }
    ++outcome->num_calls;
    outcome->num_visible += call->count * expected.output.count;
    outcome->num_seeing += expected.output.count > 0;
    oracle_merge_result_destroy(&expected);
    oracle_parts_destroy(&parts);
    return failed;
}

void merge_call_destroy(merge_call *call) {
    pool_destroy(&call->pool);
}

int merge_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                   int free_lengths, call_outcome *outcome) {
    merge_call call;
    merge_case_build(chosen, seed, free_lengths, &call);
    const int failed = merge_call_run(set, chosen, &call, outcome);
    merge_call_destroy(&call);
    return failed;
}
