/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_merge.c: attn_sdpa_merge. Half of the executions compute, every option drawn from the input,
 * and are compared with the float64 oracle; the options may be a later release's. In the others one
 * thing about the call is wrong (a view, a number, the memory of an output): it must be refused
 * with a line, and all be left as it is.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "merge_case.h"

enum { COMPUTES = 128, NUM_OUTPUTS = 2, NUM_TENSORS = 2 + 2 * MERGE_MOST_PARTS + 1 };

/* The views of a call, as copies that may be spoiled. */
typedef struct spoiled_call {
    int64_t count;
    attn_tensor output, lse, sinks; /* dtype 0: the call has none */
    attn_tensor outputs[MERGE_MOST_PARTS], lses[MERGE_MOST_PARTS];
    int has_lses;
    attn_merge_params params;
} spoiled_call;

static void copy_call(const merge_call *call, spoiled_call *spoiled) {
    *spoiled = (spoiled_call){
        .count = call->count,
        .output = *call->output,
        .has_lses = call->given_lses != NULL,
        .params = call->params,
    };
    memcpy(spoiled->outputs, call->outputs, sizeof spoiled->outputs);
    if (spoiled->has_lses) {
        memcpy(spoiled->lses, call->lses, sizeof spoiled->lses);
    }
    if (call->lse != NULL) {
        spoiled->lse = *call->lse;
    }
    if (call->params.sinks != NULL) {
        spoiled->sinks = *call->params.sinks;
        spoiled->params.sinks = &spoiled->sinks;
    }
}

/* Outputs first; those that the call does not have are zeroed. Their number. */
static int list_tensors(spoiled_call *call, attn_tensor *tensors[NUM_TENSORS]) {
    int count = 0;
    tensors[count++] = &call->output;
    tensors[count++] = &call->lse;
    tensors[count++] = &call->sinks;
    for (int64_t part = 0; part < call->count; ++part) {
        tensors[count++] = &call->outputs[part];
        tensors[count++] = &call->lses[part];
    }
    return count;
}

static attn_status run(const fuzz_input *input, const spoiled_call *call,
                       const attn_merge_params *params) {
    return attn_sdpa_merge(case_context(input->set, &input->chosen), call->count, call->outputs,
                           call->has_lses ? call->lses : NULL, params, &call->output,
                           call->lse.dtype != ATTN_DTYPE_INVALID ? &call->lse : NULL);
}

/* Makes a call that is to be refused, with the status `expected` or, if that is ATTN_OK, any. */
static void run_refused(const fuzz_input *input, merge_call *call, const spoiled_call *spoiled,
                        const attn_merge_params *params, attn_status expected) {
    pool_begin(&call->pool);
    const attn_status status = run(input, spoiled, params);
    if (status == ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, "a wrong call was accepted");
    }
    fuzz_check_refused(input, &call->pool, expected != ATTN_OK ? expected : status, status);
}

/* Whether a view cannot take the place of the one it was made of: another shape, or a type that no
 * tensor of the call has. What else is odd about it may be valid and lead anywhere. */
static int is_surely_wrong(const attn_tensor *spoiled, const attn_tensor *before) {
    const int is_float =
        spoiled->dtype == ATTN_DTYPE_FLOAT32 || spoiled->dtype == ATTN_DTYPE_FLOAT64 ||
        spoiled->dtype == ATTN_DTYPE_BFLOAT16 || spoiled->dtype == ATTN_DTYPE_FLOAT16;
    if (!is_float || spoiled->rank != before->rank) {
        return 1;
    }
    for (int32_t axis = 0; axis < before->rank; ++axis) {
        if (spoiled->shape[axis] != before->shape[axis]) {
            return 1;
        }
    }
    return 0;
}

/* Sinks of length 1 go with any number of heads. */
static int may_repeat(const spoiled_call *call, const attn_tensor *view) {
    return view == &call->sinks && view->rank == 1 && view->shape[0] == 1;
}

static void spoil_view(fuzz_input *input, merge_call *call) {
    spoiled_call spoiled;
    attn_tensor *tensors[NUM_TENSORS];
    copy_call(call, &spoiled);
    const int count = list_tensors(&spoiled, tensors);
    attn_tensor *view = tensors[fuzz_byte(&input->bytes) % count];
    const attn_tensor before = *view;
    if (before.dtype == ATTN_DTYPE_INVALID) {
        return;
    }
    fuzz_spoil_view(&input->bytes, view);
    if (view->dtype != ATTN_DTYPE_INVALID && is_surely_wrong(view, &before) &&
        !may_repeat(&spoiled, view)) {
        run_refused(input, call, &spoiled, &spoiled.params, ATTN_OK);
    }
}

static void spoil_count(fuzz_input *input, merge_call *call) {
    spoiled_call spoiled;
    copy_call(call, &spoiled);
    spoiled.count = fuzz_odd_number(&input->bytes);
    if (spoiled.count < 1) {
        run_refused(input, call, &spoiled, &spoiled.params, ATTN_ERROR_VALUE);
    }
}

/* The options of a later release, which are used. */
static void lengthen(fuzz_input *input, merge_call *call) {
    spoiled_call same;
    int used;
    copy_call(call, &same);
    const size_t more = fuzz_tail(&input->bytes, &used);
    if (used >= 0) {
        const attn_merge_params *given =
            fuzz_lengthen(PLACE_PARAMS, &same.params, sizeof same.params, more, used);
        run_refused(input, call, &same, given, ATTN_ERROR_UNSUPPORTED);
    }
}

static int is_same_place(const attn_tensor *a, const attn_tensor *b) {
    return a->data == b->data && a->dtype == b->dtype;
}

/* An output touches another tensor, but is not one of the parts. */
static void overlap(fuzz_input *input, merge_call *call) {
    spoiled_call moved;
    attn_tensor *tensors[NUM_TENSORS];
    copy_call(call, &moved);
    const int count = list_tensors(&moved, tensors);
    int is_part = !fuzz_overlap(&input->bytes, tensors, NUM_OUTPUTS, count);
    for (int64_t part = 0; part < moved.count; ++part) {
        is_part |= is_same_place(&moved.output, &moved.outputs[part]);
        is_part |=
            moved.lse.dtype != ATTN_DTYPE_INVALID && is_same_place(&moved.lse, &moved.lses[part]);
    }
    if (!is_part) {
        run_refused(input, call, &moved, &moved.params, ATTN_ERROR_OVERLAP);
    }
}

static void compute(fuzz_input *input) {
    merge_call call;
    call_outcome outcome = {0};
    merge_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    if (fuzz_byte(&input->bytes) % 2 != 0 && call.given_params != NULL) {
        const size_t more = 1 + fuzz_byte(&input->bytes) % LONGEST_TAIL;
        call.given_params = fuzz_lengthen(PLACE_PARAMS, &call.params, sizeof call.params, more, -1);
    }
    if (merge_call_run(input->set, &input->chosen, &call, &outcome) != 0) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
    merge_call_destroy(&call);
}

static void spoil(fuzz_input *input) {
    static void (*const ways[])(fuzz_input *, merge_call *) = {spoil_view, spoil_view, spoil_count,
                                                               lengthen, overlap};
    merge_call call;
    merge_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    ways[fuzz_byte(&input->bytes) % (sizeof ways / sizeof ways[0])](input, &call);
    merge_call_destroy(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = merge_factor_set();
    }
    const int computes = fuzz_byte(&input.bytes) < COMPUTES;
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, &set, &input.chosen)) {
        return -1;
    }
    if (computes) {
        compute(&input);
    } else {
        spoil(&input);
    }
    fuzz_count("merge", computes);
    return 0;
}
