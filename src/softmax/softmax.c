/* SPDX-License-Identifier: BSD-3-Clause
 *
 * softmax.c: the public softmax over the last axis of a view: check, plan, run.
 */
#include <attention/softmax.h>

#include <attention/sdpa.h>

#include "base/checked_size.h"
#include "base/float_traps.h"
#include "base/option_check.h"
#include "base/versioned_struct.h"
#include "base/workspace.h"
#include "context/context.h"
#include "softmax/row_weights.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"
#include "tensor/tensor_check.h"

enum {
    MOST_ITEMS = 64, /* work items at most: each has a scratch row, so this bounds the workspace */
    ITEM_ELEMENTS = 16384 /* elements of an item at least: less is not worth waking a thread for */
};

/* The tensors of a call: the outputs, then the inputs. */
enum { NUM_OUTPUTS = 2, NUM_TENSORS = 5 };

/* A checked call. The row axes are input's without its last. */
typedef struct softmax_problem {
    attn_tensor input;
    attn_tensor output;
    attn_tensor lse;
    bool has_lse;
    const attn_tensor *lengths; /* or NULL */
    int64_t length_strides[ATTN_MAX_RANK];
    attni_mask mask;
    int32_t score_dtype;
    int32_t row_rank;
    int64_t num_rows;
    int64_t num_cols;
    attni_argument tensors[NUM_TENSORS]; /* as the caller gave them, if there is data */
} softmax_problem;

typedef struct softmax_plan {
    int64_t rows_per_item;
    int64_t num_items;
    bool is_staged; /* output's last axis is strided, or not of the score type, so that a row is
                       computed in scratch memory first */
    attni_layout layout;
} softmax_plan;

static attn_status check_options(const attn_softmax_params *params, const attni_axis *axes,
                                 attni_data_rule data_rule, softmax_problem *problem) {
    const attn_tensor *input = &problem->input;
    ATTNI_TRY(attni_check_reserved("", params->reserved));
    ATTNI_TRY(attni_mask_check("mask", params->mask, params->mask_kind, input->dtype, axes,
                               input->rank, data_rule, &problem->mask));
    if (params->lengths != NULL) {
        ATTNI_TRY(attni_check_tensor("lengths", params->lengths, data_rule));
        ATTNI_TRY(attni_check_index("lengths", params->lengths));
        ATTNI_TRY(attni_broadcast_strides("lengths", params->lengths, axes, problem->row_rank,
                                          problem->length_strides));
    }
    if (params->lse != NULL) {
        ATTNI_TRY(attni_check_tensor("lse", params->lse, data_rule));
        ATTNI_TRY(attni_check_dtype("lse", params->lse, problem->score_dtype));
        ATTNI_TRY(attni_check_shape("lse", params->lse, axes, problem->row_rank));
        ATTNI_TRY(attni_check_writable("lse", params->lse));
    }
    problem->lengths = params->lengths;
    if (params->lse != NULL) {
        problem->lse = attni_canonical(params->lse);
        problem->has_lse = true;
    }
    return ATTN_OK;
}

static void list_tensors(const attn_softmax_params *params, const attn_tensor *input,
                         const attn_tensor *output, attni_argument tensors[NUM_TENSORS]) {
    const attni_argument all[NUM_TENSORS] = {{"output", output},
                                             {"lse", params->lse},
                                             {"input", input},
                                             {"mask", params->mask},
                                             {"lengths", params->lengths}};
    memcpy(tensors, all, sizeof all);
}

static attn_status check_overlap(const attni_argument tensors[NUM_TENSORS]) {
    const attn_tensor *output = tensors[0].tensor;
    const attn_tensor *input = tensors[NUM_OUTPUTS].tensor;
    attni_argument inputs[NUM_TENSORS - NUM_OUTPUTS];
    memcpy(inputs, tensors + NUM_OUTPUTS, sizeof inputs);
    inputs[0].tensor = attni_is_same_view(input, output) ? NULL : input;
    ATTNI_TRY(attni_check_outputs(tensors, NUM_OUTPUTS, inputs, NUM_TENSORS - NUM_OUTPUTS));
    return attni_check_disjoint(tensors[1].name, tensors[1].tensor, "input", input);
}

/* 0 to S, though another thread may have written the lengths since they were checked. */
static int64_t row_length(const softmax_problem *problem, int64_t row) {
    if (problem->lengths == NULL) {
        return problem->num_cols;
    }
    const int64_t offset =
        attni_offset_of(row, problem->row_rank, problem->input.shape, problem->length_strides);
    return attni_clamp(attni_read_index(problem->lengths->data, offset, problem->lengths->dtype), 0,
                       problem->num_cols);
}

static attn_status check(const attn_tensor *input, const attn_softmax_params *given,
                         const attn_tensor *output, attni_data_rule data_rule,
                         softmax_problem *problem) {
    attn_softmax_params params;
    ATTNI_TRY(attni_struct_read("params", given, ATTNI_BYTES_THROUGH(attn_softmax_params, lse),
                                sizeof params, &params));
    ATTNI_TRY(attni_check_tensor("input", input, data_rule));
    ATTNI_TRY(attni_check_rank("input", input, 1, ATTN_MAX_RANK));
    ATTNI_TRY(attni_check_float("input", input));
    attni_axis axes[ATTN_MAX_RANK];
    *problem = (softmax_problem){
        .input = attni_canonical(input),
        .score_dtype = attni_score_dtype(input->dtype),
        .row_rank = input->rank - 1,
        .num_rows = 1,
    };
    for (int32_t axis = 0; axis < input->rank; ++axis) {
        axes[axis] = (attni_axis){axis == input->rank - 1 ? "S" : NULL, input->shape[axis]};
        problem->num_rows *= axis < problem->row_rank ? input->shape[axis] : 1;
    }
    problem->num_cols = input->shape[problem->row_rank];
    ATTNI_TRY(attni_check_tensor("output", output, data_rule));
    ATTNI_TRY(attni_check_result("output", output, input->dtype));
    ATTNI_TRY(attni_check_shape("output", output, axes, input->rank));
    ATTNI_TRY(attni_check_writable("output", output));
    problem->output = attni_canonical(output);
    ATTNI_TRY(check_options(&params, axes, data_rule, problem));
    if (data_rule == ATTNI_DATA_REQUIRED) {
        list_tensors(&params, input, output, problem->tensors);
        ATTNI_TRY(check_overlap(problem->tensors));
        if (params.lengths != NULL) {
            ATTNI_TRY(attni_check_lengths("lengths", params.lengths, problem->num_cols));
        }
    }
    return ATTN_OK;
}

/* Rows that have something to write. */
static int64_t rows_to_compute(const softmax_problem *problem) {
    return problem->num_cols > 0 || problem->has_lse ? problem->num_rows : 0;
}

/* Items depend on the shape alone, so that results cannot depend on the number of threads. */
static softmax_plan make_plan(const softmax_problem *problem) {
    const bool is_apart = problem->output.strides[problem->row_rank] != 1 && problem->num_cols > 1;
    softmax_plan plan = {.is_staged = is_apart || problem->output.dtype != problem->score_dtype};
    const int64_t worthwhile = attni_divide_up(ITEM_ELEMENTS, attni_max(1, problem->num_cols));
    plan.rows_per_item = attni_max(worthwhile, attni_divide_up(problem->num_rows, MOST_ITEMS));
    plan.num_items = attni_divide_up(rows_to_compute(problem), plan.rows_per_item);
    if (plan.is_staged) {
        for (int64_t item = 0; item < plan.num_items; ++item) {
            attni_layout_add(&plan.layout, problem->num_cols,
                             attn_dtype_size_bytes(problem->score_dtype));
        }
    }
    return plan;
}

typedef struct softmax_run {
    const softmax_problem *problem;
    const softmax_plan *plan;
    const attni_kernel_set *set;
    const attni_row_kernels *kernels; /* of the set, for the score type */
    char *scratch;
} softmax_run;

/* Row `row` of input or output, and its columns' stride. */
static char *row_of(const softmax_problem *problem, const attn_tensor *tensor, int64_t row) {
    const int64_t offset =
        attni_offset_of(row, problem->row_rank, problem->input.shape, tensor->strides);
    return attni_advance(tensor->data, offset * (int64_t)attn_dtype_size_bytes(tensor->dtype));
}

/* The first `length` scores of a row of input, to where they are computed with. */
static void take_scores(const softmax_run *run, int64_t row, int64_t length, char *work) {
    const attn_tensor *input = &run->problem->input;
    char *source = row_of(run->problem, input, row);
    const int64_t stride = input->strides[run->problem->row_rank];
    if (input->dtype != run->problem->score_dtype) {
        attni_storage_kernels_of(run->set, input->dtype)
            ->widen((float *)(void *)work, source, stride, length);
    } else if (work != source) {
        const attni_strided_matrix from = {source, 0, stride};
        attni_copy_matrix((attni_strided_matrix){work, 0, 1}, from, 1, length,
                          attn_dtype_size_bytes(input->dtype));
    }
}

/* A row of weights to output. */
static void put_weights(const softmax_run *run, int64_t row, char *work) {
    const attn_tensor *output = &run->problem->output;
    char *target = row_of(run->problem, output, row);
    const int64_t stride = output->strides[run->problem->row_rank];
    if (output->dtype != run->problem->score_dtype) {
        attni_storage_kernels_of(run->set, output->dtype)
            ->narrow(target, stride, (const float *)(const void *)work, run->problem->num_cols);
    } else if (work != target) {
        const attni_strided_matrix to = {target, 0, stride};
        attni_copy_matrix(to, (attni_strided_matrix){work, 0, 1}, 1, run->problem->num_cols,
                          attn_dtype_size_bytes(output->dtype));
    }
}

static void run_row(const softmax_run *run, int64_t row, char *staging) {
    const softmax_problem *problem = run->problem;
    const int64_t *shape = problem->input.shape;
    const int64_t element = (int64_t)attn_dtype_size_bytes(problem->score_dtype);
    const int64_t length = row_length(problem, row);
    char *work = staging != NULL ? staging : row_of(problem, &problem->output, row);
    take_scores(run, row, length, work);
    if (problem->mask.kind != ATTN_MASK_NONE && length > 0) {
        const int64_t offset =
            attni_offset_of(row, problem->row_rank, shape, problem->mask.strides);
        attni_mask_apply(&problem->mask, offset, problem->mask.strides[problem->row_rank],
                         run->kernels, work, length, attni_excluded_score(ATTN_NORMALIZER_SOFTMAX));
    }
    const attni_row scores = {.keys = {work, length}};
    const attni_row_result result =
        attni_normalize_row(run->kernels, ATTN_NORMALIZER_SOFTMAX, &scores, NULL);
    if (length < problem->num_cols) {
        memset(work + length * element, 0, (size_t)((problem->num_cols - length) * element));
    }
    put_weights(run, row, work);
    if (problem->has_lse) {
        const int64_t offset = attni_offset_of(row, problem->row_rank, shape, problem->lse.strides);
        attni_write_real(problem->lse.data, offset, problem->score_dtype, result.lse);
    }
}

static void run_item(void *data, int64_t item) {
    const softmax_run *run = data;
    const softmax_plan *plan = run->plan;
    char *staging = NULL;
    if (plan->is_staged) {
        staging = run->scratch + (size_t)item * (plan->layout.bytes / (size_t)plan->num_items);
    }
    const int64_t first = item * plan->rows_per_item;
    const int64_t end = attni_min(run->problem->num_rows, first + plan->rows_per_item);
    for (int64_t row = first; row < end; ++row) {
        run_row(run, row, staging);
    }
}

attn_status attn_softmax(attn_context *context, const attn_tensor *input,
                         const attn_softmax_params *params, const attn_tensor *output,
                         void *workspace, size_t workspace_bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    softmax_problem problem;
    ATTNI_TRY(check(input, params, output, ATTNI_DATA_REQUIRED, &problem));
    const softmax_plan plan = make_plan(&problem);
    ATTNI_TRY(attni_workspace_check(&plan.layout, workspace, workspace_bytes));
    ATTNI_TRY(attni_check_workspace_apart(workspace, attni_workspace_reach(&plan.layout),
                                          problem.tensors, NUM_TENSORS));
    attni_workspace scratch;
    ATTNI_TRY(attni_workspace_acquire(&plan.layout, attni_context_allocator(context), workspace,
                                      &scratch));
    const attni_kernel_set *set = attni_context_kernels(context);
    softmax_run run = {&problem, &plan, set, attni_kernels_of(set, problem.score_dtype),
                       scratch.base};
    const attn_status status = attni_parallel_for(context, plan.num_items, run_item, &run);
    attni_workspace_release(&scratch, attni_context_allocator(context));
    return status;
}

attn_status attn_softmax_workspace_bytes(attn_context *context, const attn_tensor *input,
                                         const attn_softmax_params *params,
                                         const attn_tensor *output, size_t *bytes) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    if (bytes == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "bytes: expected a place for the result, got NULL");
    }
    ATTNI_TRY(attni_context_resolve(context, &context));
    softmax_problem problem;
    ATTNI_TRY(check(input, params, output, ATTNI_DATA_IGNORED, &problem));
    const softmax_plan plan = make_plan(&problem);
    return attni_layout_bytes(&plan.layout, bytes);
}
