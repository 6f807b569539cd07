/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rms_norm_case.c: the factors of attn_rms_norm calls, the tensors of a case, the call and its
 * comparison.
 */
#include "rms_norm_case.h"

#include <math.h>
#include <string.h>

#include "attention_options.h"
#include "support/half_numbers.h"
#include "support/oracle_rms_norm.h"

static const char *const options_names[] = {"present", "absent"};
static const char *const rank_names[] = {"1", "2", "3", "4", "8"};
static const int32_t ranks[] = {1, 2, 3, 4, 8};
static const char *const width_names[] = {"1", "2", "7", "16", "33", "257", "1100", "0"};
static const int64_t widths[] = {1, 2, 7, 16, 33, 257, 1100, 0};
static const char *const lead_names[] = {"some", "one", "many", "zero"};
static const char *const epsilon_names[] = {"default", "1e-6", "2", "5e-324"};
static const double epsilons[] = {0, 1e-6, 2, 0x1p-1074};
static const char *const weight_names[] = {"none", "E", "full", "one", "rows"};
static const char *const offset_names[] = {"0", "1", "-0.5"};
static const double offsets[] = {0, 1, -0.5};
static const char *const output_names[] = {"contiguous", "sequence_first", "packed",    "step_two",
                                           "transposed", "reversed",       "unaligned", "in_place"};
static const char *const values_names[] = {"ordinary", "zeros", "huge", "tiny", "mixed"};
static const char *const special_names[] = {"none", "nan", "inf"};

enum {
    RANK_ONE = 0,
    WIDTH_ZERO = 7,
    LEAD_MANY = 2,
    LEAD_ZERO = 3,
    MANY_ROWS = 70, /* of the widest rows enough for threads */
    OUTPUT_IN_PLACE = LAYOUT_NUM_OUTPUT
};
enum lead_level { LEAD_SOME, LEAD_ONE };
enum weight_level { WEIGHT_NONE, WEIGHT_FEATURES, WEIGHT_FULL, WEIGHT_ONE, WEIGHT_ROWS };
enum norm_values { NORM_ORDINARY, NORM_ZEROS, NORM_HUGE, NORM_TINY, NORM_MIXED };

static int norm_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == NORM_OPTIONS && level_a == 1 && factor_b >= NORM_EPSILON &&
        factor_b <= NORM_OFFSET) {
        return level_b == 0;
    }
    if (factor_a == NORM_WEIGHT && level_a == WEIGHT_NONE && factor_b > NORM_WEIGHT &&
        factor_b <= NORM_OFFSET) {
        return level_b == 0;
    }
    if (factor_a == FACTOR_DTYPE && level_a == DTYPE_OF_DOUBLE && factor_b == NORM_WEIGHT_DTYPE) {
        return level_b == STORED_AS_QUERY;
    }
    if (factor_a == NORM_RANK && level_a == RANK_ONE && factor_b == NORM_LEAD) {
        return level_b == LEAD_ONE;
    }
    if (factor_a == NORM_OUTPUT_LAYOUT && level_a == OUTPUT_IN_PLACE) {
        if (factor_b == NORM_INPUT_LAYOUT) {
            return level_b < LAYOUT_NUM_OUTPUT;
        }
        return factor_b != NORM_RESULT || level_b == RESULT_AS_QUERY;
    }
    return 1;
}

factor_set rms_norm_factor_set(void) {
    factor_set set = {.is_allowed = norm_rule};
    add_run_factors(&set);
    add_factor(&set, NORM_OPTIONS, "options", 2, options_names, 0);
    add_factor(&set, NORM_RANK, "rank", 5, rank_names, 0);
    add_factor(&set, NORM_WIDTH, "E", 8, width_names, 1u << WIDTH_ZERO);
    add_factor(&set, NORM_LEAD, "lead", 4, lead_names, 1u << LEAD_ZERO);
    add_factor(&set, NORM_EPSILON, "epsilon", 4, epsilon_names, 0);
    add_factor(&set, NORM_WEIGHT, "weight", 5, weight_names, 0);
    add_factor(&set, NORM_WEIGHT_DTYPE, "weight_dtype", NUM_STORED_LEVELS, stored_names, 0);
    add_factor(&set, NORM_WEIGHT_LAYOUT, "weight_layout", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, NORM_OFFSET, "weight_offset", 3, offset_names, 0);
    add_factor(&set, NORM_INPUT_LAYOUT, "input", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, NORM_OUTPUT_LAYOUT, "output", 1 + LAYOUT_NUM_OUTPUT, output_names, 0);
    add_factor(&set, NORM_RESULT, "result", NUM_RESULT_LEVELS, result_names, 0);
    add_factor(&set, NORM_VALUES, "values", 5, values_names, 0);
    add_factor(&set, NORM_SPECIAL, "special", 3, special_names, 0);
    return set;
}

/* Huge rows reach the largest number of the type, and the squares of tiny ones vanish in it. */
static void fill_input(const factor_case *chosen, const attn_tensor *input, random_state *random) {
    const double largest = largest_of_dtype(input->dtype);
    const double tiny = 1 / largest;
    switch (chosen->level[NORM_VALUES]) {
    case NORM_ORDINARY:
        random_fill(input, random, -3, 3, 0);
        break;
    case NORM_ZEROS:
        random_fill(input, random, 0, 0, 0);
        break;
    case NORM_HUGE:
        random_fill(input, random, 0.5 * largest, largest, 0);
        break;
    case NORM_TINY:
        random_fill(input, random, -tiny, tiny, 0);
        break;
    default:
        random_fill(input, random, -1, 1, 0);
        sprinkle(input, random, 0.1, -largest);
        sprinkle(input, random, 0.1, tiny);
    }
    if (chosen->level[NORM_SPECIAL] != 0) {
        sprinkle(input, random, 0.03, chosen->level[NORM_SPECIAL] == 1 ? NAN : -INFINITY);
    }
}

static void build_options(const factor_case *chosen, random_state *random, rms_norm_call *call) {
    const attn_tensor *input = call->input;
    const int level = chosen->level[NORM_WEIGHT];
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, input->shape, sizeof shape);
    call->params.epsilon = epsilons[chosen->level[NORM_EPSILON]];
    if (level == WEIGHT_NONE) {
        return;
    }
    const int is_vector = level == WEIGHT_FEATURES || level == WEIGHT_ONE;
    const int32_t rank = is_vector ? 1 : input->rank;
    shape[0] = level == WEIGHT_ONE        ? 1
               : level == WEIGHT_FEATURES ? input->shape[input->rank - 1]
                                          : shape[0];
    shape[rank - 1] = level == WEIGHT_ROWS ? 1 : shape[rank - 1];
    attn_tensor *weight =
        pool_input(&call->pool, stored_dtype(chosen->level[NORM_WEIGHT_DTYPE], input->dtype), rank,
                   shape, (enum tensor_layout)chosen->level[NORM_WEIGHT_LAYOUT]);
    random_fill(weight, random, -2, 2, 0);
    call->params.weight = weight;
    call->params.weight_offset = offsets[chosen->level[NORM_OFFSET]];
}

void rms_norm_case_build(const factor_case *chosen, uint64_t seed, int free_lengths,
                         rms_norm_call *call) {
    random_state random = random_seeded(seed);
    const int32_t rank = ranks[chosen->level[NORM_RANK]], dtype = dtype_of_case(chosen);
    const int lead = chosen->level[NORM_LEAD], output_level = chosen->level[NORM_OUTPUT_LAYOUT];
    const enum tensor_layout input_layout = chosen->level[NORM_INPUT_LAYOUT];
    int64_t shape[ATTN_MAX_RANK] = {3, 2, 3, 1, 2, 1, 1};
    for (int32_t axis = 0; axis < rank - 1 && lead != LEAD_SOME; ++axis) {
        shape[axis] = axis > 0 || lead == LEAD_ONE ? 1 : lead == LEAD_MANY ? MANY_ROWS : 0;
    }
    shape[rank - 1] = widths[chosen->level[NORM_WIDTH]];
    if (free_lengths != FREE_NONE && shape[rank - 1] > 1) {
        shape[rank - 1] = draw_length(free_lengths, &random);
    }
    *call = (rms_norm_call){.params = {.struct_size = sizeof call->params}};
    if (output_level == OUTPUT_IN_PLACE) {
        call->input = call->output = pool_output(&call->pool, dtype, rank, shape, input_layout);
    } else {
        call->input = pool_input(&call->pool, dtype, rank, shape, input_layout);
        call->output = pool_output(&call->pool, result_dtype(chosen, NORM_RESULT), rank, shape,
                                   (enum tensor_layout)output_level);
    }
    fill_input(chosen, call->input, &random);
    build_options(chosen, &random, call);
    call->given_params = chosen->level[NORM_OPTIONS] == 1 ? NULL : &call->params;
}

void rms_norm_call_destroy(rms_norm_call *call) {
    pool_destroy(&call->pool);
}

int rms_norm_call_run(const factor_set *set, const factor_case *chosen, rms_norm_call *call,
                      call_outcome *outcome) {
    /* Before the call, which may overwrite its input. */
    oracle_array expected = oracle_rms_norm(call->input, call->given_params);
    pool_begin(&call->pool);
    const attn_status status =
        attn_rms_norm(case_context(set, chosen), call->input, call->given_params, call->output);
    const int failed = call_failed("attn_rms_norm", status, outcome) ||
                       pool_check(&call->pool, outcome->message, sizeof outcome->message) ||
                       compare_tensor("output", call->output, &expected, &outcome->output,
                                      outcome->message, sizeof outcome->message);
    ++outcome->num_calls;
    outcome->num_visible += expected.count;
    outcome->num_seeing += expected.count > 0;
    oracle_array_destroy(&expected);
    return failed;
}

int rms_norm_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                      int free_lengths, call_outcome *outcome) {
    rms_norm_call call;
    rms_norm_case_build(chosen, seed, free_lengths, &call);
    const int failed = rms_norm_call_run(set, chosen, &call, outcome);
    rms_norm_call_destroy(&call);
    return failed;
}
