/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_sdpa.c: attn_sdpa. Half of the executions compute, every option drawn from the input, and
 * are compared with the float64 oracle; tensors lie between watched margins, inputs may share
 * memory and the options may be a later release's. In the others one to three things about the call
 * are spoiled: whatever is asked of the library then, without data, must end in a status and a
 * line. What is refused must be refused with data too, and all of it be left as it is. So must
 * calls whose outputs, or whose workspace, touch another tensor. And whatever numbers tell where
 * sequences are, and how long, a call is computed or refused.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "sdpa_case.h"
#include "support/oracle_tensor.h"

enum { COMPUTES = 128, MOST_SPOILED = 3, SHARES = 128 };

/* The tensors of numbers that tell where sequences are. */
enum {
    WHERE_LENGTHS,
    WHERE_TABLE,
    WHERE_PAGE_STARTS,
    WHERE_STARTS,
    WHERE_QUERY_STARTS,
    FUZZ_WHERES
};

/* The views of a call and its options, as copies that may be spoiled. */
typedef struct spoiled_call {
    attn_tensor views[4]; /* query, key, value, output */
    attn_tensor options[FUZZ_OPTIONS];
    attn_tensor wheres[FUZZ_WHERES];
    attn_kv kv;
    attn_sdpa_params params;
    attn_sdpa_report report; /* nothing that is refused may write it */
} spoiled_call;

/* Points kv and query_starts at copies of themselves. */
static void own_wheres(spoiled_call *spoiled) {
    attn_kv *kv = &spoiled->kv;
    const attn_tensor **fields[FUZZ_WHERES] = {[WHERE_LENGTHS] = &kv->lengths,
                                               [WHERE_TABLE] = &kv->page_table,
                                               [WHERE_PAGE_STARTS] = &kv->page_starts,
                                               [WHERE_STARTS] = &kv->starts,
                                               [WHERE_QUERY_STARTS] =
                                                   &spoiled->params.query_starts};
    if (spoiled->params.kv != NULL) {
        *kv = *spoiled->params.kv;
        kv->key = kv->key != NULL ? &spoiled->views[1] : NULL;
        kv->value = kv->value != NULL ? &spoiled->views[2] : NULL;
        spoiled->params.kv = kv;
    }
    for (int i = 0; i < FUZZ_WHERES; ++i) {
        if (*fields[i] != NULL) {
            spoiled->wheres[i] = **fields[i];
            *fields[i] = &spoiled->wheres[i];
        }
    }
}

static int has_wheres(const sdpa_call *call) {
    return call->params.kv != NULL || call->params.query_starts != NULL;
}

static void copy_call(const sdpa_call *call, spoiled_call *spoiled) {
    const attn_kv *kv = call->params.kv;
    *spoiled = (spoiled_call){
        .views = {*call->query, kv != NULL ? *kv->key : *call->key,
                  kv != NULL ? *kv->value : *call->value, *call->output},
        .params = call->params,
        .report = {.struct_size = sizeof spoiled->report},
    };
    spoiled->params.report = &spoiled->report;
    fuzz_own_options(&spoiled->params, spoiled->options);
    own_wheres(spoiled);
}

/* The call's own arguments. */
static const attn_tensor *key_of(const spoiled_call *spoiled) {
    return spoiled->params.kv == NULL ? &spoiled->views[1] : NULL;
}

static const attn_tensor *value_of(const spoiled_call *spoiled) {
    return spoiled->params.kv == NULL ? &spoiled->views[2] : NULL;
}

static void copy_without_data(const spoiled_call *spoiled, spoiled_call *bare) {
    *bare = *spoiled;
    bare->params.report = NULL;
    fuzz_own_options(&bare->params, bare->options);
    own_wheres(bare);
    for (int i = 0; i < 4; ++i) {
        bare->views[i].data = NULL;
    }
    for (int i = 0; i < FUZZ_OPTIONS; ++i) {
        bare->options[i].data = NULL;
    }
    for (int i = 0; i < FUZZ_WHERES; ++i) {
        bare->wheres[i].data = NULL;
    }
}

static void spoil_params(fuzz_bytes *bytes, attn_sdpa_params *params) {
    if (fuzz_byte(bytes) % 8 == 0) {
        params->struct_size = fuzz_word(bytes) % (2 * sizeof *params);
    } else {
        fuzz_spoil_options(bytes, params);
    }
}

/* A tensor of kv that is not there, one that may not be, or a struct that is too short. */
static void spoil_kv(fuzz_bytes *bytes, spoiled_call *spoiled) {
    attn_kv *kv = &spoiled->kv;
    const attn_tensor **const fields[] = {&kv->key,         &kv->value,  &kv->page_table,
                                          &kv->page_starts, &kv->starts, &kv->lengths};
    const int what = fuzz_byte(bytes) % 7;
    if (spoiled->params.kv == NULL) {
        return;
    }
    if (what == 6) {
        kv->struct_size = fuzz_word(bytes) % sizeof *kv;
    } else if (*fields[what] != NULL) {
        *fields[what] = NULL;
    } else {
        *fields[what] = what < 2 ? &spoiled->views[1 + what] : &spoiled->wheres[WHERE_LENGTHS];
    }
}

/* The outputs can be described wherever they can be computed, but for those that nobody asked for
 * and that no memory holds. */
static void describe(const spoiled_call *bare, const attn_sdpa_params *given, attn_status asked) {
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    const attn_tensor *v = bare->views;
    const attn_status status =
        attn_sdpa_describe_outputs(&v[0], key_of(bare), value_of(bare), given, &outputs);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0') ||
        (asked == ATTN_OK && status != ATTN_OK && status != ATTN_ERROR_OVERFLOW) ||
        (outputs.output.rank != 0) != (status == ATTN_OK)) {
        abort();
    }
}

/* The status of the call without data; `given` are its options, or those of a later release. */
static attn_status ask_about(attn_context *context, const spoiled_call *bare,
                             const attn_sdpa_params *given) {
    size_t bytes;
    attn_sdpa_report report = {.struct_size = sizeof report};
    const attn_tensor *v = bare->views;
    const attn_status status = attn_sdpa_workspace_bytes(context, &v[0], key_of(bare),
                                                         value_of(bare), given, &v[3], &bytes);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    if (attn_sdpa_explain(context, &v[0], key_of(bare), value_of(bare), given, &v[3], &report) !=
        status) {
        abort();
    }
    describe(bare, given, status);
    return status;
}

/* Makes a call that will be refused, with data. */
static void compute_refused(const fuzz_input *input, sdpa_call *call, const spoiled_call *spoiled,
                            const attn_sdpa_params *given, attn_status asked) {
    const attn_sdpa_report before = spoiled->report;
    const attn_tensor *v = spoiled->views;
    attn_context *context = case_context(input->set, &input->chosen);
    pool_begin(&call->pool);
    const attn_status status =
        attn_sdpa(context, &v[0], key_of(spoiled), value_of(spoiled), given, &v[3], NULL, 0);
    fuzz_check_refused(input, &call->pool, asked, status);
    if (memcmp(&before, &spoiled->report, sizeof before) != 0) {
        fuzz_fail(input->set, &input->chosen, input->seed, "a refused call wrote its report");
    }
}

/* All memory of the call is there, so that it can be made: it is computed or, where numbers that
 * are in memory may be wrong, refused. */
static void compute_valid(const fuzz_input *input, sdpa_call *call, const spoiled_call *spoiled,
                          int may_be_wrong) {
    char message[600];
    const attn_tensor *v = spoiled->views;
    attn_context *context = case_context(input->set, &input->chosen);
    pool_begin(&call->pool);
    const attn_status status = attn_sdpa(context, &v[0], key_of(spoiled), value_of(spoiled),
                                         &spoiled->params, &v[3], NULL, 0);
    if (status != ATTN_OK && may_be_wrong) {
        fuzz_check_refused(input, &call->pool, ATTN_ERROR_VALUE, status);
    } else if (status != ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, attn_last_error());
    } else if (pool_check(&call->pool, message, sizeof message)) {
        fuzz_fail(input->set, &input->chosen, input->seed, message);
    }
}

static int has_own_views(const sdpa_call *call, const spoiled_call *spoiled) {
    spoiled_call fresh;
    copy_call(call, &fresh);
    return memcmp(fresh.views, spoiled->views, sizeof fresh.views) == 0 &&
           memcmp(fresh.options, spoiled->options, sizeof fresh.options) == 0 &&
           memcmp(fresh.wheres, spoiled->wheres, sizeof fresh.wheres) == 0;
}

/* A plan is made once lengths, blocks, starts and pages were read: if that is refused, they must be where
 * their views say. */
static int may_have_data(const sdpa_call *call, const spoiled_call *spoiled, attn_status asked) {
    spoiled_call fresh;
    copy_call(call, &fresh);
    return asked != ATTN_OK && (asked != ATTN_ERROR_OVERFLOW ||
                                (fuzz_are_read_safely(&call->params, spoiled->options) &&
                                 memcmp(fresh.wheres, spoiled->wheres, sizeof fresh.wheres) == 0));
}

/* The same call with options of a later release: the same status, or refused if they are used. */
static void ask_longer(fuzz_input *input, sdpa_call *call, const spoiled_call *spoiled,
                       const spoiled_call *bare, attn_status asked) {
    int used;
    const size_t more = fuzz_tail(&input->bytes, &used), size = sizeof spoiled->params;
    const attn_status expected = used < 0 ? asked : ATTN_ERROR_UNSUPPORTED;
    attn_context *context = case_context(input->set, &input->chosen);
    const attn_sdpa_params *given = fuzz_lengthen(PLACE_PARAMS, &bare->params, size, more, used);
    if (ask_about(context, bare, given) != expected) {
        fuzz_fail(input->set, &input->chosen, input->seed, "a struct's tail changed the status");
    }
    if (used >= 0 || may_have_data(call, spoiled, asked)) {
        given = fuzz_lengthen(PLACE_PARAMS, &spoiled->params, size, more, used);
        compute_refused(input, call, spoiled, given, expected);
    }
}

/* The tensors of a call, outputs first. */
enum { NUM_OUTPUTS = 4, NUM_TENSORS = 4 + FUZZ_OPTIONS + FUZZ_WHERES };

static void list_tensors(spoiled_call *call, attn_tensor *tensors[NUM_TENSORS]) {
    attn_tensor *v = call->views, *o = call->options;
    int count = 0;
    tensors[count++] = &v[3];
    tensors[count++] = &o[OPTION_LSE];
    tensors[count++] = &o[OPTION_WEIGHTS];
    tensors[count++] = &o[OPTION_SCORES];
    for (int i = 0; i < 3; ++i) {
        tensors[count++] = &v[i];
    }
    for (int i = 0; i < OPTION_LSE; ++i) {
        tensors[count++] = &o[i];
    }
    for (int i = 0; i < FUZZ_WHERES; ++i) {
        tensors[count++] = &call->wheres[i];
    }
}

/* Nothing is wrong with the call but that an output touches another tensor. */
static void overlap(fuzz_input *input, sdpa_call *call) {
    spoiled_call moved;
    attn_tensor *tensors[NUM_TENSORS];
    copy_call(call, &moved);
    list_tensors(&moved, tensors);
    if (fuzz_overlap(&input->bytes, tensors, NUM_OUTPUTS, NUM_TENSORS)) {
        compute_refused(input, call, &moved, &moved.params, ATTN_ERROR_OVERLAP);
    }
}

/* Nothing is wrong with the call but that its workspace touches a tensor. */
static void overlap_workspace(fuzz_input *input, sdpa_call *call) {
    spoiled_call same;
    attn_tensor *tensors[NUM_TENSORS];
    size_t needed = 0;
    copy_call(call, &same);
    list_tensors(&same, tensors);
    const attn_tensor *v = same.views;
    attn_context *context = case_context(input->set, &input->chosen);
    if (attn_sdpa_workspace_bytes(context, &v[0], key_of(&same), value_of(&same), &same.params,
                                  &v[3], &needed) != ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, attn_last_error());
    }
    void *workspace =
        needed > 0 ? fuzz_workspace(&input->bytes, tensors, NUM_TENSORS, needed) : NULL;
    if (workspace == NULL) {
        return;
    }
    pool_begin(&call->pool);
    fuzz_check_refused(input, &call->pool, ATTN_ERROR_OVERLAP,
                       attn_sdpa(context, &v[0], key_of(&same), value_of(&same), &same.params,
                                 &v[3], workspace, needed));
}

/* Nothing is wrong with the call but numbers that tell where sequences are. */
static void spoil_numbers(fuzz_input *input) {
    sdpa_call call;
    spoiled_call same;
    sdpa_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    copy_call(&call, &same);
    const int times = 1 + fuzz_byte(&input->bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        int64_t index[ATTN_MAX_RANK] = {0};
        const attn_tensor *numbers = &same.wheres[fuzz_byte(&input->bytes) % FUZZ_WHERES];
        int steps = fuzz_byte(&input->bytes);
        const int64_t number = fuzz_odd_number(&input->bytes);
        if (numbers->dtype == ATTN_DTYPE_INVALID ||
            oracle_count(numbers->rank, numbers->shape) == 0) {
            continue;
        }
        while (steps-- > 0) {
            oracle_next_index(numbers->rank, numbers->shape, index);
        }
        oracle_store_integer(numbers, index, number);
    }
    compute_valid(input, &call, &same, 1);
    sdpa_call_destroy(&call);
}

static void spoil(fuzz_bytes *bytes, spoiled_call *spoiled, int with_wheres) {
    enum { OPTIONS = 4, PARAMS = OPTIONS + FUZZ_OPTIONS, WHERES, KV = WHERES + FUZZ_WHERES };
    const int times = 1 + fuzz_byte(bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(bytes) % (with_wheres ? KV + 1 : WHERES);
        if (what < OPTIONS) {
            fuzz_spoil_view(bytes, &spoiled->views[what]);
        } else if (what < PARAMS) {
            fuzz_spoil_view(bytes, &spoiled->options[what - OPTIONS]);
        } else if (what == PARAMS) {
            spoil_params(bytes, &spoiled->params);
        } else if (what < KV) {
            fuzz_spoil_view(bytes, &spoiled->wheres[what - WHERES]);
        } else {
            spoil_kv(bytes, spoiled);
        }
    }
}

static void spoil_and_ask(fuzz_input *input) {
    sdpa_call call;
    spoiled_call spoiled, bare;
    sdpa_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    copy_call(&call, &spoiled);
    spoil(&input->bytes, &spoiled, has_wheres(&call));
    const int is_longer = spoiled.params.struct_size > sizeof spoiled.params;
    if (is_longer) {
        spoiled.params.struct_size = sizeof spoiled.params;
    }
    copy_without_data(&spoiled, &bare);
    const attn_status asked =
        ask_about(case_context(input->set, &input->chosen), &bare, &bare.params);
    if (may_have_data(&call, &spoiled, asked)) {
        compute_refused(input, &call, &spoiled, &spoiled.params, asked);
    } else if (asked == ATTN_OK && has_own_views(&call, &spoiled)) {
        compute_valid(input, &call, &spoiled, call.params.kv != NULL);
    }
    /* A struct that is too short cannot be made longer. */
    if (spoiled.params.struct_size == sizeof spoiled.params &&
        (fuzz_byte(&input->bytes) % 2 != 0 || is_longer)) {
        ask_longer(input, &call, &spoiled, &bare, asked);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        overlap(input, &call);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        overlap_workspace(input, &call);
    }
    sdpa_call_destroy(&call);
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        spoil_numbers(input);
    }
}

/* Query, key and value in one memory, as far as their shapes allow it. */
static void share_memory(sdpa_call *call, attn_tensor *query, attn_tensor *value) {
    if (has_wheres(call)) {
        return;
    }
    if (fuzz_share(call->value, call->key, call->value->rank - 1, value)) {
        call->value = value;
        fuzz_copy_part(&call->seen.value, &call->seen.key);
    }
    if (fuzz_share(call->query, call->key, 0, query)) {
        call->query = query;
        call->seen.query = *query;
    }
}

static void compute(fuzz_input *input) {
    sdpa_call call;
    call_outcome outcome = {0};
    attn_tensor query, value;
    sdpa_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    if (fuzz_byte(&input->bytes) >= SHARES) {
        share_memory(&call, &query, &value);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0 && call.given_params != NULL) {
        const size_t more = 1 + fuzz_byte(&input->bytes) % LONGEST_TAIL;
        call.given_params = fuzz_lengthen(PLACE_PARAMS, &call.params, sizeof call.params, more, -1);
    }
    if (sdpa_call_run(input->set, &input->chosen, &call, &outcome) != 0) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
    sdpa_call_destroy(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = sdpa_factor_set();
    }
    const int computes = fuzz_byte(&input.bytes) < COMPUTES;
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, &set, &input.chosen)) {
        return -1;
    }
    if (computes) {
        compute(&input);
    } else {
        spoil_and_ask(&input);
    }
    fuzz_count("sdpa", computes);
    return 0;
}
