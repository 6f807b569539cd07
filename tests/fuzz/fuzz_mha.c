/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_mha.c: attn_mha_forward, as fuzz_sdpa.c.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "mha_case.h"

enum { COMPUTES = 128, MOST_SPOILED = 3, SHARES = 128 };

/* A call with its layer, and its views and options as copies that may be spoiled. */
typedef struct spoiled_call {
    mha_call *call;
    const attn_mha *layer;
    attn_tensor views[4]; /* query, key, value, output */
    attn_tensor key_padding_mask;
    attn_tensor options[FUZZ_OPTIONS]; /* of the attention */
    attn_sdpa_params attention;
    attn_rope_params rope;
    attn_tensor rope_lengths;
    attn_mha_params params;
} spoiled_call;

static void copy_call(mha_call *call, const attn_mha *layer, spoiled_call *spoiled) {
    *spoiled = (spoiled_call){
        .call = call,
        .layer = layer,
        .views = {*call->query, *call->key, *call->value, *call->output},
        .attention = call->attention,
        .params = call->params,
    };
    if (spoiled->params.key_padding_mask != NULL) {
        spoiled->key_padding_mask = *spoiled->params.key_padding_mask;
        spoiled->params.key_padding_mask = &spoiled->key_padding_mask;
    }
    if (spoiled->params.rope != NULL) {
        spoiled->rope = call->rope;
        spoiled->params.rope = &spoiled->rope;
    }
    if (spoiled->rope.lengths != NULL) {
        spoiled->rope_lengths = *spoiled->rope.lengths;
        spoiled->rope.lengths = &spoiled->rope_lengths;
    }
    if (spoiled->params.attention != NULL) {
        fuzz_own_options(&spoiled->attention, spoiled->options);
        spoiled->params.attention = &spoiled->attention;
    }
}

static void spoil_config(fuzz_bytes *bytes, attn_mha_config *config) {
    int64_t *sizes[] = {&config->embed_dim, &config->num_heads,     &config->kdim,
                        &config->vdim,      &config->qdim,          &config->num_kv_heads,
                        &config->head_dim,  &config->value_head_dim};
    int32_t *numbers[] = {&config->dtype,         &config->no_bias,     &config->add_bias_kv,
                          &config->add_zero_attn, &config->batch_first, &config->parameter_dtype,
                          &config->qk_norm,       &config->reserved};
    const int what = fuzz_byte(bytes) % 17;
    if (what < 8) {
        *sizes[what] = fuzz_odd_number(bytes);
    } else if (what < 16) {
        *numbers[what - 8] = (int32_t)fuzz_odd_number(bytes);
    } else {
        config->struct_size = fuzz_word(bytes) % (sizeof *config + 1);
    }
}

/* A layer of a spoiled description: refused, or sizes whose parameters somebody could give. */
static attn_status describe_layer(const attn_mha_config *config) {
    attn_mha *layer;
    int64_t count = 0;
    const attn_status status = attn_mha_create(NULL, config, &layer);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0') || (status != ATTN_OK && layer)) {
        abort();
    }
    attn_mha_config described = {.struct_size = sizeof described};
    if (status == ATTN_OK && (attn_mha_parameter_count(layer, &count) != ATTN_OK ||
                              attn_mha_describe(layer, &described) != ATTN_OK ||
                              described.num_heads != config->num_heads)) {
        abort();
    }
    for (int64_t i = 0; i < count; ++i) {
        const char *name;
        attn_tensor shape;
        if (attn_mha_parameter_describe(layer, i, &name, &shape) != ATTN_OK) {
            abort();
        }
    }
    attn_mha_destroy(layer);
    return status;
}

/* The outputs can be described wherever they can be computed, but for those that nobody asked for
 * and that no memory holds. */
static void describe_outputs(const spoiled_call *spoiled, const attn_mha_params *given,
                             attn_status asked) {
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    const attn_tensor *v = spoiled->views;
    const attn_status status =
        attn_mha_describe_outputs(spoiled->layer, &v[0], &v[1], &v[2], given, &outputs);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0') ||
        (asked == ATTN_OK && status != ATTN_OK && status != ATTN_ERROR_OVERFLOW) ||
        (outputs.output.rank != 0) != (status == ATTN_OK)) {
        abort();
    }
}

/* The status of the call without work; `given` are its params, or those of a later release. */
static attn_status ask_about(const spoiled_call *spoiled, const attn_mha_params *given) {
    size_t needed;
    attn_sdpa_report inside = {.struct_size = sizeof inside};
    attn_mha_report report = {.struct_size = sizeof report, .attention = &inside};
    const attn_tensor *v = spoiled->views;
    const attn_status status =
        attn_mha_workspace_bytes(NULL, spoiled->layer, &v[0], &v[1], &v[2], given, &v[3], &needed);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    if (attn_mha_explain(NULL, spoiled->layer, &v[0], &v[1], &v[2], given, &v[3], &report) !=
            status ||
        (status == ATTN_OK && report.workspace_bytes != needed)) {
        abort();
    }
    describe_outputs(spoiled, given, status);
    return status;
}

/* Makes a call that will be refused. */
static void compute_refused(const fuzz_input *input, const spoiled_call *spoiled,
                            const attn_mha_params *given, attn_status asked) {
    const attn_tensor *v = spoiled->views;
    pool_begin(&spoiled->call->pool);
    const attn_status status =
        attn_mha_forward(NULL, spoiled->layer, &v[0], &v[1], &v[2], given, &v[3], NULL, 0);
    fuzz_check_refused(input, &spoiled->call->pool, asked, status);
}

/* A plan is made once key_lengths and blocks were read: if that is refused, they must be where their
 * views say. A rotation's lengths are read before the attention inside is looked at. */
static int may_have_data(const spoiled_call *spoiled, attn_status asked) {
    const attn_tensor *rows = spoiled->call->rope.lengths;
    return asked != ATTN_OK &&
           (rows == NULL || memcmp(rows, &spoiled->rope_lengths, sizeof *rows) == 0) &&
           (asked != ATTN_ERROR_OVERFLOW ||
            fuzz_are_read_safely(&spoiled->call->attention, spoiled->options));
}

static attn_status ask_and_refuse(const fuzz_input *input, const spoiled_call *spoiled) {
    const attn_status asked = ask_about(spoiled, &spoiled->params);
    if (may_have_data(spoiled, asked)) {
        compute_refused(input, spoiled, &spoiled->params, asked);
    }
    return asked;
}

/* The same call with options of a later release, in one struct or both: the same status, or refused
 * if they are used. */
static void ask_longer(fuzz_input *input, const spoiled_call *spoiled, attn_status asked) {
    int used = -1, used_inside = -1;
    attn_mha_params params = spoiled->params;
    const size_t more = fuzz_tail(&input->bytes, &used);
    if (params.attention != NULL && fuzz_byte(&input->bytes) % 2 != 0) {
        const size_t inside = fuzz_tail(&input->bytes, &used_inside);
        params.attention = fuzz_lengthen(PLACE_ATTENTION, &spoiled->attention,
                                         sizeof spoiled->attention, inside, used_inside);
    }
    const attn_status expected = used < 0 && used_inside < 0 ? asked : ATTN_ERROR_UNSUPPORTED;
    const attn_mha_params *given = fuzz_lengthen(PLACE_PARAMS, &params, sizeof params, more, used);
    if (ask_about(spoiled, given) != expected) {
        fuzz_fail(input->set, &input->chosen, input->seed, "a struct's tail changed the status");
    }
    if (expected != asked || may_have_data(spoiled, asked)) {
        compute_refused(input, spoiled, given, expected);
    }
}

/* The same for a description of a layer. */
static void describe_longer(fuzz_input *input, const attn_mha_config *config, attn_status asked) {
    int used;
    const size_t more = fuzz_tail(&input->bytes, &used);
    const attn_status expected = used < 0 ? asked : ATTN_ERROR_UNSUPPORTED;
    if (describe_layer(fuzz_lengthen(PLACE_CONFIG, config, sizeof *config, more, used)) !=
        expected) {
        fuzz_fail(input->set, &input->chosen, input->seed, "a config's tail changed the status");
    }
}

/* The tensors of a call, outputs first, then inputs and bound parameters; their number. */
enum { NUM_OUTPUTS = 4, MOST_TENSORS = 5 + FUZZ_OPTIONS + MAX_PARAMETERS };

static int list_tensors(spoiled_call *spoiled, attn_tensor parameters[MAX_PARAMETERS],
                        attn_tensor *tensors[MOST_TENSORS]) {
    const mha_call *call = spoiled->call;
    attn_tensor *v = spoiled->views, *o = spoiled->options;
    int count = 0;
    tensors[count++] = &v[3];
    tensors[count++] = &o[OPTION_LSE];
    tensors[count++] = &o[OPTION_WEIGHTS];
    tensors[count++] = &o[OPTION_SCORES];
    for (int i = 0; i < 3; ++i) {
        tensors[count++] = &v[i];
    }
    tensors[count++] = &spoiled->key_padding_mask;
    for (int i = 0; i < OPTION_LSE; ++i) {
        tensors[count++] = &o[i];
    }
    for (int i = 0; i < call->num_parameters; ++i) {
        if (call->is_bound[i]) {
            parameters[i] = call->parameters[i].values;
            tensors[count++] = &parameters[i];
        }
    }
    return count;
}

/* Nothing is wrong with the call but that an output touches another tensor. */
static void overlap(fuzz_input *input, mha_call *call, const attn_mha *layer) {
    spoiled_call moved;
    attn_tensor parameters[MAX_PARAMETERS];
    attn_tensor *tensors[MOST_TENSORS];
    copy_call(call, layer, &moved);
    const int count = list_tensors(&moved, parameters, tensors);
    if (fuzz_overlap(&input->bytes, tensors, NUM_OUTPUTS, count)) {
        compute_refused(input, &moved, &moved.params, ATTN_ERROR_OVERLAP);
    }
}

/* Nothing is wrong with the call but that its workspace touches a tensor. */
static void overlap_workspace(fuzz_input *input, mha_call *call, const attn_mha *layer) {
    spoiled_call same;
    attn_tensor parameters[MAX_PARAMETERS];
    attn_tensor *tensors[MOST_TENSORS];
    size_t needed = 0;
    copy_call(call, layer, &same);
    const int count = list_tensors(&same, parameters, tensors);
    const attn_tensor *v = same.views;
    if (attn_mha_workspace_bytes(NULL, layer, &v[0], &v[1], &v[2], &same.params, &v[3], &needed) !=
        ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, attn_last_error());
    }
    void *workspace = needed > 0 ? fuzz_workspace(&input->bytes, tensors, count, needed) : NULL;
    if (workspace == NULL) {
        return;
    }
    pool_begin(&call->pool);
    fuzz_check_refused(
        input, &call->pool, ATTN_ERROR_OVERLAP,
        attn_mha_forward(NULL, layer, &v[0], &v[1], &v[2], &same.params, &v[3], workspace, needed));
}

/* Nothing is wrong with the call but one of its options' views, or that a struct is too short. */
static void spoil_option(fuzz_input *input, mha_call *call, const attn_mha *layer) {
    spoiled_call spoiled;
    copy_call(call, layer, &spoiled);
    const int what = fuzz_byte(&input->bytes) % (FUZZ_OPTIONS + 3);
    if (what < FUZZ_OPTIONS) {
        fuzz_spoil_view(&input->bytes, &spoiled.options[what]);
    } else if (what == FUZZ_OPTIONS) {
        fuzz_spoil_view(&input->bytes, &spoiled.key_padding_mask);
    } else if (what == FUZZ_OPTIONS + 1) {
        spoiled.params.struct_size = fuzz_byte(&input->bytes) % (sizeof spoiled.params + 1);
    } else {
        spoiled.attention.struct_size = fuzz_byte(&input->bytes) % (sizeof spoiled.attention + 1);
    }
    ask_and_refuse(input, &spoiled);
}

/* One of its numbers, or the view of its lengths; nothing where nothing is rotated. */
static void spoil_rope(fuzz_bytes *bytes, spoiled_call *spoiled) {
    attn_rope_params *rope = &spoiled->rope;
    const int what = fuzz_byte(bytes) % 6;
    if (what == 0) {
        rope->rotary_dim = fuzz_odd_number(bytes);
    } else if (what == 1) {
        rope->base = (double)fuzz_odd_number(bytes);
    } else if (what == 2) {
        rope->interleaved = (int32_t)fuzz_odd_number(bytes);
    } else if (what == 3) {
        rope->inverse = (int32_t)fuzz_odd_number(bytes);
    } else if (what == 4) {
        rope->struct_size = fuzz_byte(bytes) % (sizeof *rope + 1);
    } else {
        fuzz_spoil_view(bytes, &spoiled->rope_lengths);
    }
}

static void spoil(fuzz_bytes *bytes, spoiled_call *spoiled, attn_mha_config *config) {
    const int times = 1 + fuzz_byte(bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(bytes) % 9;
        if (what < 4) {
            fuzz_spoil_view(bytes, &spoiled->views[what]);
        } else if (what == 8) {
            spoil_rope(bytes, spoiled);
        } else if (what == 4) {
            fuzz_spoil_options(bytes, &spoiled->attention);
        } else if (what == 5) {
            spoiled->params.key_padding_mask_kind = (int32_t)fuzz_odd_number(bytes);
        } else {
            spoil_config(bytes, config);
        }
    }
}

/* What a call is asked beside the spoiled one, as the bytes that are left say. */
static void ask_more(fuzz_input *input, mha_call *call, const spoiled_call *spoiled,
                     attn_status asked) {
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        ask_longer(input, spoiled, asked);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        spoil_option(input, call, spoiled->layer);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        overlap(input, call, spoiled->layer);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        overlap_workspace(input, call, spoiled->layer);
    }
}

static void spoil_and_ask(fuzz_input *input) {
    mha_call call;
    spoiled_call spoiled;
    call_outcome outcome = {0};
    mha_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    attn_mha_config config = call.config;
    attn_mha *layer = mha_call_layer(&call, &outcome);
    if (layer == NULL) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
    copy_call(&call, layer, &spoiled);
    spoil(&input->bytes, &spoiled, &config);
    const attn_status asked = ask_and_refuse(input, &spoiled);
    const attn_status described = describe_layer(&config);
    ask_more(input, &call, &spoiled, asked);
    if (config.struct_size == sizeof config && fuzz_byte(&input->bytes) % 2 != 0) {
        describe_longer(input, &config, described);
    }
    attn_mha_destroy(layer);
    mha_call_destroy(&call);
}

/* Query, key and value in one memory, as far as their shapes allow it. */
static void share_memory(mha_call *call, attn_tensor *query, attn_tensor *value) {
    if (fuzz_share(call->value, call->key, call->value->rank - 1, value)) {
        call->value = value;
        fuzz_copy_part(&call->seen_value, &call->seen_key);
    }
    if (fuzz_share(call->query, call->key, 0, query)) {
        call->query = query;
    }
}

/* Zero tails behind the options of the call and of the attention inside. */
static void lengthen_params(fuzz_bytes *bytes, mha_call *call) {
    const size_t more = 1 + fuzz_byte(bytes) % LONGEST_TAIL;
    attn_mha_params params = call->params;
    if (params.attention != NULL) {
        params.attention = fuzz_lengthen(PLACE_ATTENTION, &call->attention, sizeof call->attention,
                                         1 + fuzz_byte(bytes) % LONGEST_TAIL, -1);
    }
    call->given_params = fuzz_lengthen(PLACE_PARAMS, &params, sizeof params, more, -1);
}

static void compute(fuzz_input *input) {
    mha_call call;
    call_outcome outcome = {0};
    attn_tensor query, value;
    mha_case_build(&input->chosen, input->seed, FREE_TINY, &call);
    if (fuzz_byte(&input->bytes) >= SHARES) {
        share_memory(&call, &query, &value);
    }
    if (fuzz_byte(&input->bytes) % 2 != 0 && call.given_params != NULL) {
        lengthen_params(&input->bytes, &call);
    }
    if (mha_call_run(input->set, &input->chosen, &call, &outcome) != 0) {
        fuzz_fail(input->set, &input->chosen, input->seed, outcome.message);
    }
    mha_call_destroy(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = mha_factor_set();
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
    fuzz_count("mha", computes);
    return 0;
}
