/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_backward.c: attn_sdpa_backward. Half of the executions compute, every option of the forward
 * call drawn from the input, and are compared with the float64 oracle. In the others one to three
 * things about the call are spoiled: whatever is asked of the library then, without data, must end
 * in a status and a line. What is refused must be refused with data too, and all of it be left as
 * it is. So must calls in which what is wanted, or the workspace, touches another tensor.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <attention/backward.h>

#include "attention_options.h"
#include "backward_case.h"
#include "fuzz_memory.h"
#include "sdpa_case.h"

enum { COMPUTES = 128, MOST_SPOILED = 3, NUM_VIEWS = 4 };

/* The tensors of attn_sdpa_gradients: those that are wanted, then those that are given. */
enum gradient {
    OF_QUERY,
    OF_KEY,
    OF_VALUE,
    OF_MASK,
    OF_BIAS,
    OF_POSITION_BIAS,
    OF_SLOPES,
    OF_SINKS,
    NUM_WANTED,
    OF_OUTPUT = NUM_WANTED,
    OF_LSE,
    OF_WEIGHTS,
    NUM_GRADIENTS
};

/* The views of a call, as copies that may be spoiled; dtype 0: the call has none. */
typedef struct spoiled_call {
    attn_tensor views[NUM_VIEWS]; /* query, key, value, output */
    attn_tensor options[FUZZ_OPTIONS];
    attn_tensor gradients[NUM_GRADIENTS];
    attn_sdpa_params params;
    attn_sdpa_gradients places;
} spoiled_call;

/* The fields of places, in the order of enum gradient. */
static void list_places(attn_sdpa_gradients *places, const attn_tensor **fields[NUM_GRADIENTS]) {
    const attn_tensor **all[NUM_GRADIENTS] = {
        &places->query,  &places->key,           &places->value,        &places->mask,
        &places->bias,   &places->position_bias, &places->alibi_slopes, &places->sinks,
        &places->output, &places->lse,           &places->weights};
    memcpy(fields, all, sizeof all);
}

/* ---- calls ---- */

/* Room for a gradient of what the call has, or none. */
static void add_gradient(fuzz_bytes *bytes, sdpa_call *call, enum gradient which,
                         const attn_tensor *of, spoiled_call *made) {
    if (of == NULL || (which != OF_OUTPUT && fuzz_byte(bytes) % 4 == 0)) {
        return;
    }
    made->gradients[which] =
        *pool_output(&call->pool, of->dtype, of->rank, of->shape, LAYOUT_CONTIGUOUS);
    random_state random = random_seeded(which + 1);
    random_fill(&made->gradients[which], &random, -1, 1, 0);
}

/* The call, whose outputs hold whatever they hold, with its gradients. */
static void make_call(fuzz_input *input, sdpa_call *call, spoiled_call *made) {
    if (input->chosen.level[FACTOR_NORMALIZER] == ATTN_NORMALIZER_SOFTMAX) {
        input->chosen.level[FACTOR_LSE] = LSE_CONTIGUOUS;
    }
    sdpa_case_build(&input->chosen, input->seed, FREE_TINY, call);
    const attn_sdpa_params *params = &call->params;
    const attn_tensor *const of[NUM_GRADIENTS] = {
        call->query,          call->key,
        call->value,          params->mask_kind == ATTN_MASK_ADDITIVE ? params->mask : NULL,
        params->bias,         params->position_bias,
        params->alibi_slopes, params->sinks,
        call->output,         params->lse,
        params->weights,
    };
    *made = (spoiled_call){
        .views = {*call->query, *call->key, *call->value, *call->output},
        .params = *params,
        .places = {.struct_size = sizeof made->places},
    };
    made->params.report = NULL;
    for (int i = 0; i < NUM_GRADIENTS; ++i) {
        add_gradient(&input->bytes, call, (enum gradient)i, of[i], made);
    }
    made->places.accumulate = fuzz_byte(&input->bytes) % 2;
}

/* Points the structs at the copies. */
static void own_all(spoiled_call *call) {
    const attn_tensor **fields[NUM_GRADIENTS];
    fuzz_own_options(&call->params, call->options);
    list_places(&call->places, fields);
    for (int i = 0; i < NUM_GRADIENTS; ++i) {
        const bool has = *fields[i] != NULL || call->gradients[i].dtype != ATTN_DTYPE_INVALID;
        *fields[i] = has ? &call->gradients[i] : NULL;
    }
}

static void copy_without_data(const spoiled_call *call, spoiled_call *bare) {
    *bare = *call;
    own_all(bare);
    for (int i = 0; i < NUM_VIEWS; ++i) {
        bare->views[i].data = NULL;
    }
    for (int i = 0; i < FUZZ_OPTIONS; ++i) {
        bare->options[i].data = NULL;
    }
    for (int i = 0; i < NUM_GRADIENTS; ++i) {
        bare->gradients[i].data = NULL;
    }
}

static attn_status run(attn_context *context, const spoiled_call *call, void *workspace,
                       size_t workspace_bytes) {
    const attn_tensor *v = call->views;
    return attn_sdpa_backward(context, &v[0], &v[1], &v[2], &call->params, &v[3], &call->places,
                              workspace, workspace_bytes);
}

/* The status of the call without data. */
static attn_status ask_about(attn_context *context, const spoiled_call *bare, size_t *bytes) {
    attn_sdpa_backward_report report = {.struct_size = sizeof report};
    const attn_tensor *v = bare->views;
    const attn_status status = attn_sdpa_backward_workspace_bytes(
        context, &v[0], &v[1], &v[2], &bare->params, &v[3], &bare->places, bytes);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    const attn_status explained = attn_sdpa_backward_explain(
        context, &v[0], &v[1], &v[2], &bare->params, &v[3], &bare->places, &report);
    if (explained != status || (status == ATTN_OK && report.workspace_bytes != *bytes)) {
        abort();
    }
    return status;
}

/* ---- what is wrong with them ---- */

static void spoil_places(fuzz_bytes *bytes, attn_sdpa_gradients *places) {
    switch (fuzz_byte(bytes) % 3) {
    case 0:
        places->struct_size = fuzz_word(bytes) % sizeof *places;
        break;
    case 1:
        places->accumulate = (int32_t)fuzz_odd_number(bytes);
        break;
    default:
        places->reserved = (int32_t)fuzz_odd_number(bytes);
        break;
    }
}

static void spoil(fuzz_bytes *bytes, spoiled_call *call) {
    enum { GRADIENTS = NUM_VIEWS + FUZZ_OPTIONS, PARAMS = GRADIENTS + NUM_GRADIENTS, PLACES };
    const int times = 1 + fuzz_byte(bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(bytes) % (PLACES + 1);
        if (what < NUM_VIEWS) {
            fuzz_spoil_view(bytes, &call->views[what]);
        } else if (what < GRADIENTS) {
            fuzz_spoil_view(bytes, &call->options[what - NUM_VIEWS]);
        } else if (what < PARAMS) {
            /* One that is absent has no data, which only a call with data tells. */
            if (call->gradients[what - GRADIENTS].data != NULL) {
                fuzz_spoil_view(bytes, &call->gradients[what - GRADIENTS]);
            }
        } else if (what == PARAMS) {
            fuzz_spoil_options(bytes, &call->params);
        } else {
            spoil_places(bytes, &call->places);
        }
    }
    own_all(call);
}

static bool has_same_views(const spoiled_call *a, const spoiled_call *b) {
    return memcmp(a->views, b->views, sizeof a->views) == 0 &&
           memcmp(a->options, b->options, sizeof a->options) == 0 &&
           memcmp(a->gradients, b->gradients, sizeof a->gradients) == 0;
}

/* A plan is made once lengths were read: if that is refused, they must be where their view says. */
static bool may_have_data(const spoiled_call *own, const spoiled_call *spoiled, attn_status asked) {
    return asked != ATTN_ERROR_OVERFLOW ||
           memcmp(&own->options[OPTION_KEY_LENGTHS], &spoiled->options[OPTION_KEY_LENGTHS],
                  sizeof own->options[0]) == 0;
}

static void spoil_and_ask(const fuzz_input *input, fuzz_bytes *bytes, sdpa_call *call,
                          const spoiled_call *own) {
    spoiled_call spoiled = *own, bare;
    char message[600];
    size_t needed = 0;
    attn_context *context = case_context(input->set, &input->chosen);
    own_all(&spoiled);
    spoil(bytes, &spoiled);
    copy_without_data(&spoiled, &bare);
    const attn_status asked = ask_about(context, &bare, &needed);
    pool_begin(&call->pool);
    if (asked != ATTN_OK && may_have_data(own, &spoiled, asked)) {
        fuzz_check_refused(input, &call->pool, asked, run(context, &spoiled, NULL, 0));
    } else if (asked == ATTN_OK && has_same_views(own, &spoiled) &&
               (run(context, &spoiled, NULL, 0) != ATTN_OK ||
                pool_check(&call->pool, message, sizeof message))) {
        fuzz_fail(input->set, &input->chosen, input->seed,
                  "a valid call was refused, or wrote "
                  "elsewhere");
    }
}

/* ---- memory that is shared ---- */

enum { NUM_TENSORS = NUM_GRADIENTS + NUM_VIEWS + OPTION_WEIGHTS };

/* What is wanted, then what is read; weights and scores of the forward call are not. */
static void list_tensors(spoiled_call *call, attn_tensor *tensors[NUM_TENSORS]) {
    int count = 0;
    for (int i = 0; i < NUM_GRADIENTS; ++i) {
        tensors[count++] = &call->gradients[i];
    }
    for (int i = 0; i < NUM_VIEWS; ++i) {
        tensors[count++] = &call->views[i];
    }
    for (int i = 0; i < OPTION_WEIGHTS; ++i) {
        tensors[count++] = &call->options[i];
    }
}

/* Nothing is wrong with the call but that what is wanted, or its workspace, touches a tensor. */
static void overlap(const fuzz_input *input, fuzz_bytes *bytes, sdpa_call *call,
                    const spoiled_call *own) {
    spoiled_call moved = *own, bare;
    attn_tensor *tensors[NUM_TENSORS];
    size_t needed = 0;
    attn_context *context = case_context(input->set, &input->chosen);
    own_all(&moved);
    list_tensors(&moved, tensors);
    copy_without_data(&moved, &bare);
    if (ask_about(context, &bare, &needed) != ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, attn_last_error());
    }
    void *workspace = NULL;
    if (fuzz_byte(bytes) % 2 != 0) {
        if (!fuzz_overlap(bytes, tensors, NUM_WANTED, NUM_TENSORS)) {
            return;
        }
    } else {
        workspace = needed > 0 ? fuzz_workspace(bytes, tensors, NUM_TENSORS, needed) : NULL;
        if (workspace == NULL) {
            return;
        }
    }
    pool_begin(&call->pool);
    fuzz_check_refused(input, &call->pool, ATTN_ERROR_OVERLAP,
                       run(context, &moved, workspace, needed));
}

/* ---- inputs ---- */

static void refuse(fuzz_input *input) {
    sdpa_call call;
    spoiled_call own;
    make_call(input, &call, &own);
    own_all(&own);
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        overlap(input, &input->bytes, &call, &own);
    } else {
        spoil_and_ask(input, &input->bytes, &call, &own);
    }
    sdpa_call_destroy(&call);
}

static void compute(fuzz_input *input) {
    call_outcome outcome = {0};
    if (backward_case_run(input->set, &input->chosen, input->seed, FREE_TINY, &outcome) != 0) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = backward_factor_set();
    }
    const int computes = fuzz_byte(&input.bytes) < COMPUTES;
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, &set, &input.chosen)) {
        return -1;
    }
    if (computes) {
        compute(&input);
    } else {
        refuse(&input);
    }
    fuzz_count("backward", computes);
    return 0;
}
