/* SPDX-License-Identifier: BSD-3-Clause
 *
 * merge_check.c: partial results that fit each other, and the rows that they have in common.
 */
#include "sdpa/merge_check.h"

#include "base/versioned_struct.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

enum { PART_NAME_BYTES = 32 };

/* "outputs[2]" into `text`. Printing would take longer than checking. */
static const char *part_name(char text[PART_NAME_BYTES], const char *array, int64_t part) {
    char digits[PART_NAME_BYTES];
    int32_t count = 0;
    do {
        digits[count++] = (char)('0' + part % 10);
        part /= 10;
    } while (part > 0);
    char *end = text;
    while (*array != '\0') {
        *end++ = *array++;
    }
    *end++ = '[';
    while (count > 0) {
        *end++ = digits[--count];
    }
    *end++ = ']';
    *end = '\0';
    return text;
}

/* Output's axes, for messages; the first rank - 1 are those of lse. */
static void name_axes(const attn_tensor *output, attni_axis axes[ATTN_MAX_RANK]) {
    static const char *const names[] = {"Ev", "L", "H"};
    for (int32_t axis = 0; axis < output->rank; ++axis) {
        const int32_t from_end = output->rank - 1 - axis;
        axes[axis] = (attni_axis){from_end < 3 ? names[from_end] : NULL, output->shape[axis]};
    }
}

static attn_status check_parts(const attni_merge_problem *problem, const attni_axis *axes) {
    char name[PART_NAME_BYTES];
    for (int64_t part = 0; part < problem->count; ++part) {
        const attn_tensor *partial = &problem->outputs[part];
        part_name(name, "outputs", part);
        ATTNI_TRY(attni_check_tensor(name, partial, ATTNI_DATA_REQUIRED));
        ATTNI_TRY(attni_check_beside(name, partial, problem->score_dtype));
        ATTNI_TRY(attni_check_shape(name, partial, axes, problem->output->rank));
    }
    for (int64_t part = 0; problem->lses != NULL && part < problem->count; ++part) {
        const attn_tensor *lses = &problem->lses[part];
        part_name(name, "lses", part);
        ATTNI_TRY(attni_check_tensor(name, lses, ATTNI_DATA_REQUIRED));
        ATTNI_TRY(attni_check_dtype(name, lses, problem->score_dtype));
        ATTNI_TRY(attni_check_shape(name, lses, axes, problem->output->rank - 1));
    }
    return ATTN_OK;
}

static attn_status check_results(const attni_merge_problem *problem, const attni_axis *axes) {
    ATTNI_TRY(attni_check_writable("output", problem->output));
    if (problem->lse == NULL) {
        return ATTN_OK;
    }
    if (problem->lses == NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "lse: expected NULL without lses");
    }
    ATTNI_TRY(attni_check_tensor("lse", problem->lse, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_dtype("lse", problem->lse, problem->score_dtype));
    ATTNI_TRY(attni_check_shape("lse", problem->lse, axes, problem->output->rank - 1));
    return attni_check_writable("lse", problem->lse);
}

static attn_status check_sinks(const attn_tensor *sinks, attni_merge_problem *problem) {
    if (sinks == NULL) {
        return ATTN_OK;
    }
    if (problem->lses == NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "sinks: expected NULL without lses");
    }
    const int32_t head_axis = problem->output->rank - 3;
    const attni_axis heads = {"H", head_axis >= 0 ? problem->output->shape[head_axis] : 1};
    ATTNI_TRY(attni_check_tensor("sinks", sinks, ATTNI_DATA_REQUIRED));
    if (sinks->dtype != ATTN_DTYPE_FLOAT32) {
        ATTNI_TRY(attni_check_beside("sinks", sinks, problem->score_dtype));
    }
    ATTNI_TRY(attni_check_rank("sinks", sinks, 1, 1));
    int64_t stride;
    ATTNI_TRY(attni_broadcast_strides("sinks", sinks, &heads, 1, &stride));
    problem->sinks = (attn_tensor){.data = sinks->data, .dtype = sinks->dtype};
    if (head_axis >= 0) {
        problem->sinks.strides[head_axis] = stride;
    }
    return ATTN_OK;
}

/* In place an output may be an input, element by element. */
static attn_status check_apart_or_same(const char *name, const attn_tensor *output,
                                       const char *part, const attn_tensor *partial) {
    return attni_is_same_view(output, partial) ? ATTN_OK
                                               : attni_check_disjoint(name, output, part, partial);
}

static attn_status check_overlap(const attni_merge_problem *problem, const attn_tensor *sinks) {
    const attni_argument results[] = {{"output", problem->output}, {"lse", problem->lse}};
    const attni_argument inputs[] = {{"sinks", sinks}};
    ATTNI_TRY(attni_check_outputs(results, 2, inputs, 1));
    char name[PART_NAME_BYTES];
    for (int64_t part = 0; part < problem->count; ++part) {
        const attn_tensor *partial = &problem->outputs[part];
        part_name(name, "outputs", part);
        ATTNI_TRY(check_apart_or_same("output", problem->output, name, partial));
        ATTNI_TRY(attni_check_disjoint("lse", problem->lse, name, partial));
        if (problem->lses == NULL) {
            continue;
        }
        const attn_tensor *lses = &problem->lses[part];
        part_name(name, "lses", part);
        ATTNI_TRY(attni_check_disjoint("output", problem->output, name, lses));
        if (problem->lse != NULL) {
            ATTNI_TRY(check_apart_or_same("lse", problem->lse, name, lses));
        }
    }
    return ATTN_OK;
}

/* Whether an index of `outer` is worth as many of `inner`, the next axis, as that is long. The
 * product fits: the tensor's bytes do, of which an element has two or more. */
static bool follows(const attn_tensor *tensor, int32_t outer, int32_t inner, int64_t length) {
    return tensor->strides[inner] * length == tensor->strides[outer];
}

/* The same of every tensor of the call. */
static bool all_follow(const attni_merge_problem *problem, int32_t outer, int32_t inner) {
    const int64_t length = problem->output->shape[inner];
    bool all = follows(problem->output, outer, inner, length) &&
               (problem->lse == NULL || follows(problem->lse, outer, inner, length)) &&
               follows(&problem->sinks, outer, inner, length);
    for (int64_t part = 0; all && part < problem->count; ++part) {
        all = follows(&problem->outputs[part], outer, inner, length) &&
              (problem->lses == NULL || follows(&problem->lses[part], outer, inner, length));
    }
    return all;
}

static void join_axes(attni_merge_problem *problem) {
    attni_merge_axes *rows = &problem->rows;
    *rows = (attni_merge_axes){0};
    for (int32_t axis = 0; axis < problem->output->rank - 1; ++axis) {
        const int64_t length = problem->output->shape[axis];
        if (length == 1) {
            continue;
        }
        if (rows->rank > 0 && all_follow(problem, rows->axis[rows->rank - 1], axis)) {
            rows->shape[rows->rank - 1] *= length;
            rows->axis[rows->rank - 1] = axis;
            continue;
        }
        rows->shape[rows->rank] = length;
        rows->axis[rows->rank++] = axis;
    }
    if (rows->rank == 0) {
        rows->shape[rows->rank++] = 1;
    }
}

attn_status attni_merge_check(const attn_merge_params *given_params, attni_merge_problem *given) {
    attn_merge_params params;
    ATTNI_TRY(attni_struct_read("params", given_params,
                                ATTNI_BYTES_THROUGH(attn_merge_params, sinks), sizeof params,
                                &params));
    if (given->count < 1) {
        return attni_fail(ATTN_ERROR_VALUE, "count: expected 1 and up, got %lld",
                          (long long)given->count);
    }
    if (given->outputs == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "outputs: expected count=%lld tensors, got NULL",
                          (long long)given->count);
    }
    const attn_tensor *output = given->output;
    ATTNI_TRY(attni_check_tensor("output", output, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_rank("output", output, 2, ATTN_MAX_RANK));
    ATTNI_TRY(attni_check_float("output", output));
    given->score_dtype = attni_score_dtype(output->dtype);
    attni_axis axes[ATTN_MAX_RANK];
    name_axes(output, axes);
    ATTNI_TRY(check_parts(given, axes));
    ATTNI_TRY(check_results(given, axes));
    ATTNI_TRY(check_sinks(params.sinks, given));
    ATTNI_TRY(check_overlap(given, params.sinks));
    given->num_cols = output->shape[output->rank - 1];
    given->num_rows = 1;
    for (int32_t axis = 0; axis < output->rank - 1; ++axis) {
        given->num_rows *= output->shape[axis];
    }
    join_axes(given);
    return ATTN_OK;
}
