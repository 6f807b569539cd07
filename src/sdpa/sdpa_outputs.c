/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_outputs.c: what a call's outputs look like, for whoever allocates them.
 */
#include "sdpa/sdpa_outputs.h"

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "problem/sdpa_check.h"
#include "problem/sdpa_options.h"

/* `like` without its last axis, of the score type. */
static attn_tensor lse_of(const attn_tensor *like) {
    attn_tensor lse = *like;
    lse.dtype = attni_score_dtype(like->dtype);
    lse.rank = like->rank - 1;
    lse.shape[lse.rank] = 0;
    lse.strides[lse.rank] = 0;
    attni_make_contiguous(&lse);
    return lse;
}

/* `like` with another last axis. */
static attn_tensor with_columns(const attn_tensor *like, int64_t columns) {
    attn_tensor view = *like;
    view.shape[like->rank - 1] = columns;
    attni_make_contiguous(&view);
    return view;
}

static attn_tensor without_heads(const attn_tensor *weights) {
    attn_tensor view = *weights;
    const int32_t heads = weights->rank - 3;
    view.rank = weights->rank - 1;
    for (int32_t axis = heads; axis < view.rank; ++axis) {
        view.shape[axis] = weights->shape[axis + 1];
    }
    view.shape[view.rank] = 0;
    view.strides[view.rank] = 0;
    attni_make_contiguous(&view);
    return view;
}

attn_status attni_sdpa_describe_outputs(const attni_sdpa_request *request,
                                        attn_sdpa_outputs *outputs) {
    *outputs = (attn_sdpa_outputs){.struct_size = sizeof *outputs};
    attni_sdpa_request whole = *request;
    attn_sdpa_params params = *request->params;
    params.lse = NULL;
    params.weights = NULL;
    params.scores = NULL;
    params.report = NULL;
    whole.params = &params;
    whole.output = &outputs->output;
    ATTNI_TRY(attni_sdpa_describe_output(&whole, &outputs->output));
    attni_sdpa_problem problem;
    ATTNI_TRY(attni_sdpa_check(&whole, &problem));
    if (params.normalizer == ATTN_NORMALIZER_SOFTMAX) {
        outputs->lse = lse_of(&outputs->output);
    }
    outputs->weights = with_columns(&outputs->output, problem.src_len + problem.extra_cols);
    ATTNI_TRY(attni_check_extent("weights", &outputs->weights));
    outputs->averaged_weights =
        problem.has_heads ? without_heads(&outputs->weights) : outputs->weights;
    outputs->scores = outputs->weights;
    outputs->scores.dtype = problem.score_dtype;
    return attni_check_extent("scores", &outputs->scores);
}

attn_status attn_sdpa_describe_outputs(const attn_tensor *query, const attn_tensor *key,
                                       const attn_tensor *value, const attn_sdpa_params *params,
                                       attn_sdpa_outputs *outputs) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_struct_check_output("outputs", outputs,
                                        ATTNI_BYTES_THROUGH(attn_sdpa_outputs, averaged_weights)));
    attn_sdpa_params known_params;
    ATTNI_TRY(attni_sdpa_read_params("params", params, &known_params));
    const attni_sdpa_request request = {
        .query = query,
        .key = key,
        .value = value,
        .params = &known_params,
        .option_prefix = "",
        .tensor_data = ATTNI_DATA_IGNORED,
        .option_data = ATTNI_DATA_IGNORED,
        .kv_names = &attni_names_of_kv,
    };
    attn_sdpa_outputs known;
    ATTNI_TRY(attni_sdpa_describe_outputs(&request, &known));
    attni_struct_write(outputs, &known, sizeof known);
    return ATTN_OK;
}
