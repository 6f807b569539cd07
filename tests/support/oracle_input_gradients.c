/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_input_gradients.c: sums of the oracle's arrays by where inputs have their elements.
 */
#include "support/oracle_input_gradients.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The axes of the oracle's arrays, (batch axes, heads, rows, columns); a call without heads has
 * one. */
typedef struct array_axes {
    int32_t rank;
    int64_t shape[ATTN_MAX_RANK];
} array_axes;

static array_axes axes_of(const oracle_wanted *wanted, int64_t rows, int64_t columns) {
    const attn_tensor *output = wanted->output;
    array_axes axes = {.rank = output->rank};
    memcpy(axes.shape, output->shape, sizeof axes.shape);
    axes.shape[axes.rank - 2] = rows;
    axes.shape[axes.rank - 1] = columns;
    return axes;
}

/* Where a position of an array lies in an input that repeats along some axes, as those of the
 * library's broadcasting do; heads are grouped. */
static void input_index(const array_axes *axes, const int64_t *index, const attn_tensor *input,
                        int64_t *own) {
    for (int32_t axis = 0; axis < input->rank; ++axis) {
        const int32_t canonical = axis + axes->rank - input->rank;
        const int64_t length = input->shape[axis];
        const int is_heads = canonical == axes->rank - 3;
        const int64_t share = is_heads && length > 0 ? axes->shape[canonical] / length : 1;
        own[axis] = length == 1 ? 0 : index[canonical] / share;
    }
}

/* Sums of an array's elements, by where the input has them. */
typedef struct summed {
    oracle_array sum;
    double *magnitude;
    int64_t *terms;
} summed;

static summed summed_create(const attn_tensor *input) {
    const int64_t count = oracle_count(input->rank, input->shape);
    return (summed){oracle_array_create(count), oracle_allocate(count, sizeof(double)),
                    oracle_allocate(count, sizeof(int64_t))};
}

static void add_element(summed *to, const attn_tensor *input, const int64_t *own, double value,
                        double error) {
    int64_t at = 0;
    for (int32_t axis = 0; axis < input->rank; ++axis) {
        at = at * input->shape[axis] + own[axis];
    }
    to->sum.value[at] += value;
    to->sum.error[at] += error;
    to->magnitude[at] += fabs(value) + error;
    ++to->terms[at];
}

/* One more rounding a term, and of what was there before. */
static oracle_array summed_finish(summed *of, const oracle_wanted *wanted,
                                  bound_rounding rounding) {
    oracle_array result = of->sum;
    const double largest = wanted->tensor->dtype == ATTN_DTYPE_FLOAT16 ? 65504 : rounding.largest;
    const int is_narrow = wanted->tensor->dtype == ATTN_DTYPE_FLOAT32 && rounding.unit < 0x1p-24;
    for (int64_t at = 0; at < result.count; ++at) {
        result.error[at] += bound_dot(rounding, of->terms[at], of->magnitude[at]);
        if (of->terms[at] == 0) {
            result.error[at] = 0;
        }
        if (wanted->before != NULL) {
            result.value[at] += wanted->before[at];
            result.error[at] += rounding.unit * (fabs(result.value[at]) + result.error[at] +
                                                 fabs(wanted->before[at]));
        }
        if (is_narrow) { /* beside float64 */
            result.error[at] += 0x1p-24 * (fabs(result.value[at]) + result.error[at]) + FLT_MIN;
        }
        if (fabs(result.value[at]) + result.error[at] > largest) {
            result.error[at] = NAN; /* it may be infinite */
        }
    }
    free(of->magnitude);
    free(of->terms);
    return result;
}

/* Of query, key or value: features of rows. */
static oracle_array sum_rows(const oracle_wanted *wanted, const oracle_array *all, array_axes axes,
                             bound_rounding rounding) {
    const attn_tensor *input = wanted->tensor;
    summed sums = summed_create(input);
    int64_t index[ATTN_MAX_RANK] = {0}, own[ATTN_MAX_RANK];
    for (int64_t at = 0; at < all->count; ++at) {
        input_index(&axes, index, input, own);
        add_element(&sums, input, own, all->value[at], all->error[at]);
        oracle_next_index(axes.rank, axes.shape, index);
    }
    return summed_finish(&sums, wanted, rounding);
}

/* A position (batch, head, row, key) of the scores. */
typedef struct score_position {
    int64_t batch, head, row, key;
} score_position;

/* Whether a block asks the mask of a score. */
static int is_asked(const oracle_problem *p, const score_position *at) {
    const int64_t row = (at->batch * p->heads + at->head) * p->rows + at->row;
    return p->blocks == NULL || p->blocks[row * p->keys + at->key] == ATTN_BLOCK_MASKED;
}

/* Of mask or bias; a mask may begin at some key. */
static int mask_index(const oracle_wanted *wanted, const oracle_problem *problem,
                      const array_axes *axes, int64_t *index, const score_position *at,
                      int64_t *own) {
    const attn_tensor *input = wanted->tensor;
    if (wanted->of == ORACLE_OF_MASK && !is_asked(problem, at)) {
        return 0;
    }
    if (wanted->of != ORACLE_OF_MASK || problem->mask_start == NULL) {
        input_index(axes, index, input, own);
        return 1;
    }
    const int64_t column = at->key - problem->mask_start[at->batch];
    input_index(axes, index, input, own);
    own[input->rank - 1] = column;
    return column >= 0 && column < input->shape[input->rank - 1];
}

/* What a score adds to element `own` of an option's gradient; 0 if nothing. */
static int option_index(const oracle_wanted *wanted, const oracle_problem *problem,
                        const array_axes *axes, int64_t *index, const score_position *at,
                        int64_t *own, double *share) {
    const attn_tensor *input = wanted->tensor;
    int64_t position;
    if (__builtin_add_overflow(at->row, problem->query_offset[at->batch], &position)) {
        position = problem->query_offset[at->batch] < 0 ? INT64_MIN : INT64_MAX;
    }
    *share = 1;
    if (wanted->of == ORACLE_OF_MASK || wanted->of == ORACLE_OF_BIAS) {
        return mask_index(wanted, problem, axes, index, at, own);
    }
    own[0] = input->shape[0] == 1 ? 0 : at->head;
    if (wanted->of == ORACLE_OF_SLOPES) {
        *share = -fabs((double)position - (double)at->key);
        return 1;
    }
    const int64_t reach = input->shape[1] / 2;
    const double distance = (double)at->key - (double)position;
    own[1] = distance > (double)reach    ? 2 * reach
             : distance < (double)-reach ? 0
                                         : reach + (at->key - position);
    return 1;
}

static oracle_array sum_scores(const oracle_wanted *wanted, const oracle_problem *problem,
                               const oracle_array *scores) {
    const attn_tensor *input = wanted->tensor;
    const array_axes axes = axes_of(wanted, problem->rows, problem->keys);
    summed sums = summed_create(input);
    int64_t index[ATTN_MAX_RANK] = {0}, own[ATTN_MAX_RANK];
    for (int64_t at = 0; at < scores->count; ++at) {
        const int64_t key = at % problem->keys, row = at / problem->keys % problem->rows;
        const int64_t head = at / problem->keys / problem->rows;
        const score_position position = {head / problem->heads, head % problem->heads, row, key};
        double share;
        const int is_seen = scores->value[at] != 0 || scores->error[at] != 0;
        if (is_seen && option_index(wanted, problem, &axes, index, &position, own, &share)) {
            const double rounding = 2 * problem->rounding.unit * fabs(share * scores->value[at]);
            add_element(&sums, input, own, share * scores->value[at],
                        fabs(share) * scores->error[at] + rounding);
        }
        oracle_next_index(axes.rank, axes.shape, index);
    }
    return summed_finish(&sums, wanted, problem->rounding);
}

static oracle_array sum_sinks(const oracle_wanted *wanted, const oracle_problem *problem,
                              const oracle_array *sinks) {
    const attn_tensor *input = wanted->tensor;
    summed sums = summed_create(input);
    for (int64_t at = 0; at < sinks->count; ++at) {
        const int64_t head = at / problem->rows % problem->heads;
        const int64_t own = input->shape[0] == 1 ? 0 : head;
        add_element(&sums, input, &own, sinks->value[at], sinks->error[at]);
    }
    return summed_finish(&sums, wanted, problem->rounding);
}

oracle_array oracle_input_gradient(const oracle_wanted *wanted, const oracle_problem *problem,
                                   const oracle_gradients *all) {
    switch (wanted->of) {
    case ORACLE_OF_QUERY:
        return sum_rows(wanted, &all->query, axes_of(wanted, problem->rows, problem->features),
                        problem->rounding);
    case ORACLE_OF_KEY:
        return sum_rows(wanted, &all->key, axes_of(wanted, problem->keys, problem->features),
                        problem->rounding);
    case ORACLE_OF_VALUE:
        return sum_rows(wanted, &all->value,
                        axes_of(wanted, problem->keys, problem->value_features), problem->rounding);
    case ORACLE_OF_SINKS:
        return sum_sinks(wanted, problem, &all->sinks);
    default:
        return sum_scores(wanted, problem, &all->scores);
    }
}
