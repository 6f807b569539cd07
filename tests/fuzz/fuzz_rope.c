/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_rope.c: attn_rope and attn_rms_norm. Half of the executions compute, every option drawn from
 * the input, and are compared with the oracle; the options may be a later release's. In the others
 * one to three things about the call are spoiled, and a spoiled tensor has no data: that must end
 * in a status and a line with everything left as it is, or in a call that needs no such data. So
 * must calls whose output touches another tensor, and structs with what is not known.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "rms_norm_case.h"
#include "rope_case.h"

enum { COMPUTES = 128, MOST_SPOILED = 3, MOST_TENSORS = 8, NUM_OUTPUTS = 1 };

/* What either function is called with, and copies of its tensors, output first. */
typedef struct feature_call {
    int is_rope;
    tensor_pool *pool;
    attn_rope_params rope;
    attn_rms_norm_params norm;
    const void *params; /* of the two the call's, or a longer one */
    attn_tensor tensors[MOST_TENSORS];
    int num_tensors;
} feature_call;

/* A call as it is built. */
typedef struct built_call {
    int is_rope;
    rope_call rope;
    rms_norm_call norm;
} built_call;

static void build(const fuzz_input *input, int is_rope, built_call *built) {
    built->is_rope = is_rope;
    if (is_rope) {
        rope_case_build(&input->chosen, input->seed, FREE_TINY, &built->rope);
    } else {
        rms_norm_case_build(&input->chosen, input->seed, FREE_TINY, &built->norm);
    }
}

static void destroy(built_call *built) {
    if (built->is_rope) {
        rope_call_destroy(&built->rope);
    } else {
        rms_norm_call_destroy(&built->norm);
    }
}

static void own(feature_call *call, const attn_tensor **tensor) {
    if (*tensor != NULL) {
        call->tensors[call->num_tensors] = **tensor;
        *tensor = &call->tensors[call->num_tensors++];
    }
}

/* `call` must stay where it is. */
static void copy_call(built_call *built, feature_call *call) {
    *call = (feature_call){.is_rope = built->is_rope};
    if (built->is_rope) {
        call->pool = &built->rope.pool;
        call->tensors[0] = *built->rope.output;
        call->tensors[1] = *built->rope.input;
        call->rope = built->rope.params;
        call->params = &call->rope;
    } else {
        call->pool = &built->norm.pool;
        call->tensors[0] = *built->norm.output;
        call->tensors[1] = *built->norm.input;
        call->norm = built->norm.params;
        call->params = &call->norm;
    }
    call->num_tensors = 2;
    own(call, &call->rope.frequencies);
    own(call, &call->rope.cos);
    own(call, &call->rope.sin);
    own(call, &call->rope.positions);
    own(call, &call->rope.lengths);
    own(call, &call->norm.weight);
}

static attn_status run(const fuzz_input *input, const feature_call *call) {
    attn_context *context = case_context(input->set, &input->chosen);
    pool_begin(call->pool);
    const attn_tensor *from = &call->tensors[1], *to = &call->tensors[0];
    return call->is_rope ? attn_rope(context, from, call->params, to)
                         : attn_rms_norm(context, from, call->params, to);
}

/* A refused call has a line and wrote nothing; any other wrote nothing but its output. */
static void run_and_check(const fuzz_input *input, const feature_call *call) {
    char message[600];
    const attn_status status = run(input, call);
    if (status != ATTN_OK) {
        fuzz_check_refused(input, call->pool, status, status);
    } else if (pool_check(call->pool, message, sizeof message)) {
        fuzz_fail(input->set, &input->chosen, input->seed, message);
    }
}

static double odd_real(fuzz_bytes *bytes) {
    const double reals[] = {0, -1, NAN, INFINITY, -INFINITY, 1e300, -1e-300, 3};
    return reals[fuzz_byte(bytes) % 8];
}

static void spoil_numbers(fuzz_bytes *bytes, feature_call *call) {
    switch (fuzz_byte(bytes) % 8) {
    case 0:
        call->rope.rotary_dim = fuzz_odd_number(bytes);
        break;
    case 1:
        call->rope.interleaved = (int32_t)fuzz_odd_number(bytes);
        break;
    case 2:
        call->rope.inverse = (int32_t)fuzz_odd_number(bytes);
        break;
    case 3:
        call->rope.base = odd_real(bytes);
        call->norm.epsilon = odd_real(bytes);
        break;
    case 4:
        call->rope.magnitude = odd_real(bytes);
        call->norm.weight_offset = odd_real(bytes);
        break;
    case 5:
        call->rope.struct_size = fuzz_word(bytes) % (2 * sizeof call->rope);
        call->norm.struct_size = fuzz_word(bytes) % (2 * sizeof call->norm);
        break;
    case 6:
        call->rope.cos = NULL;
        call->norm.weight = NULL;
        break;
    default:
        call->rope.positions = NULL;
        break;
    }
}

/* A struct that claims to be longer than it is must not be read there. */
static int is_longer(const feature_call *call) {
    return call->rope.struct_size > sizeof call->rope || call->norm.struct_size > sizeof call->norm;
}

static void spoil_and_call(fuzz_input *input, int is_rope) {
    built_call built;
    feature_call call;
    build(input, is_rope, &built);
    copy_call(&built, &call);
    const int times = 1 + fuzz_byte(&input->bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(&input->bytes) % (call.num_tensors + 3);
        if (what < call.num_tensors) {
            fuzz_spoil_view(&input->bytes, &call.tensors[what]);
            call.tensors[what].data = NULL;
        } else {
            spoil_numbers(&input->bytes, &call);
        }
    }
    if (!is_longer(&call)) {
        run_and_check(input, &call);
    }
    destroy(&built);
}

/* Nothing is wrong with the call but that its output touches another tensor, or that its struct
 * says what is not known. */
static void refuse(fuzz_input *input, int is_rope) {
    built_call built;
    feature_call call;
    attn_tensor *tensors[MOST_TENSORS];
    int used;
    build(input, is_rope, &built);
    copy_call(&built, &call);
    for (int i = 0; i < call.num_tensors; ++i) {
        tensors[i] = &call.tensors[i];
    }
    const void *known = call.is_rope ? (const void *)&call.rope : (const void *)&call.norm;
    const size_t size = call.is_rope ? sizeof call.rope : sizeof call.norm;
    const size_t more = fuzz_tail(&input->bytes, &used);
    if (used >= 0) {
        call.params = fuzz_lengthen(PLACE_PARAMS, known, size, more, used);
        fuzz_check_refused(input, call.pool, ATTN_ERROR_UNSUPPORTED, run(input, &call));
    } else if (fuzz_overlap(&input->bytes, tensors, NUM_OUTPUTS, call.num_tensors) &&
               call.tensors[0].data != call.tensors[1].data) {
        fuzz_check_refused(input, call.pool, ATTN_ERROR_OVERLAP, run(input, &call));
    }
    destroy(&built);
}

static void compute(fuzz_input *input, int is_rope) {
    built_call built;
    call_outcome outcome = {0};
    build(input, is_rope, &built);
    const int lengthens = fuzz_byte(&input->bytes) % 2 != 0;
    const size_t more = 1 + fuzz_byte(&input->bytes) % LONGEST_TAIL;
    if (lengthens && is_rope && built.rope.given_params != NULL) {
        built.rope.given_params =
            fuzz_lengthen(PLACE_PARAMS, &built.rope.params, sizeof built.rope.params, more, -1);
    }
    if (lengthens && !is_rope && built.norm.given_params != NULL) {
        built.norm.given_params =
            fuzz_lengthen(PLACE_PARAMS, &built.norm.params, sizeof built.norm.params, more, -1);
    }
    const int failed = is_rope
                           ? rope_call_run(input->set, &input->chosen, &built.rope, &outcome)
                           : rms_norm_call_run(input->set, &input->chosen, &built.norm, &outcome);
    if (failed) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
    destroy(&built);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set sets[2];
    fuzz_input input = {.bytes = {data, size}};
    if (sets[0].count == 0) {
        sets[0] = rms_norm_factor_set();
        sets[1] = rope_factor_set();
    }
    const int is_rope = fuzz_byte(&input.bytes) % 2 != 0;
    const int computes = fuzz_byte(&input.bytes) < COMPUTES;
    input.set = &sets[is_rope];
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, input.set, &input.chosen)) {
        return -1;
    }
    if (computes) {
        compute(&input, is_rope);
    } else if (fuzz_byte(&input.bytes) % 2 != 0) {
        spoil_and_call(&input, is_rope);
    } else {
        refuse(&input, is_rope);
    }
    fuzz_count("rope", computes);
    return 0;
}
