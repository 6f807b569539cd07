/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_gradients.c: makes gradients of wholes and parts of them.
 */
#include "ranks_gradients.h"

#include <stdlib.h>
#include <string.h>

#include "ranks_program.h"
#include "support/oracle_tensor.h"

static int chance(random_state *random, double probability) {
    return random_real(random, 0, 1) < probability;
}

/* Whose gradient it is. */
static void list_inputs(const ranks_tensors *tensors, const ranks_case *made,
                        const attn_tensor *inputs[ORACLE_NUM_GRADIENTS]) {
    const int is_additive = made->params.mask_kind == ATTN_MASK_ADDITIVE;
    const attn_tensor *const all[ORACLE_NUM_GRADIENTS] = {
        tensors->query,        tensors->key,
        tensors->value,        is_additive ? tensors->mask : NULL,
        tensors->bias,         tensors->position_bias,
        tensors->alibi_slopes, tensors->sinks};
    memcpy(inputs, all, sizeof all);
}

/* Which rows of the whole's gradient are the rank's, and how many; NULL: all. */
static const int64_t *rows_of(const ranks_case *made, int which, const attn_tensor *whole,
                              int64_t *count) {
    const int is_everywhere = made->mpi_params.scheme == ATTN_MPI_SCHEME_DECODE;
    *count = -1;
    switch (which) {
    case ORACLE_OF_KEY:
    case ORACLE_OF_VALUE:
        *count = made->num_key_rows;
        return made->key_rows;
    case ORACLE_OF_QUERY:
        *count = made->num_query_rows;
        return made->query_rows;
    case ORACLE_OF_MASK:
    case ORACLE_OF_BIAS:
        if (is_everywhere || whole->rank < 2 || whole->shape[whole->rank - 2] == 1) {
            return NULL;
        }
        *count = made->num_query_rows;
        return made->query_rows;
    default:
        return NULL;
    }
}

static attn_tensor *random_like(tensor_pool *pool, random_state *random, const attn_tensor *like,
                                int32_t dtype) {
    attn_tensor *tensor = pool_input(pool, dtype, like->rank, like->shape, LAYOUT_CONTIGUOUS);
    random_fill(tensor, random, -1, 1, 0);
    return tensor;
}

/* The whole's results by the core library. */
static void compute_forward(ranks_gradients *made, attn_context *context) {
    ranks_case *const call = &made->made;
    const ranks_tensors *const whole = &call->whole;
    attn_sdpa_params params = ranks_case_params(call, whole);
    const oracle_sdpa_shape shape =
        oracle_sdpa_output_shape(whole->query, whole->key, whole->value, &params);
    const int is_softmax = params.normalizer == ATTN_NORMALIZER_SOFTMAX;
    const int32_t score_dtype =
        whole->query->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    made->whole.output = pool_output(&call->whole_pool, call->own.output->dtype, shape.rank,
                                     shape.shape, LAYOUT_CONTIGUOUS);
    if (is_softmax) {
        made->whole.lse = pool_output(&call->whole_pool, score_dtype, shape.rank - 1, shape.shape,
                                      LAYOUT_CONTIGUOUS);
        params.lse = made->whole.lse;
    }
    RANKS_ASSERT(attn_sdpa(context, whole->query, whole->key, whole->value, &params,
                           made->whole.output, NULL, 0) == ATTN_OK,
                 "%s: forward: %s", call->text, attn_last_error());
}

/* Where each rank has one row, one row of a mask could be for that, which is refused. */
static int may_be_wanted(const ranks_case *call, int which) {
    const int is_mask = which == ORACLE_OF_MASK || which == ORACLE_OF_BIAS;
    return !is_mask || call->mpi_params.scheme == ATTN_MPI_SCHEME_DECODE ||
           call->whole.query->shape[call->whole.query->rank - 2] != call->num_ranks;
}

static void make_given(ranks_gradients *made, random_state *random) {
    ranks_case *const call = &made->made;
    ranks_gradient_tensors *const whole = &made->whole, *const own = &made->own;
    const int32_t dtype = chance(random, 0.5) ? call->whole.query->dtype : whole->output->dtype;
    const int64_t *const rows = call->query_rows;
    const int64_t count = call->num_query_rows;
    whole->output_gradient = random_like(&call->whole_pool, random, whole->output, dtype);
    own->output = ranks_take_rows(call, random, whole->output, -2, rows, count, 0);
    own->output_gradient =
        ranks_take_rows(call, random, whole->output_gradient, -2, rows, count, 0);
    if (whole->lse != NULL) {
        own->lse = ranks_take_rows(call, random, whole->lse, -1, rows, count, 0);
    }
    if (whole->lse != NULL && chance(random, 0.5)) {
        whole->lse_gradient = random_like(&call->whole_pool, random, whole->lse, whole->lse->dtype);
        own->lse_gradient = ranks_take_rows(call, random, whole->lse_gradient, -1, rows, count, 0);
    }
}

static void make_wanted(ranks_gradients *made, random_state *random) {
    ranks_case *const call = &made->made;
    const int32_t score_dtype =
        call->whole.query->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
    const attn_tensor *inputs[ORACLE_NUM_GRADIENTS];
    list_inputs(&call->whole, call, inputs);
    for (int i = 0; i < ORACLE_NUM_GRADIENTS; ++i) {
        const int is_wanted = chance(random, 0.85), is_wide = chance(random, 0.3);
        if (inputs[i] == NULL || !is_wanted || !may_be_wanted(call, i)) {
            continue;
        }
        int64_t count;
        const int32_t dtype = is_wide ? score_dtype : inputs[i]->dtype;
        made->whole.wanted[i] = random_like(&call->whole_pool, random, inputs[i], dtype);
        const int64_t *const rows = rows_of(call, i, inputs[i], &count);
        made->own.wanted[i] =
            ranks_take_rows(call, random, made->whole.wanted[i], -2, rows, count, 1);
    }
}

void ranks_gradients_make(uint64_t seed, int rank, int num_ranks, attn_context *context,
                          ranks_gradients *made) {
    random_state random = random_seeded(seed + 77000);
    memset(made, 0, sizeof *made);
    ranks_case_make(seed, rank, num_ranks, &made->made);
    made->accumulates = chance(&random, 0.3);
    compute_forward(made, context);
    make_given(made, &random);
    make_wanted(made, &random);
}

void ranks_gradients_destroy(ranks_gradients *made) {
    ranks_case_destroy(&made->made);
}

attn_sdpa_params ranks_gradients_params(const ranks_gradients *made) {
    attn_sdpa_params params = ranks_case_params(&made->made, &made->made.own);
    params.lse = made->own.lse;
    return params;
}

attn_sdpa_gradients ranks_gradients_of(const ranks_gradients *made) {
    attn_tensor *const *const wanted = made->own.wanted;
    return (attn_sdpa_gradients){.struct_size = sizeof(attn_sdpa_gradients),
                                 .accumulate = made->accumulates,
                                 .output = made->own.output_gradient,
                                 .lse = made->own.lse_gradient,
                                 .query = wanted[ORACLE_OF_QUERY],
                                 .key = wanted[ORACLE_OF_KEY],
                                 .value = wanted[ORACLE_OF_VALUE],
                                 .mask = wanted[ORACLE_OF_MASK],
                                 .bias = wanted[ORACLE_OF_BIAS],
                                 .position_bias = wanted[ORACLE_OF_POSITION_BIAS],
                                 .alibi_slopes = wanted[ORACLE_OF_SLOPES],
                                 .sinks = wanted[ORACLE_OF_SINKS]};
}

/* Where an element of the rank's is in the whole. */
static void whole_index(const int64_t *rows, const attn_tensor *own, const int64_t *index,
                        int64_t *from) {
    memcpy(from, index, ATTN_MAX_RANK * sizeof *from);
    if (rows != NULL) {
        from[own->rank - 2] = rows[index[own->rank - 2]];
    }
}

void ranks_gradients_reset(const ranks_gradients *made) {
    for (int i = 0; i < ORACLE_NUM_GRADIENTS; ++i) {
        const attn_tensor *const own = made->own.wanted[i], *const whole = made->whole.wanted[i];
        int64_t index[ATTN_MAX_RANK] = {0}, from[ATTN_MAX_RANK], count;
        if (own == NULL || oracle_count(own->rank, own->shape) == 0) {
            continue;
        }
        const int64_t *const rows = rows_of(&made->made, i, whole, &count);
        do {
            whole_index(rows, own, index, from);
            memcpy(oracle_address(own, index), oracle_address(whole, from),
                   attn_dtype_size_bytes(own->dtype));
        } while (oracle_next_index(own->rank, own->shape, index));
    }
}

static int64_t place_in(const attn_tensor *tensor, const int64_t *index) {
    int64_t at = 0;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        at = at * tensor->shape[axis] + index[axis];
    }
    return at;
}

static int compare_one(const ranks_gradients *made, int which, const oracle_array *expected,
                       compare_stats *stats, char *message, size_t message_bytes) {
    static const char *const names[ORACLE_NUM_GRADIENTS] = {
        "gradients.query", "gradients.key",           "gradients.value",        "gradients.mask",
        "gradients.bias",  "gradients.position_bias", "gradients.alibi_slopes", "gradients.sinks"};
    const attn_tensor *const own = made->own.wanted[which], *const whole =
                                                                made->whole.wanted[which];
    int64_t index[ATTN_MAX_RANK] = {0}, from[ATTN_MAX_RANK], rows_count;
    const int64_t *const rows = rows_of(&made->made, which, whole, &rows_count);
    const int64_t count = oracle_count(own->rank, own->shape);
    oracle_array part = oracle_array_create(count);
    for (int64_t i = 0; i < count; ++i) {
        whole_index(rows, own, index, from);
        part.value[i] = expected->value[place_in(whole, from)];
        part.error[i] = expected->error[place_in(whole, from)];
        oracle_next_index(own->rank, own->shape, index);
    }
    const int differs = compare_tensor(names[which], own, &part, stats, message, message_bytes);
    oracle_array_destroy(&part);
    return differs;
}

/* How a result of this type was rounded where it was stored. */
static double stored_unit(const attn_tensor *output) {
    switch (output->dtype) {
    case ATTN_DTYPE_BFLOAT16:
        return 0x1p-8;
    case ATTN_DTYPE_FLOAT16:
        return 0x1p-10;
    default:
        return bound_rounding_of(output->dtype).unit;
    }
}

static double *numbers_of(const attn_tensor *tensor) {
    return tensor != NULL ? oracle_expand(tensor, tensor->rank, tensor->shape) : NULL;
}

int ranks_gradients_compare(const ranks_gradients *made, const char *kernels, compare_stats *stats,
                            char *message, size_t message_bytes) {
    const ranks_tensors *const whole = &made->made.whole;
    const attn_sdpa_params params = ranks_case_params(&made->made, whole);
    const double unit = oracle_weight_unit(kernels, whole->query, whole->key, whole->value);
    oracle_problem problem =
        oracle_sdpa_problem(whole->query, whole->key, whole->value, &params, unit);
    double *const output = numbers_of(made->whole.output_gradient);
    double *const lse = numbers_of(made->whole.lse_gradient);
    const oracle_given given = {.output = output,
                                .lse = lse,
                                .output_unit = stored_unit(made->whole.output),
                                .output_step =
                                    made->whole.output->dtype == ATTN_DTYPE_FLOAT16 ? 0x1p-25 : 0};
    oracle_gradients all = oracle_attention_gradients(&problem, &given);
    int differs = 0;
    for (int i = 0; i < ORACLE_NUM_GRADIENTS && !differs; ++i) {
        const attn_tensor *const wanted = made->whole.wanted[i];
        if (wanted == NULL) {
            continue;
        }
        double *const before = numbers_of(wanted);
        const oracle_wanted of = {(enum oracle_gradient_of)i, wanted, made->whole.output,
                                  made->accumulates ? before : NULL};
        oracle_array expected = oracle_input_gradient(&of, &problem, &all);
        differs = compare_one(made, i, &expected, stats, message, message_bytes);
        oracle_array_destroy(&expected);
        free(before);
    }
    oracle_gradients_destroy(&all);
    oracle_problem_destroy(&problem);
    free(output);
    free(lse);
    return differs;
}
