/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_sdpa.c: attn_sdpa. Half of the executions compute, every option drawn from the input, and are
 * compared with the float64 oracle; tensors lie between watched margins. In the others one to three
 * things about the call are spoiled: whatever is asked of the library then, without data, must end
 * in a status and a line.
 */
#include <stdlib.h>

#include "fuzz_cases.h"
#include "sdpa_case.h"

enum { COMPUTES = 128, MOST_SPOILED = 3 };

/* The views of a call and its options, as copies that may be spoiled. */
typedef struct spoiled_call {
    attn_tensor views[4]; /* query, key, value, output */
    attn_tensor options[7];
    attn_sdpa_params params;
} spoiled_call;

static const attn_tensor *copy_option(const attn_tensor *option, attn_tensor *copy) {
    if (option == NULL) {
        return NULL;
    }
    *copy = *option;
    copy->data = NULL;
    return copy;
}

static void copy_call(const sdpa_call *call, spoiled_call *spoiled) {
    const attn_tensor *views[] = {call->query, call->key, call->value, call->output};
    for (int i = 0; i < 4; ++i) {
        spoiled->views[i] = *views[i];
        spoiled->views[i].data = NULL;
    }
    attn_sdpa_params *params = &spoiled->params;
    *params = call->params;
    params->report = NULL;
    params->mask = copy_option(params->mask, &spoiled->options[0]);
    params->query_offset = copy_option(params->query_offset, &spoiled->options[1]);
    params->key_lengths = copy_option(params->key_lengths, &spoiled->options[2]);
    params->alibi_slopes = copy_option(params->alibi_slopes, &spoiled->options[3]);
    params->sinks = copy_option(params->sinks, &spoiled->options[4]);
    params->lse = copy_option(params->lse, &spoiled->options[5]);
    params->weights = copy_option(params->weights, &spoiled->options[6]);
}

static void spoil_params(fuzz_bytes *bytes, attn_sdpa_params *params) {
    switch (fuzz_byte(bytes) % 8) {
    case 0:
        params->struct_size = fuzz_word(bytes) % (2 * sizeof *params);
        break;
    case 1:
        params->flags ^= UINT64_C(1) << fuzz_byte(bytes) % 64;
        break;
    case 2:
        params->window_left = fuzz_odd_number(bytes);
        break;
    case 3:
        params->window_right = fuzz_odd_number(bytes);
        break;
    case 4:
        params->mask_kind = (int32_t)fuzz_odd_number(bytes);
        break;
    case 5:
        params->normalizer = (int32_t)fuzz_odd_number(bytes);
        break;
    case 6:
        params->is_causal = (int32_t)fuzz_odd_number(bytes);
        break;
    default:
        params->softcap = (double)fuzz_odd_number(bytes);
        break;
    }
}

/* The sizes of a struct that says it is longer than it is would be read: only shorter ones here. */
static void ask_about(attn_context *context, spoiled_call *spoiled) {
    size_t bytes;
    attn_sdpa_report report = {.struct_size = sizeof report};
    const attn_tensor *v = spoiled->views;
    if (spoiled->params.struct_size > sizeof spoiled->params) {
        spoiled->params.struct_size = sizeof spoiled->params;
    }
    const attn_status status =
        attn_sdpa_workspace_bytes(context, &v[0], &v[1], &v[2], &spoiled->params, &v[3], &bytes);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    if (attn_sdpa_explain(context, &v[0], &v[1], &v[2], &spoiled->params, &v[3], &report) !=
        status) {
        abort();
    }
}

static void spoil_and_ask(fuzz_bytes *bytes, const factor_set *set, const factor_case *chosen,
                          uint64_t seed) {
    sdpa_call call;
    spoiled_call spoiled;
    sdpa_case_build(chosen, seed, FREE_TINY, &call);
    copy_call(&call, &spoiled);
    const int times = 1 + fuzz_byte(bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(bytes) % 12;
        if (what < 4) {
            fuzz_spoil_view(bytes, &spoiled.views[what]);
        } else if (what < 11) {
            fuzz_spoil_view(bytes, &spoiled.options[what - 4]);
        } else {
            spoil_params(bytes, &spoiled.params);
        }
    }
    attn_context *context = case_context(set, chosen);
    ask_about(context, &spoiled);
    sdpa_call_destroy(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_bytes bytes = {data, size};
    factor_case chosen = {{0}};
    if (set.count == 0) {
        set = sdpa_factor_set();
    }
    const int computes = fuzz_byte(&bytes) < COMPUTES;
    const uint64_t seed = fuzz_word(&bytes);
    if (!fuzz_choose(&bytes, &set, &chosen)) {
        return -1;
    }
    if (computes) {
        call_outcome outcome = {0};
        if (sdpa_case_run(&set, &chosen, seed, FREE_TINY, &outcome) != 0) {
            fuzz_fail(&set, &chosen, seed, outcome.message);
        }
    } else {
        spoil_and_ask(&bytes, &set, &chosen, seed);
    }
    fuzz_count("sdpa", computes);
    return 0;
}
