/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rms_norm.c: the public RMS normalisation of rows: check, run.
 */
#include <attention/rms_norm.h>

#include <math.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "norm/norm_rows.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

static attn_status check_numbers(const attn_rms_norm_params *params, attni_norm_problem *problem) {
    const double epsilon = params->epsilon;
    if (!(epsilon >= 0) || isinf(epsilon)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "epsilon: expected 0 (the default) or a positive number, got %g",
                          epsilon);
    }
    if (!isfinite(params->weight_offset)) {
        return attni_fail(ATTN_ERROR_VALUE, "weight_offset: expected a finite number, got %g",
                          params->weight_offset);
    }
    if (params->weight == NULL && params->weight_offset != 0) {
        return attni_fail(ATTN_ERROR_VALUE, "weight_offset: expected 0 without weight, got %g",
                          params->weight_offset);
    }
    problem->epsilon = epsilon == 0 ? attni_norm_default_epsilon(problem->score_dtype) : epsilon;
    problem->weight_offset = params->weight_offset;
    return ATTN_OK;
}

static attn_status check_weight(const attn_tensor *weight, const attni_axis *axes,
                                attni_norm_problem *problem) {
    if (weight == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_tensor("weight", weight, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_beside("weight", weight, problem->input.dtype));
    problem->has_weight = true;
    problem->weight = attni_canonical(weight);
    return attni_broadcast_strides("weight", &problem->weight, axes, problem->input.rank,
                                   problem->weight_strides);
}

static attn_status check(const attn_tensor *input, const attn_rms_norm_params *given,
                         const attn_tensor *output, attni_norm_problem *problem) {
    attn_rms_norm_params params;
    ATTNI_TRY(attni_struct_read("params", given,
                                ATTNI_BYTES_THROUGH(attn_rms_norm_params, weight_offset),
                                sizeof params, &params));
    ATTNI_TRY(attni_check_tensor("input", input, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_rank("input", input, 1, ATTN_MAX_RANK));
    ATTNI_TRY(attni_check_float("input", input));
    attni_axis axes[ATTN_MAX_RANK];
    *problem = (attni_norm_problem){.input = attni_canonical(input),
                                    .score_dtype = attni_score_dtype(input->dtype),
                                    .row_rank = input->rank - 1,
                                    .num_rows = 1,
                                    .num_cols = input->shape[input->rank - 1]};
    for (int32_t axis = 0; axis < input->rank; ++axis) {
        axes[axis] = (attni_axis){axis == problem->row_rank ? "E" : NULL, input->shape[axis]};
        problem->num_rows *= axis < problem->row_rank ? input->shape[axis] : 1;
    }
    ATTNI_TRY(attni_check_tensor("output", output, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_result("output", output, input->dtype));
    ATTNI_TRY(attni_check_shape("output", output, axes, input->rank));
    ATTNI_TRY(attni_check_writable("output", output));
    problem->output = attni_canonical(output);
    ATTNI_TRY(check_numbers(&params, problem));
    ATTNI_TRY(check_weight(params.weight, axes, problem));
    const attni_argument outputs[] = {{"output", output}};
    const attni_argument inputs[] = {{"input", attni_is_same_view(input, output) ? NULL : input},
                                     {"weight", params.weight}};
    return attni_check_outputs(outputs, 1, inputs, 2);
}

attn_status attn_rms_norm(attn_context *context, const attn_tensor *input,
                          const attn_rms_norm_params *params, const attn_tensor *output) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attni_norm_problem problem;
    ATTNI_TRY(check(input, params, output, &problem));
    return attni_norm_run(context, &problem);
}
