/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_options.c: checks one option after the other, and puts it on the canonical axes.
 */
#include "problem/sdpa_options.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "base/checked_size.h"
#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "problem/block_mask_check.h"
#include "tensor/element.h"

enum { NAME_BYTES = 48, ALL_SET = ATTN_SDPA_SET_SCALE | ATTN_SDPA_SET_WINDOW };

attn_status attni_sdpa_read_params(const char *name, const attn_sdpa_params *given,
                                   attn_sdpa_params *params) {
    return attni_struct_read(name, given, ATTNI_BYTES_THROUGH(attn_sdpa_params, report),
                             sizeof *params, params);
}

/* An option's full name, such as "attention.sinks", in `text` if it has to be put together:
 * printing takes longer than checking. */
static const char *option_name(const attni_sdpa_request *request, const char *option, char *text) {
    if (request->option_prefix[0] == '\0') {
        return option;
    }
    (void)snprintf(text, NAME_BYTES, "%s%s", request->option_prefix, option);
    return text;
}

static attn_status check_scale_and_window(const attn_sdpa_params *params, const char *prefix) {
    const bool has_scale = (params->set & ATTN_SDPA_SET_SCALE) != 0;
    const bool has_window = (params->set & ATTN_SDPA_SET_WINDOW) != 0;
    if (!has_scale && params->scale != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%sscale: expected 0 without ATTN_SDPA_SET_SCALE, got %g", prefix,
                          params->scale);
    }
    if (isnan(params->scale)) {
        return attni_fail(ATTN_ERROR_VALUE, "%sscale: expected a number, got NaN", prefix);
    }
    if (!has_window && (params->window_left != 0 || params->window_right != 0)) {
        return attni_fail(
            ATTN_ERROR_VALUE,
            "%swindow: expected 0 and 0 without ATTN_SDPA_SET_WINDOW, got %lld and %lld", prefix,
            (long long)params->window_left, (long long)params->window_right);
    }
    if (params->window_left < -1 || params->window_right < -1) {
        const bool is_left = params->window_left < -1;
        return attni_fail(ATTN_ERROR_VALUE, "%swindow_%s: expected -1 (unlimited) and up, got %lld",
                          prefix, is_left ? "left" : "right",
                          (long long)(is_left ? params->window_left : params->window_right));
    }
    return ATTN_OK;
}

static attn_status check_numbers(const attn_sdpa_params *params, const char *prefix) {
    ATTNI_TRY(attni_check_bits(prefix, "set", params->set, ALL_SET, "enum attn_sdpa_set"));
    ATTNI_TRY(check_scale_and_window(params, prefix));
    if (!(params->softcap >= 0) || isinf(params->softcap)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%ssoftcap: expected 0 (none) or a positive number, got %g", prefix,
                          params->softcap);
    }
    ATTNI_TRY(attni_check_switch(prefix, "is_causal", params->is_causal));
    ATTNI_TRY(attni_check_switch(prefix, "enable_gqa", params->enable_gqa));
    ATTNI_TRY(attni_check_switch(prefix, "align_end", params->align_end));
    ATTNI_TRY(attni_check_choice(prefix, "normalizer", params->normalizer, ATTN_NORMALIZER_LINEAR,
                                 "enum attn_normalizer"));
    ATTNI_TRY(attni_check_choice(prefix, "scores_stage", params->scores_stage, ATTN_SCORE_MASKED,
                                 "enum attn_score_stage"));
    ATTNI_TRY(attni_check_reserved(prefix, params->reserved));
    if (params->align_end != 0 && params->query_offset != NULL) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%squery_offset: expected NULL beside align_end, which sets it", prefix);
    }
    const bool is_softmax = params->normalizer == ATTN_NORMALIZER_SOFTMAX;
    if (!is_softmax && (params->sinks != NULL || params->lse != NULL)) {
        return attni_fail(ATTN_ERROR_VALUE, "%s%s: expected NULL unless the normalizer is softmax",
                          prefix, params->sinks != NULL ? "sinks" : "lse");
    }
    return ATTN_OK;
}

static attn_status check_batch_option(const attni_sdpa_request *request, const char *option,
                                      const attn_tensor *tensor, const attni_sdpa_problem *problem,
                                      attni_operand *operand) {
    if (tensor == NULL) {
        return ATTN_OK;
    }
    char text[NAME_BYTES];
    return attni_check_batch_indices(option_name(request, option, text), tensor,
                                     request->option_data, problem, operand);
}

/* The lengths of a kv, which is no option of the attention inside a layer, have its name. */
static const char *lengths_name(const attni_sdpa_request *request, const attni_input_views *inputs,
                                char *text) {
    return inputs->kv_names != NULL ? inputs->lengths_name
                                    : option_name(request, inputs->lengths_name, text);
}

static attn_status place_key_lengths(const attni_sdpa_request *request,
                                     const attni_input_views *inputs, attni_sdpa_problem *problem) {
    char text[NAME_BYTES];
    return inputs->key_lengths == NULL
               ? ATTN_OK
               : attni_check_batch_indices(lengths_name(request, inputs, text), inputs->key_lengths,
                                           request->option_data, problem, &problem->key_lengths);
}

/* A view of shape (H) or (1). */
static attn_status check_head_option(const attni_sdpa_request *request, const char *option,
                                     const attn_tensor *tensor, const attni_sdpa_problem *problem,
                                     attni_operand *operand) {
    if (tensor == NULL) {
        return ATTN_OK;
    }
    char text[NAME_BYTES];
    const char *name = option_name(request, option, text);
    const attni_axis axis = {"Hq", problem->num_heads};
    ATTNI_TRY(attni_check_tensor(name, tensor, request->option_data));
    ATTNI_TRY(attni_check_float_option(name, tensor, problem->dtype));
    ATTNI_TRY(attni_check_rank(name, tensor, 1, 1));
    ATTNI_TRY(
        attni_broadcast_strides(name, tensor, &axis, 1, &operand->strides[problem->batch_rank]));
    attni_place_operand(tensor, operand);
    return ATTN_OK;
}

/* Whether rows of all sequences stand one behind the other. */
static bool is_ragged(const attni_sdpa_problem *problem) {
    return problem->query_starts.is_present;
}

attn_status attni_check_rows(const char *name, const attn_tensor *tensor, attni_data_rule data_rule,
                             const attni_sdpa_problem *problem, attni_row_axes which,
                             attni_operand *operand) {
    attni_axis axes[ATTN_MAX_RANK];
    int32_t canonical[ATTN_MAX_RANK];
    int32_t count = 0;
    for (int32_t axis = 0; axis < problem->batch_rank && !is_ragged(problem); ++axis) {
        canonical[count] = axis;
        axes[count++] = (attni_axis){NULL, problem->batch_shape[axis]};
    }
    if (which.heads && problem->has_heads) {
        canonical[count] = problem->batch_rank;
        axes[count++] = (attni_axis){"Hq", problem->num_heads};
    }
    canonical[count] = problem->batch_rank + 1;
    axes[count++] = (attni_axis){"L", problem->tgt_len};
    if (which.cols >= 0) {
        canonical[count] = problem->batch_rank + 2;
        axes[count++] = (attni_axis){problem->extra_cols > 0 ? "T" : "S", which.cols};
    }
    ATTNI_TRY(attni_check_tensor(name, tensor, data_rule));
    ATTNI_TRY(attni_check_result(name, tensor, which.dtype));
    ATTNI_TRY(attni_check_shape(name, tensor, axes, count));
    for (int32_t i = 0; i < count; ++i) {
        operand->strides[canonical[i]] = attni_stride(tensor, i);
    }
    attni_place_operand(tensor, operand);
    return ATTN_OK;
}

attni_row_axes attni_weights_axes(const attni_sdpa_problem *problem, const attn_tensor *weights) {
    const int32_t batch_axes = is_ragged(problem) ? 0 : problem->batch_rank;
    return (attni_row_axes){
        .heads = !(problem->has_heads && weights->rank == batch_axes + 2),
        .cols = problem->src_len + problem->extra_cols,
        .dtype = problem->dtype,
    };
}

static attn_status check_output_option(const attni_sdpa_request *request, const char *option,
                                       const attn_tensor *tensor, const attni_sdpa_problem *problem,
                                       attni_row_axes which, attni_operand *operand) {
    if (tensor == NULL) {
        return ATTN_OK;
    }
    char text[NAME_BYTES];
    const char *name = option_name(request, option, text);
    ATTNI_TRY(attni_check_rows(name, tensor, request->option_data, problem, which, operand));
    return request->reads_results ? ATTN_OK : attni_check_writable(name, tensor);
}

/* A table over (Hq, distances), which have a middle. */
static attn_status check_position_bias(const attni_sdpa_request *request,
                                       attni_sdpa_problem *problem) {
    static const char option[] = "position_bias";
    const attn_tensor *tensor = request->params->position_bias;
    attni_mask *mask = &problem->masks[ATTNI_POSITION_BIAS];
    if (tensor == NULL) {
        return ATTN_OK;
    }
    char text[NAME_BYTES];
    const char *name = option_name(request, option, text);
    ATTNI_TRY(attni_check_tensor(name, tensor, request->option_data));
    ATTNI_TRY(attni_check_float_option(name, tensor, problem->dtype));
    ATTNI_TRY(attni_check_rank(name, tensor, 2, 2));
    const int64_t columns = tensor->shape[1];
    const attni_axis axes[] = {{"Hq", problem->num_heads}, {"2 R + 1", columns}};
    ATTNI_TRY(attni_broadcast_strides(name, tensor, axes, 2, &mask->strides[problem->batch_rank]));
    if (columns % 2 == 0) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "%s: expected shape (Hq, 2 R + 1), an odd number of columns, got %lld",
                          name, (long long)columns);
    }
    /* Which has no row axis. */
    mask->strides[problem->batch_rank + 2] = mask->strides[problem->batch_rank + 1];
    mask->strides[problem->batch_rank + 1] = 0;
    mask->data = tensor->data;
    mask->kind = ATTN_MASK_ADDITIVE;
    mask->dtype = tensor->dtype;
    mask->columns = ATTNI_COLUMNS_ARE_DISTANCES;
    mask->num_columns = columns;
    return ATTN_OK;
}

/* A dense mask over (batch axes, Hq, L, S), or, where it is placed, with as many columns as it
 * has. */
static attn_status check_dense(const attni_sdpa_request *request, const char *option,
                               const attn_tensor *tensor, int32_t kind, bool is_placed,
                               const attni_sdpa_problem *problem, attni_mask *mask) {
    char name[NAME_BYTES];
    attni_axis axes[ATTN_MAX_RANK];
    int32_t count = 0;
    for (; count < problem->batch_rank; ++count) {
        axes[count] = (attni_axis){NULL, problem->batch_shape[count]};
    }
    axes[count++] = (attni_axis){"Hq", problem->num_heads};
    axes[count++] = (attni_axis){"L", problem->tgt_len};
    axes[count] = (attni_axis){"S", problem->src_len};
    if (is_placed) {
        ATTNI_TRY(
            attni_check_tensor(option_name(request, option, name), tensor, request->option_data));
        const int32_t rank = tensor->rank;
        axes[count] = (attni_axis){"M", rank > 0 ? tensor->shape[rank - 1] : 0};
    }
    ++count;
    /* Without a head axis in the call a mask has none to broadcast along; nor a batch axis where
     * rows of all sequences stand one behind the other. */
    const int32_t hidden = problem->has_heads && !is_ragged(problem) ? 0 : 1;
    ATTNI_TRY(attni_mask_check(option_name(request, option, name), tensor, kind, problem->dtype,
                               axes + hidden, count - hidden, request->option_data, mask));
    for (int32_t axis = count - 1; hidden != 0 && axis >= 0; --axis) {
        mask->strides[axis] = axis >= hidden ? mask->strides[axis - hidden] : 0;
    }
    if (is_placed) {
        mask->columns = ATTNI_COLUMNS_ARE_PLACED;
        mask->num_columns = axes[count - 1].length;
    }
    return ATTN_OK;
}

static attn_status check_masks(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    const attn_sdpa_params *params = request->params;
    const int32_t bias_kind = params->bias != NULL ? ATTN_MASK_ADDITIVE : ATTN_MASK_NONE;
    const bool is_placed = params->mask_start != NULL && params->mask != NULL;
    ATTNI_TRY(check_position_bias(request, problem));
    ATTNI_TRY(check_dense(request, "bias", params->bias, bias_kind, false, problem,
                          &problem->masks[ATTNI_BIAS]));
    ATTNI_TRY(check_dense(request, "mask", params->mask, params->mask_kind, is_placed, problem,
                          &problem->masks[ATTNI_MASK]));
    ATTNI_TRY(check_batch_option(request, "mask_start", params->mask_start, problem,
                                 &problem->mask_start));
    return params->mask_start == NULL || params->mask != NULL
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_VALUE, "%smask_start: expected NULL without a mask",
                            request->option_prefix);
}

/* Weights without the head axis that output has are averaged over it. */
static attn_status check_outputs(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    const attn_tensor *weights = request->params->weights;
    const attni_row_axes lse_axes = {.heads = true, .cols = -1, .dtype = problem->score_dtype};
    const attni_row_axes score_axes = {.heads = true,
                                       .cols = problem->src_len + problem->extra_cols,
                                       .dtype = problem->score_dtype};
    ATTNI_TRY(check_output_option(request, "lse", request->params->lse, problem, lse_axes,
                                  &problem->lse));
    if (weights != NULL) {
        const attni_row_axes axes = attni_weights_axes(problem, weights);
        problem->average_weights = !axes.heads;
        ATTNI_TRY(
            check_output_option(request, "weights", weights, problem, axes, &problem->weights));
    }
    problem->score_stage = request->params->scores_stage;
    return check_output_option(request, "scores", request->params->scores, problem, score_axes,
                               &problem->scores);
}

/* Those of sequences with room for S keys each; of others, see sequence_check.c. */
static attn_status check_key_lengths(const attni_sdpa_request *request,
                                     const attni_input_views *inputs,
                                     const attni_sdpa_problem *problem) {
    const bool has_own = problem->key_starts.is_present || problem->pages.starts.is_present;
    if (inputs->key_lengths == NULL || has_own || request->option_data == ATTNI_DATA_IGNORED) {
        return ATTN_OK;
    }
    char name[NAME_BYTES];
    return attni_check_lengths(lengths_name(request, inputs, name), inputs->key_lengths,
                               problem->src_len);
}

static uint64_t mix64(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* Numbers from `first` on, `count` of them, are below 2^bits. */
static attn_status check_places(const char *prefix, const char *name, int64_t first, int64_t count,
                                int32_t bits) {
    int64_t end;
    if (first < 0) {
        return attni_fail(ATTN_ERROR_VALUE, "%sdropout.%s: expected 0 and up, got %lld", prefix,
                          name, (long long)first);
    }
    return attni_add(first, count, &end) && end <= (int64_t)1 << bits
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_UNSUPPORTED,
                            "%sdropout.%s: expected places below 2^%d, got %lld and %lld from "
                            "there on",
                            prefix, name, (int)bits, (long long)first, (long long)count);
}

static attn_status check_dropout(const attni_sdpa_request *request, attni_sdpa_problem *problem) {
    const char *prefix = request->option_prefix;
    char name[NAME_BYTES];
    attn_dropout given;
    if (request->params->dropout == NULL) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_struct_read(option_name(request, "dropout", name), request->params->dropout,
                                ATTNI_BYTES_THROUGH(attn_dropout, column), sizeof given, &given));
    if (!(given.probability >= 0 && given.probability < 1)) {
        return attni_fail(ATTN_ERROR_VALUE, "%sdropout.probability: expected 0 to below 1, got %g",
                          prefix, given.probability);
    }
    ATTNI_TRY(check_places(prefix, "batch", given.batch, problem->num_batches, 48));
    ATTNI_TRY(check_places(prefix, "head", given.head, problem->num_heads, 16));
    ATTNI_TRY(check_places(prefix, "row", given.row, problem->tgt_len, 32));
    ATTNI_TRY(check_places(prefix, "column", given.column,
                           attni_saturating_add(problem->src_len, problem->extra_cols), 34));
    const uint64_t key = given.seed ^ mix64(given.offset);
    const double threshold = fmin(floor(given.probability * 0x1p32 + 0.5), 0x1p32 - 1);
    problem->dropout = (attni_dropout){
        .is_present = given.probability > 0,
        .stream = {.key = {(uint32_t)key, (uint32_t)(key >> 32)},
                   .threshold = (uint32_t)threshold,
                   .scale = 1 / (1 - given.probability)},
        .batch = given.batch,
        .head = given.head,
        .row = given.row,
        .column = given.column,
    };
    return ATTN_OK;
}

attn_status attni_sdpa_check_options(const attni_sdpa_request *request,
                                     const attni_input_views *inputs, attni_sdpa_problem *problem) {
    const attn_sdpa_params *params = request->params;
    ATTNI_TRY(check_numbers(params, request->option_prefix));
    const bool has_scale = (params->set & ATTN_SDPA_SET_SCALE) != 0;
    const bool has_window = (params->set & ATTN_SDPA_SET_WINDOW) != 0;
    /* An empty product is 0 whatever it is multiplied by. */
    problem->scale = problem->head_dim == 0 ? 1
                     : has_scale            ? params->scale
                                            : 1 / sqrt((double)problem->head_dim);
    /* A cap beyond every float32 caps none of them. */
    const bool is_beyond = problem->score_dtype == ATTN_DTYPE_FLOAT32 && params->softcap > FLT_MAX;
    problem->softcap = is_beyond ? 0 : params->softcap;
    problem->is_causal = params->is_causal != 0;
    problem->window_left = has_window ? params->window_left : -1;
    problem->window_right = has_window ? params->window_right : -1;
    problem->normalizer = params->normalizer;
    problem->aligns_end = params->align_end != 0;
    ATTNI_TRY(check_masks(request, problem));
    char block_mask[NAME_BYTES];
    ATTNI_TRY(
        attni_check_block_mask(request, option_name(request, "block_mask", block_mask), problem));
    ATTNI_TRY(check_batch_option(request, "query_offset", params->query_offset, problem,
                                 &problem->query_offset));
    ATTNI_TRY(place_key_lengths(request, inputs, problem));
    ATTNI_TRY(check_head_option(request, "alibi_slopes", params->alibi_slopes, problem,
                                &problem->alibi_slopes));
    ATTNI_TRY(check_head_option(request, "sinks", params->sinks, problem, &problem->sinks));
    ATTNI_TRY(check_dropout(request, problem));
    ATTNI_TRY(check_outputs(request, problem));
    if (params->report != NULL) {
        char name[NAME_BYTES];
        ATTNI_TRY(attni_struct_check_output(option_name(request, "report", name), params->report,
                                            ATTNI_BYTES_THROUGH(attn_sdpa_report, reason)));
    }
    if (params->block_mask != NULL && request->option_data == ATTNI_DATA_REQUIRED) {
        ATTNI_TRY(
            attni_check_blocks(option_name(request, "block_mask", block_mask), params->block_mask));
    }
    return check_key_lengths(request, inputs, problem);
}
