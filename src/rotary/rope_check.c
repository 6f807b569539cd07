/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_check.c: the argument errors of a rotation.
 */
#include "rotary/rope_check.h"

#include <math.h>

#include "base/checked_size.h"
#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "rotary/rope_angles.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

static const double default_base = 10000;

const attni_rope_names attni_rope_own_names = {
    .prefix = "",
    .frequencies = "frequencies",
    .cos = "cos",
    .sin = "sin",
    .positions = "positions",
    .lengths = "lengths",
};

/* ---- numbers ---- */

static attn_status check_numbers(const attn_rope_params *params, const char *prefix) {
    const double base = params->base;
    if (!(base >= 0) || isinf(base)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%sbase: expected 0 (10000) or a positive number, got %g", prefix, base);
    }
    if (!isfinite(params->magnitude)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%smagnitude: expected 0 (1) or a finite number, got %g", prefix,
                          params->magnitude);
    }
    ATTNI_TRY(attni_check_switch(prefix, "interleaved", params->interleaved));
    return attni_check_switch(prefix, "inverse", params->inverse);
}

/* R, which may be all of E. */
static attn_status check_rotary_dim(int64_t rotary_dim, const char *prefix, int64_t num_features,
                                    int64_t *num_pairs) {
    if (rotary_dim < 0 || rotary_dim > num_features || rotary_dim % 2 != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%srotary_dim: expected an even number, 0 to E=%lld, got %lld", prefix,
                          (long long)num_features, (long long)rotary_dim);
    }
    if (rotary_dim == 0 && num_features % 2 != 0) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "input: expected an even number of features E without rotary_dim, got "
                          "%lld",
                          (long long)num_features);
    }
    *num_pairs = (rotary_dim == 0 ? num_features : rotary_dim) / 2;
    return ATTN_OK;
}

/* ---- tensors ---- */

static attn_status check_input(const attni_rope_request *request, attni_rope_problem *problem) {
    const attn_tensor *input = request->input;
    ATTNI_TRY(attni_check_tensor("input", input, request->tensor_data));
    ATTNI_TRY(attni_check_rank("input", input, 2, ATTN_MAX_RANK));
    ATTNI_TRY(attni_check_float("input", input));
    problem->input = attni_canonical(input);
    problem->score_dtype = attni_score_dtype(input->dtype);
    problem->batch_rank = input->rank > 3 ? input->rank - 3 : 0;
    problem->num_batches = 1;
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        problem->num_batches *= input->shape[axis];
    }
    problem->num_heads = input->rank > 2 ? input->shape[input->rank - 3] : 1;
    problem->num_rows = input->shape[input->rank - 2];
    problem->num_features = input->shape[input->rank - 1];
    return ATTN_OK;
}

static attn_status check_output(const attni_rope_request *request, attni_rope_problem *problem) {
    const attn_tensor *input = &problem->input;
    const attn_tensor *output = request->output;
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < input->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, input->shape[axis]};
    }
    axes[input->rank - 2].name = "L";
    axes[input->rank - 1].name = "E";
    ATTNI_TRY(attni_check_tensor("output", output, request->tensor_data));
    ATTNI_TRY(attni_check_result("output", output, input->dtype));
    ATTNI_TRY(attni_check_shape("output", output, axes, input->rank));
    ATTNI_TRY(attni_check_writable("output", output));
    problem->output = attni_canonical(output);
    problem->is_in_place = attni_is_same_view(input, output);
    return ATTN_OK;
}

/* (batch axes, L, R/2). */
static void list_axes(const attni_rope_problem *problem, attni_axis axes[ATTN_MAX_RANK]) {
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        axes[axis] = (attni_axis){NULL, problem->input.shape[axis]};
    }
    axes[problem->batch_rank] = (attni_axis){"L", problem->num_rows};
    axes[problem->batch_rank + 1] = (attni_axis){"R/2", problem->num_pairs};
}

/* An option whose last `tail` axes follow the batch axes. */
static attn_status check_broadcast(const char *name, const attn_tensor *tensor, int32_t tail,
                                   const attni_rope_problem *problem, attni_rope_option *option) {
    attni_axis axes[ATTN_MAX_RANK];
    list_axes(problem, axes);
    const attn_tensor view = attni_canonical(tensor);
    option->is_given = true;
    option->tensor = view;
    return attni_broadcast_strides(name, &view, axes, problem->batch_rank + tail, option->strides);
}

static attn_status check_index(const char *name, const attn_tensor *tensor,
                               attni_data_rule data_rule, int32_t tail,
                               const attni_rope_problem *problem, attni_rope_option *option) {
    if (tensor == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_index(name, tensor));
    return check_broadcast(name, tensor, tail, problem, option);
}

static void take_starts(const attn_tensor *starts, attni_rope_problem *problem) {
    if (starts != NULL) {
        problem->starts = (attni_rope_starts){true, attni_canonical(starts), starts->shape[0] - 1};
    }
}

/* One for each batch, or for each of the sequences whose rows input has. */
static attn_status check_lengths(const attni_rope_request *request, attni_rope_problem *problem) {
    const char *name = request->names->lengths;
    const attn_tensor *lengths = request->params->lengths;
    if (!problem->starts.is_given || lengths == NULL) {
        return check_index(name, lengths, request->option_data, 0, problem, &problem->lengths);
    }
    const attni_axis axis = {"B", problem->starts.num_sequences};
    ATTNI_TRY(attni_check_tensor(name, lengths, request->option_data));
    ATTNI_TRY(attni_check_index(name, lengths));
    problem->lengths.is_given = true;
    problem->lengths.tensor = attni_canonical(lengths);
    return attni_broadcast_strides(name, lengths, &axis, 1, problem->lengths.strides);
}

static attn_status check_places(const attni_rope_request *request, attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const attni_rope_names *names = request->names;
    if (params->positions != NULL && params->lengths != NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL beside %s", names->lengths,
                          names->positions);
    }
    ATTNI_TRY(check_index(names->positions, params->positions, request->option_data, 1, problem,
                          &problem->positions));
    take_starts(request->starts, problem);
    return check_lengths(request, problem);
}

/* ---- cosines and sines ---- */

static attn_status check_frequencies(const attni_rope_request *request,
                                     attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const char *name = request->names->frequencies;
    if (params->base != 0) {
        return attni_fail(ATTN_ERROR_VALUE, "%sbase: expected 0 beside frequencies, got %g",
                          request->names->prefix, params->base);
    }
    const attni_axis axis = {"R/2", problem->num_pairs};
    ATTNI_TRY(attni_check_tensor(name, params->frequencies, request->option_data));
    ATTNI_TRY(attni_check_float(name, params->frequencies));
    ATTNI_TRY(attni_check_shape(name, params->frequencies, &axis, 1));
    problem->source = ATTNI_ROPE_FREQUENCIES;
    problem->frequencies = attni_canonical(params->frequencies);
    return ATTN_OK;
}

/* A row for each position, the same number for cosines and sines. */
static attn_status check_looked_up(const char *name, const attn_tensor *table, int64_t num_rows,
                                   const attni_rope_problem *problem, attni_rope_option *option) {
    const attni_axis axes[] = {{"P", num_rows}, {"R/2", problem->num_pairs}};
    ATTNI_TRY(attni_check_shape(name, table, axes, 2));
    option->is_given = true;
    option->tensor = attni_canonical(table);
    option->strides[0] = option->tensor.strides[0];
    option->strides[1] = option->tensor.strides[1];
    return ATTN_OK;
}

static attn_status check_table_values(const attni_rope_request *request, const char *name,
                                      const attn_tensor *table, int32_t input_dtype) {
    ATTNI_TRY(attni_check_tensor(name, table, request->option_data));
    return attni_check_beside(name, table, input_dtype);
}

static attn_status check_tables(const attni_rope_request *request, attni_rope_problem *problem) {
    const attni_rope_names *names = request->names;
    const attn_rope_params *params = request->params;
    const attn_tensor *cosines = params->cos;
    const attn_tensor *sines = params->sin;
    if (params->base != 0) {
        return attni_fail(ATTN_ERROR_VALUE, "%sbase: expected 0 beside cos and sin, got %g",
                          names->prefix, params->base);
    }
    if (params->frequencies != NULL) {
        return attni_fail(ATTN_ERROR_VALUE, "%s: expected NULL beside cos and sin",
                          names->frequencies);
    }
    if (cosines == NULL || sines == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a tensor beside %s, got NULL",
                          cosines == NULL ? names->cos : names->sin,
                          cosines == NULL ? names->sin : names->cos);
    }
    ATTNI_TRY(check_table_values(request, names->cos, cosines, problem->input.dtype));
    ATTNI_TRY(check_table_values(request, names->sin, sines, problem->input.dtype));
    if (!problem->positions.is_given && !problem->lengths.is_given) {
        problem->source = ATTNI_ROPE_TABLE;
        ATTNI_TRY(check_broadcast(names->cos, cosines, 2, problem, &problem->cos));
        return check_broadcast(names->sin, sines, 2, problem, &problem->sin);
    }
    problem->source = ATTNI_ROPE_LOOKED_UP;
    ATTNI_TRY(check_looked_up(names->cos, cosines, ATTNI_ANY_LENGTH, problem, &problem->cos));
    problem->table_rows = cosines->shape[0];
    return check_looked_up(names->sin, sines, problem->table_rows, problem, &problem->sin);
}

static attn_status check_source(const attni_rope_request *request, attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const double magnitude = params->magnitude == 0 ? 1 : params->magnitude;
    problem->is_interleaved = params->interleaved != 0;
    problem->cosine_factor = magnitude;
    problem->sine_factor = params->inverse != 0 ? -magnitude : magnitude;
    problem->base = params->base == 0 ? default_base : params->base;
    if (params->cos != NULL || params->sin != NULL) {
        return check_tables(request, problem);
    }
    return params->frequencies != NULL ? check_frequencies(request, problem) : ATTN_OK;
}

/* ---- what is shared, what overlaps, what is outside ---- */

static bool tells_batches_apart(const attni_rope_problem *problem,
                                const attni_rope_option *option) {
    bool differs = false;
    for (int32_t axis = 0; option->is_given && axis < problem->batch_rank; ++axis) {
        differs = differs || option->strides[axis] != 0;
    }
    return differs;
}

static void make_groups(attni_rope_problem *problem) {
    const bool is_table = problem->source == ATTNI_ROPE_TABLE;
    const bool are_apart = tells_batches_apart(problem, &problem->positions) ||
                           tells_batches_apart(problem, &problem->lengths) ||
                           (is_table && (tells_batches_apart(problem, &problem->cos) ||
                                         tells_batches_apart(problem, &problem->sin)));
    problem->num_groups = are_apart ? problem->num_batches : 1;
    problem->group_planes = problem->num_heads * (are_apart ? 1 : problem->num_batches);
}

static attn_status check_overlap(const attni_rope_request *request,
                                 const attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const attni_rope_names *names = request->names;
    const attni_argument outputs[] = {{"output", request->output}};
    const attni_argument inputs[] = {{"input", problem->is_in_place ? NULL : request->input},
                                     {names->frequencies, params->frequencies},
                                     {names->cos, params->cos},
                                     {names->sin, params->sin},
                                     {names->positions, params->positions},
                                     {names->lengths, params->lengths}};
    return attni_check_outputs(outputs, 1, inputs, (int32_t)(sizeof inputs / sizeof inputs[0]));
}

/* The rows of each sequence stand at rows of the tables. */
static attn_status check_ragged_values(const char *name, const attni_rope_problem *problem) {
    const attni_rope_option *lengths = &problem->lengths;
    for (int64_t i = 0; i < problem->starts.num_sequences; ++i) {
        const int64_t begin = attni_rope_start_of(problem, i);
        const int64_t rows = attni_rope_start_of(problem, i + 1) - begin;
        const int64_t length =
            attni_read_index(lengths->tensor.data, i * lengths->strides[0], lengths->tensor.dtype);
        if (rows > 0 && (length < rows || length > problem->table_rows)) {
            return attni_fail(
                ATTN_ERROR_VALUE, "%s: expected %lld to %lld, got %lld in sequence %lld", name,
                (long long)rows, (long long)problem->table_rows, (long long)length, (long long)i);
        }
    }
    return ATTN_OK;
}

/* A sequence has no negative length, and every position that is looked up a row of the tables. */
static attn_status check_values(const attni_rope_request *request,
                                const attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const bool is_looked_up = problem->source == ATTNI_ROPE_LOOKED_UP && problem->num_rows > 0;
    if (problem->starts.is_given && problem->lengths.is_given && is_looked_up) {
        return check_ragged_values(request->names->lengths, problem);
    }
    if (problem->lengths.is_given) {
        return attni_check_indices(request->names->lengths, params->lengths, "",
                                   is_looked_up ? problem->num_rows : 0,
                                   is_looked_up ? problem->table_rows : INT64_MAX);
    }
    if (problem->positions.is_given && is_looked_up) {
        return attni_check_indices(request->names->positions, params->positions, "", 0,
                                   problem->table_rows - 1);
    }
    return ATTN_OK;
}

attn_status attni_rope_read_params(const char *name, const attn_rope_params *given,
                                   attn_rope_params *params) {
    return attni_struct_read(name, given, ATTNI_BYTES_THROUGH(attn_rope_params, lengths),
                             sizeof *params, params);
}

attn_status attni_rope_check(const attni_rope_request *request, attni_rope_problem *problem) {
    const attn_rope_params *params = request->params;
    const char *prefix = request->names->prefix;
    *problem = (attni_rope_problem){.source = ATTNI_ROPE_BASE};
    ATTNI_TRY(check_input(request, problem));
    ATTNI_TRY(check_output(request, problem));
    ATTNI_TRY(check_numbers(params, prefix));
    ATTNI_TRY(
        check_rotary_dim(params->rotary_dim, prefix, problem->num_features, &problem->num_pairs));
    ATTNI_TRY(check_places(request, problem));
    ATTNI_TRY(check_source(request, problem));
    make_groups(problem);
    if (request->tensor_data == ATTNI_DATA_REQUIRED) {
        ATTNI_TRY(check_overlap(request, problem));
    }
    return request->option_data == ATTNI_DATA_REQUIRED ? check_values(request, problem) : ATTN_OK;
}
