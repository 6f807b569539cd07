/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax_case.c: the factors of attn_softmax calls, the tensors of a case, the call and its
 * comparison.
 */
#include "softmax_case.h"

#include <math.h>
#include <string.h>

#include "attention_options.h"
#include "support/oracle_softmax.h"
#include "support/oracle_tensor.h"

static const char *const options_names[] = {"present", "absent"};
static const char *const rank_names[] = {"1", "2", "3", "4", "8"};
static const int32_t ranks[] = {1, 2, 3, 4, 8};
static const char *const width_names[] = {"1", "2", "7", "16", "33", "257", "0"};
static const int64_t widths[] = {1, 2, 7, 16, 33, 257, 0};
static const char *const lead_names[] = {"some", "one", "zero"};
static const char *const output_names[] = {"contiguous", "sequence_first", "packed",    "step_two",
                                           "transposed", "reversed",       "unaligned", "in_place"};
static const char *const mask_shape_names[] = {"none", "full", "last_axis", "one", "rows"};
static const char *const lengths_names[] = {"none",     "0", "S", "per_row", "per_row_reversed",
                                            "broadcast"};
static const char *const values_names[] = {"ordinary", "large", "integers"};
static const char *const special_names[] = {"none", "nan", "inf", "-inf", "row_of_-inf"};

enum {
    RANK_ONE = 0,
    NUM_WIDTHS = 7,
    WIDTH_ZERO = 6,
    LEAD_ONE = 1,
    LEAD_ZERO = 2,
    OUTPUT_IN_PLACE = LAYOUT_NUM_OUTPUT,
    LONGEST_ROW = 300
};
enum softmax_mask_shape { SHAPE_NONE, SHAPE_FULL, SHAPE_LAST_AXIS, SHAPE_ONE, SHAPE_ROWS };
enum softmax_lengths {
    SOFTMAX_LENGTHS_NONE,
    SOFTMAX_LENGTHS_ZERO,
    SOFTMAX_LENGTHS_ALL,
    SOFTMAX_LENGTHS_PER_ROW,
    SOFTMAX_LENGTHS_REVERSED,
    SOFTMAX_LENGTHS_BROADCAST
};
enum special_level { SPECIAL_NONE, SPECIAL_NAN, SPECIAL_INF, SPECIAL_MINUS_INF, SPECIAL_ROW };

static int softmax_rule(int factor_a, int level_a, int factor_b, int level_b) {
    if (factor_a == SOFTMAX_OPTIONS && level_a == 1 && factor_b >= SOFTMAX_MASK &&
        factor_b <= SOFTMAX_LSE) {
        return level_b == 0;
    }
    if (factor_a == SOFTMAX_MASK &&
        (factor_b == SOFTMAX_MASK_SHAPE || factor_b == SOFTMAX_MASK_LAYOUT)) {
        return (level_a == 0) == (level_b == 0);
    }
    if (factor_a == SOFTMAX_MASK_SHAPE && factor_b == SOFTMAX_MASK_LAYOUT) {
        return (level_a == 0) == (level_b == 0);
    }
    if (factor_a == SOFTMAX_RANK && level_a == RANK_ONE && factor_b == SOFTMAX_LEAD) {
        return level_b == LEAD_ONE;
    }
    if (factor_a == SOFTMAX_OUTPUT_LAYOUT && level_a == OUTPUT_IN_PLACE &&
        factor_b == SOFTMAX_INPUT_LAYOUT) {
        return level_b < LAYOUT_NUM_OUTPUT;
    }
    return 1;
}

factor_set softmax_factor_set(void) {
    factor_set set = {.is_allowed = softmax_rule};
    add_run_factors(&set);
    add_factor(&set, SOFTMAX_OPTIONS, "options", 2, options_names, 0);
    add_factor(&set, SOFTMAX_RANK, "rank", 5, rank_names, 0);
    add_factor(&set, SOFTMAX_WIDTH, "S", NUM_WIDTHS, width_names, 1u << WIDTH_ZERO);
    add_factor(&set, SOFTMAX_LEAD, "lead", 3, lead_names, 1u << LEAD_ZERO);
    add_factor(&set, SOFTMAX_INPUT_LAYOUT, "input", LAYOUT_NUM_INPUT, tensor_layout_names, 0);
    add_factor(&set, SOFTMAX_OUTPUT_LAYOUT, "output", 1 + LAYOUT_NUM_OUTPUT, output_names, 0);
    add_factor(&set, SOFTMAX_MASK, "mask", NUM_MASK_LEVELS, mask_names, 0);
    add_factor(&set, SOFTMAX_MASK_SHAPE, "mask_shape", 5, mask_shape_names, 0);
    add_factor(&set, SOFTMAX_MASK_LAYOUT, "mask_layout", 1 + LAYOUT_NUM_INPUT,
               optional_layout_names, 0);
    add_factor(&set, SOFTMAX_LENGTHS, "lengths", 6, lengths_names, 1u << SOFTMAX_LENGTHS_ZERO);
    add_factor(&set, SOFTMAX_INDEX_DTYPE, "index_dtype", 2, index_dtype_names, 0);
    add_factor(&set, SOFTMAX_LSE, "lse", NUM_LSE_LEVELS, lse_names, 0);
    add_factor(&set, SOFTMAX_VALUES, "values", 3, values_names, 0);
    add_factor(&set, SOFTMAX_SPECIAL, "special", 5, special_names, 0);
    return set;
}

typedef struct softmax_call {
    tensor_pool pool;
    const attn_tensor *input, *output;
    attn_softmax_params params;
    const attn_softmax_params *given_params;
} softmax_call;

static void fill_input(const factor_case *chosen, const attn_tensor *input, random_state *random) {
    int64_t index[ATTN_MAX_RANK];
    switch (chosen->level[SOFTMAX_VALUES]) {
    case VALUES_ORDINARY:
        random_fill(input, random, -3, 3, 0);
        break;
    case VALUES_LARGE:
        random_fill(input, random, -120, 1000, 0);
        break;
    default:
        random_fill(input, random, -4, 4, 1);
        break;
    }
    switch (chosen->level[SOFTMAX_SPECIAL]) {
    case SPECIAL_NONE:
        break;
    case SPECIAL_NAN:
        sprinkle(input, random, 0.03, NAN);
        break;
    case SPECIAL_INF:
        sprinkle(input, random, 0.03, INFINITY);
        break;
    case SPECIAL_MINUS_INF:
        sprinkle(input, random, 0.3, -INFINITY);
        break;
    default:
        if (random_index(input, random, index)) {
            attn_tensor row = *input;
            row.data = oracle_address(input, index);
            row.data = (unsigned char *)row.data - index[row.rank - 1] * row.strides[row.rank - 1] *
                                                       (int64_t)attn_dtype_size_bytes(row.dtype);
            row.rank = 1;
            row.shape[0] = input->shape[input->rank - 1];
            row.strides[0] = input->strides[input->rank - 1];
            sprinkle(&row, random, 1, -INFINITY);
        }
    }
}

static const attn_tensor *build_row_lengths(int level, int32_t dtype, const attn_tensor *input,
                                            random_state *random, tensor_pool *pool) {
    const int32_t rank = input->rank - 1;
    const int64_t width = input->shape[rank];
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, input->shape, sizeof shape);
    const int is_per_row = level >= SOFTMAX_LENGTHS_PER_ROW;
    if (level == SOFTMAX_LENGTHS_NONE) {
        return NULL;
    }
    if (level == SOFTMAX_LENGTHS_BROADCAST && rank > 0) {
        shape[0] = 1;
    }
    const enum tensor_layout layout =
        level == SOFTMAX_LENGTHS_REVERSED ? LAYOUT_REVERSED : LAYOUT_UNALIGNED;
    const attn_tensor *lengths = pool_input(pool, dtype, is_per_row ? rank : 0, shape, layout);
    random_fill_integers(lengths, random, level == SOFTMAX_LENGTHS_ALL ? width : 0,
                         level == SOFTMAX_LENGTHS_ZERO ? 0 : width);
    return lengths;
}

static void build_softmax_mask(const factor_case *chosen, const attn_tensor *input,
                               random_state *random, softmax_call *call) {
    const int level = chosen->level[SOFTMAX_MASK_SHAPE];
    int64_t shape[ATTN_MAX_RANK];
    int32_t rank = input->rank;
    memcpy(shape, input->shape, sizeof shape);
    if (level == SHAPE_LAST_AXIS || level == SHAPE_ONE) {
        rank = 1;
        shape[0] = level == SHAPE_ONE ? 1 : input->shape[input->rank - 1];
    } else if (level == SHAPE_ROWS) {
        shape[rank - 1] = 1;
    }
    call->params.mask = build_mask(chosen->level[SOFTMAX_MASK], input->dtype, rank, shape,
                                   chosen->level[SOFTMAX_MASK_LAYOUT], &call->pool, random,
                                   &call->params.mask_kind);
}

static void build_call(const factor_case *chosen, uint64_t seed, int free_lengths,
                       softmax_call *call) {
    random_state random = random_seeded(seed);
    const int32_t rank = ranks[chosen->level[SOFTMAX_RANK]], dtype = dtype_of_case(chosen);
    const int lead = chosen->level[SOFTMAX_LEAD],
              output_level = chosen->level[SOFTMAX_OUTPUT_LAYOUT];
    const enum tensor_layout input_layout = chosen->level[SOFTMAX_INPUT_LAYOUT];
    int64_t shape[ATTN_MAX_RANK] = {3, 2, 3, 1, 2, 1, 1};
    for (int32_t axis = 0; axis < rank - 1 && lead != 0; ++axis) {
        shape[axis] = lead == LEAD_ZERO && axis == 0 ? 0 : 1;
    }
    shape[rank - 1] = widths[chosen->level[SOFTMAX_WIDTH]];
    if (free_lengths && shape[rank - 1] > 1) {
        shape[rank - 1] = random_between(&random, 2, LONGEST_ROW);
    }
    *call = (softmax_call){.params = {.struct_size = sizeof call->params}};
    if (output_level == OUTPUT_IN_PLACE) {
        call->input = call->output = pool_output(&call->pool, dtype, rank, shape, input_layout);
    } else {
        call->input = pool_input(&call->pool, dtype, rank, shape, input_layout);
        call->output =
            pool_output(&call->pool, dtype, rank, shape, (enum tensor_layout)output_level);
    }
    fill_input(chosen, call->input, &random);
    call->params.lengths = build_row_lengths(
        chosen->level[SOFTMAX_LENGTHS], index_dtype_of_level(chosen->level[SOFTMAX_INDEX_DTYPE]),
        call->input, &random, &call->pool);
    if (chosen->level[SOFTMAX_MASK] != MASK_LEVEL_NONE) {
        build_softmax_mask(chosen, call->input, &random, call);
    }
    /* The rows' axes are those before the last; a rank-1 input has one row and a scalar lse. */
    if (chosen->level[SOFTMAX_LSE] != LSE_NONE && rank > 1) {
        call->params.lse = build_lse(chosen->level[SOFTMAX_LSE], score_dtype(dtype), rank - 2,
                                     shape, shape[rank - 2], &call->pool);
    } else if (chosen->level[SOFTMAX_LSE] != LSE_NONE) {
        call->params.lse =
            pool_output(&call->pool, score_dtype(dtype), 0, shape, LAYOUT_CONTIGUOUS);
    }
    call->given_params = chosen->level[SOFTMAX_OPTIONS] == 1 ? NULL : &call->params;
}

static int call_library(const factor_set *set, const factor_case *chosen, softmax_call *call,
                        call_outcome *outcome) {
    attn_context *context = case_context(set, chosen);
    attn_tensor input = *call->input, output = *call->output;
    size_t bytes = 0;
    input.data = output.data = NULL;
    int failed = call_failed(
        "attn_softmax_workspace_bytes",
        attn_softmax_workspace_bytes(context, &input, call->given_params, &output, &bytes),
        outcome);
    if (!failed) {
        watched_workspace workspace = workspace_create(chosen, bytes);
        pool_begin(&call->pool);
        const attn_status status = attn_softmax(context, call->input, call->given_params,
                                                call->output, workspace.start, workspace.bytes);
        failed = call_failed("attn_softmax", status, outcome) ||
                 workspace_check(&workspace, outcome->message, sizeof outcome->message) ||
                 pool_check(&call->pool, outcome->message, sizeof outcome->message);
        workspace_destroy(&workspace);
    }
    return failed;
}

int softmax_case_run(const factor_set *set, const factor_case *chosen, uint64_t seed,
                     int free_lengths, call_outcome *outcome) {
    softmax_call call;
    build_call(chosen, seed, free_lengths, &call);
    /* Before the call, which may overwrite its input. */
    oracle_softmax_result expected = oracle_softmax(call.input, call.given_params);
    int failed = call_library(set, chosen, &call, outcome) ||
                 compare_tensor("output", call.output, &expected.output, &outcome->weights,
                                outcome->message, sizeof outcome->message);
    if (!failed && call.params.lse != NULL) {
        failed = compare_tensor("lse", call.params.lse, &expected.lse, &outcome->lse,
                                outcome->message, sizeof outcome->message);
    }
    ++outcome->num_calls;
    outcome->num_visible += expected.num_visible;
    outcome->num_seeing += expected.num_visible > 0;
    oracle_softmax_result_destroy(&expected);
    pool_destroy(&call.pool);
    return failed;
}
