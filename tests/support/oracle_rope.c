/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_rope.c: rotation by position, pair by pair.
 */
#include "support/oracle_rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A call whose options are expanded to its axes. */
typedef struct rope_call {
    attn_rope_params params;
    int32_t batch_rank;
    int64_t shape[ATTN_MAX_RANK]; /* batch axes, L, R/2 */
    int64_t batches, heads, rows, features, pairs;
    int64_t *positions;      /* (batches, rows) */
    double *cosines, *sines; /* (batches, rows, pairs) of tables, or NULL */
    double *frequencies;     /* (pairs), or NULL */
    bound_rounding rounding;
} rope_call;

/* The cosine and sine of one pair, and how far each may be off before it is rounded. */
typedef struct rope_turn {
    double cosine, sine, error;
} rope_turn;

static int64_t *expand_positions(const rope_call *call) {
    const attn_rope_params *params = &call->params;
    if (params->positions != NULL) {
        return oracle_expand_integers(params->positions, call->batch_rank + 1, call->shape);
    }
    int64_t *positions = oracle_allocate(call->batches * call->rows, sizeof *positions);
    int64_t *lengths = NULL;
    if (params->lengths != NULL) {
        lengths = oracle_expand_integers(params->lengths, call->batch_rank, call->shape);
    }
    for (int64_t i = 0; i < call->batches * call->rows; ++i) {
        const int64_t length = lengths == NULL ? call->rows : lengths[i / call->rows];
        positions[i] = length - call->rows + i % call->rows;
    }
    free(lengths);
    return positions;
}

/* Row p of a table for each position p. */
static double *look_up(const rope_call *call, const attn_tensor *table) {
    double *values = oracle_allocate(call->batches * call->rows * call->pairs, sizeof *values);
    for (int64_t i = 0; i < call->batches * call->rows * call->pairs; ++i) {
        const int64_t index[] = {call->positions[i / call->pairs], i % call->pairs};
        values[i] = oracle_element(table, index);
    }
    return values;
}

static double *expand_table(const rope_call *call, const attn_tensor *table) {
    if (table == NULL) {
        return NULL;
    }
    if (call->params.positions != NULL || call->params.lengths != NULL) {
        return look_up(call, table);
    }
    return oracle_expand(table, call->batch_rank + 2, call->shape);
}

static rope_call expand_call(const attn_tensor *input, const attn_rope_params *params) {
    rope_call call = {.rounding = bound_rounding_of(input->dtype), .batches = 1, .heads = 1};
    const int32_t rank = input->rank;
    if (params != NULL) {
        call.params = *params;
    }
    call.batch_rank = rank > 3 ? rank - 3 : 0;
    for (int32_t axis = 0; axis < call.batch_rank; ++axis) {
        call.shape[axis] = input->shape[axis];
        call.batches *= input->shape[axis];
    }
    call.heads = rank > 2 ? input->shape[rank - 3] : 1;
    call.rows = call.shape[call.batch_rank] = input->shape[rank - 2];
    call.features = input->shape[rank - 1];
    call.pairs = (call.params.rotary_dim == 0 ? call.features : call.params.rotary_dim) / 2;
    call.shape[call.batch_rank + 1] = call.pairs;
    call.positions = expand_positions(&call);
    call.cosines = expand_table(&call, call.params.cos);
    call.sines = expand_table(&call, call.params.sin);
    if (call.params.frequencies != NULL) {
        call.frequencies = oracle_expand(call.params.frequencies, 1, &call.pairs);
    }
    return call;
}

static rope_turn computed_turn(const rope_call *call, int64_t row, int64_t pair) {
    const double given = call->params.base == 0 ? 10000 : call->params.base;
    const long double base = (long double)given;
    const long double frequency = call->frequencies != NULL
                                      ? (long double)call->frequencies[pair]
                                      : powl(base, -(long double)pair / (long double)call->pairs);
    const long double angle = (long double)call->positions[row] * frequency;
    const double roundings = call->frequencies != NULL ? 2 : 4 + fabs(log(given));
    return (rope_turn){(double)cosl(angle), (double)sinl(angle),
                       roundings * 0x1p-53 * fabs((double)angle) + 0x1p-51};
}

static rope_turn turn_of(const rope_call *call, int64_t row, int64_t pair) {
    rope_turn turn = {0};
    if (call->cosines != NULL) {
        turn.cosine = call->cosines[row * call->pairs + pair];
        turn.sine = call->sines[row * call->pairs + pair];
    } else {
        turn = computed_turn(call, row, pair);
    }
    const double magnitude = call->params.magnitude == 0 ? 1 : call->params.magnitude;
    turn.cosine *= magnitude;
    turn.sine *= call->params.inverse ? -magnitude : magnitude;
    turn.error *= fabs(magnitude);
    return turn;
}

/* first * cosine + second * sine */
static void set_result(const rope_call *call, rope_turn turn, double first, double second,
                       oracle_array *result, int64_t at) {
    const double size = fabs(first * turn.cosine) + fabs(second * turn.sine);
    result->value[at] = (double)((long double)first * (long double)turn.cosine +
                                 (long double)second * (long double)turn.sine);
    result->error[at] = 5 * call->rounding.unit * size + turn.error * (fabs(first) + fabs(second)) +
                        call->rounding.smallest;
    if (!isfinite(first) || !isfinite(second)) {
        result->value[at] = 0;
        result->error[at] = NAN;
    }
}

static void rotate_row(const rope_call *call, int64_t row, const double *input, int64_t at,
                       oracle_array *result) {
    for (int64_t e = 2 * call->pairs; e < call->features; ++e) {
        result->value[at + e] = input[e];
    }
    for (int64_t pair = 0; pair < call->pairs; ++pair) {
        const rope_turn turn = turn_of(call, row, pair);
        const rope_turn back = {turn.cosine, -turn.sine, turn.error};
        const int64_t first = call->params.interleaved ? 2 * pair : pair;
        const int64_t second = call->params.interleaved ? first + 1 : pair + call->pairs;
        set_result(call, back, input[first], input[second], result, at + first);
        set_result(call, turn, input[second], input[first], result, at + second);
    }
}

oracle_array oracle_rope(const attn_tensor *input, const attn_rope_params *params) {
    rope_call call = expand_call(input, params);
    double *values = oracle_expand(input, input->rank, input->shape);
    const int64_t num_rows = call.batches * call.heads * call.rows;
    oracle_array result = oracle_array_create(num_rows * call.features);
    for (int64_t i = 0; i < num_rows; ++i) {
        const int64_t batch = i / call.rows / call.heads;
        rotate_row(&call, batch * call.rows + i % call.rows, values + i * call.features,
                   i * call.features, &result);
    }
    free(values);
    free(call.positions);
    free(call.cosines);
    free(call.sines);
    free(call.frequencies);
    return result;
}
