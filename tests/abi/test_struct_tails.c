/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_struct_tails.c: every struct that begins with struct_size, in every function that takes it,
 * with every size a program of another release may say: smaller than the first release's, from there
 * to today's, and larger. test_versioned_struct.c has the rule; this finds the function that does
 * not follow it, or that takes today's size for the first release's.
 */
#include <stdio.h>
#include <string.h>

#include "errors/merge_fixture.h"
#include "errors/mha_fixture.h"
#include "errors/rope_fixture.h"
#include "errors/sdpa_fixture.h"
#include "errors/softmax_fixture.h"

/* Room for a struct of a later release. */
enum { TAIL_BYTES = 72, MOST_BYTES = 848 };

typedef struct tail_case {
    const char *function;
    const char *name;   /* the struct, as the detail calls it */
    size_t first_bytes; /* its size in release 0.1, a number that never changes */
    size_t known_bytes; /* today's */
    const void *valid;  /* known_bytes to begin with; NULL: all zero */
    attn_status (*call)(void *given);
} tail_case;

/* The caller's memory. */
static union {
    uint64_t struct_size;
    unsigned char bytes[MOST_BYTES];
} given;

static mha_layer layer;
static sdpa_fixture sources; /* of valid_kv */

/* ---- the calls; a success has the right numbers ---- */

static attn_status call_context_create(void *params) {
    attn_context *context = NULL;
    const attn_status status = attn_context_create(params, &context);
    attn_context_destroy(context);
    return status;
}

static attn_status call_context_describe(void *info) {
    return attn_context_describe(NULL, info);
}

static attn_status call_rope(void *params) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = rope_fixture_run(&fixture);
    if (status == ATTN_OK) {
        rope_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_rms_norm(void *params) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, NULL);
    fixture.norm_params = params;
    const attn_status status = rope_fixture_normalize(&fixture);
    if (status == ATTN_OK) {
        rope_fixture_assert_normalized(&fixture);
    }
    return status;
}

static attn_status call_softmax(void *params) {
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = softmax_fixture_run(&fixture);
    if (status == ATTN_OK) {
        softmax_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_softmax_workspace_bytes(void *params) {
    softmax_fixture fixture;
    size_t bytes;
    softmax_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return softmax_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status run_sdpa(const attn_sdpa_params *params) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = sdpa_fixture_run(&fixture);
    if (status == ATTN_OK) {
        sdpa_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_sdpa(void *params) {
    return run_sdpa(params);
}

static attn_status call_sdpa_workspace_bytes(void *params) {
    sdpa_fixture fixture;
    size_t bytes;
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_explain(void *params) {
    sdpa_fixture fixture;
    attn_sdpa_report report = {.struct_size = sizeof report};
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_explain(&fixture, &report);
}

static attn_status call_sdpa_report(void *report) {
    const attn_sdpa_params params = {.struct_size = sizeof params, .report = report};
    return run_sdpa(&params);
}

static attn_status call_sdpa_explain_report(void *report) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    return sdpa_fixture_explain(&fixture, report);
}

static attn_status call_sdpa_merge(void *params) {
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    const attn_status status = merge_fixture_run(&fixture);
    if (status == ATTN_OK) {
        merge_fixture_assert_values(&fixture);
    }
    return status;
}

/* The fixture's call with its key and value in a kv. */
static void prepare_kv(sdpa_fixture *fixture, void *kv) {
    sdpa_fixture_prepare(fixture, NULL);
    fixture->arguments[SDPA_KEY] = NULL;
    fixture->arguments[SDPA_VALUE] = NULL;
    fixture->options.kv = kv;
}

static attn_status call_sdpa_kv(void *kv) {
    sdpa_fixture fixture;
    prepare_kv(&fixture, kv);
    const attn_status status = sdpa_fixture_run(&fixture);
    if (status == ATTN_OK) {
        sdpa_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_sdpa_workspace_bytes_kv(void *kv) {
    sdpa_fixture fixture;
    size_t bytes;
    prepare_kv(&fixture, kv);
    return sdpa_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_explain_kv(void *kv) {
    sdpa_fixture fixture;
    attn_sdpa_report report = {.struct_size = sizeof report};
    prepare_kv(&fixture, kv);
    return sdpa_fixture_explain(&fixture, &report);
}

static attn_status call_sdpa_describe_outputs_kv(void *kv) {
    sdpa_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    prepare_kv(&fixture, kv);
    return sdpa_fixture_describe_outputs(&fixture, &outputs);
}

static attn_status call_mha_create(void *config) {
    attn_mha *made = NULL;
    const attn_status status = attn_mha_create(NULL, config, &made);
    attn_mha_destroy(made);
    return status;
}

static attn_status run_mha(const attn_mha_params *params) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    const attn_status status = mha_fixture_run(&fixture);
    if (status == ATTN_OK) {
        mha_fixture_assert_values(&fixture);
    }
    return status;
}

static attn_status call_mha_forward(void *params) {
    return run_mha(params);
}

static attn_status call_mha_workspace_bytes(void *params) {
    mha_fixture fixture;
    size_t bytes;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_workspace_bytes(&fixture, &bytes);
}

static attn_status call_sdpa_describe_outputs(void *params) {
    sdpa_fixture fixture;
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    sdpa_fixture_prepare(&fixture, NULL);
    fixture.params = params;
    return sdpa_fixture_describe_outputs(&fixture, &outputs);
}

static attn_status call_sdpa_describe_outputs_into(void *outputs) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, NULL);
    return sdpa_fixture_describe_outputs(&fixture, outputs);
}

static attn_status explain_mha(const attn_mha_params *params, attn_mha_report *report) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_explain(&fixture, report);
}

static attn_status call_mha_explain(void *params) {
    attn_mha_report report = {.struct_size = sizeof report};
    return explain_mha(params, &report);
}

static attn_status call_mha_explain_attention(void *attention) {
    const attn_mha_params params = {.struct_size = sizeof params, .attention = attention};
    attn_mha_report report = {.struct_size = sizeof report};
    return explain_mha(&params, &report);
}

/* The report of the attention stays where it was. */
static attn_status call_mha_explain_report(void *report) {
    attn_sdpa_report attention = {.struct_size = sizeof attention};
    ((attn_mha_report *)report)->attention = &attention;
    const attn_status status = explain_mha(NULL, report);
    if (status == ATTN_OK) {
        assert_ptr_equal(((attn_mha_report *)report)->attention, &attention);
        assert_non_null(attention.reason);
    } else {
        refusal_fill(&((attn_mha_report *)report)->attention, sizeof(attn_sdpa_report *));
    }
    return status;
}

static attn_status call_mha_explain_attention_report(void *attention) {
    attn_mha_report report = {.struct_size = sizeof report, .attention = attention};
    return explain_mha(NULL, &report);
}

static attn_status call_mha_describe(void *config) {
    return attn_mha_describe(layer.layer, config);
}

static attn_status call_mha_describe_outputs(void *params) {
    mha_fixture fixture;
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.params = params;
    return mha_fixture_describe_outputs(&fixture, &outputs);
}

static attn_status call_mha_describe_outputs_into(void *outputs) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, NULL, &layer);
    return mha_fixture_describe_outputs(&fixture, outputs);
}

static attn_status call_mha_load_parameter(void *params) {
    const attn_tensor values = mha_parameters_view(&layer.parameters, "q_proj_weight");
    return attn_mha_load_parameter(NULL, layer.layer, "q_proj_weight", &values, params);
}

static attn_status call_mha_init_parameters(void *params) {
    const attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 2, .num_heads = 1};
    attn_mha *made;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &made));
    const attn_status status = attn_mha_init_parameters(NULL, made, params);
    attn_mha_destroy(made);
    return status;
}

static attn_status call_mha_attention(void *attention) {
    const attn_mha_params params = {.struct_size = sizeof params, .attention = attention};
    return run_mha(&params);
}

static attn_status call_mha_attention_report(void *report) {
    const attn_sdpa_params attention = {.struct_size = sizeof attention, .report = report};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    return run_mha(&params);
}

/* ---- what a struct may be ---- */

static const attn_mha_config valid_config = {
    .struct_size = sizeof valid_config, .embed_dim = 8, .num_heads = 2};

static const attn_kv valid_kv = {.struct_size = sizeof valid_kv,
                                 .key = &sources.views[SDPA_KEY],
                                 .value = &sources.views[SDPA_VALUE]};

#define STRUCT(type, release_0_1) .first_bytes = (release_0_1), .known_bytes = sizeof(type)

/* Read by the library. */
static const tail_case options[] = {
    {"attn_context_create", "config", STRUCT(attn_context_config, 72), .call = call_context_create},
    {"attn_rope", "params", STRUCT(attn_rope_params, 80), .call = call_rope},
    {"attn_rms_norm", "params", STRUCT(attn_rms_norm_params, 32), .call = call_rms_norm},
    {"attn_softmax", "params", STRUCT(attn_softmax_params, 40), .call = call_softmax},
    {"attn_softmax_workspace_bytes", "params", STRUCT(attn_softmax_params, 40),
     .call = call_softmax_workspace_bytes},
    {"attn_sdpa", "params", STRUCT(attn_sdpa_params, 136), .call = call_sdpa},
    {"attn_sdpa_workspace_bytes", "params", STRUCT(attn_sdpa_params, 136),
     .call = call_sdpa_workspace_bytes},
    {"attn_sdpa_explain", "params", STRUCT(attn_sdpa_params, 136), .call = call_sdpa_explain},
    {"attn_sdpa_merge", "params", STRUCT(attn_merge_params, 16), .call = call_sdpa_merge},
    {"attn_sdpa", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv, .call = call_sdpa_kv},
    {"attn_sdpa_workspace_bytes", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_workspace_bytes_kv},
    {"attn_sdpa_explain", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_explain_kv},
    {"attn_sdpa_describe_outputs", "kv", STRUCT(attn_kv, 56), .valid = &valid_kv,
     .call = call_sdpa_describe_outputs_kv},
    {"attn_mha_create", "config", STRUCT(attn_mha_config, 96), .valid = &valid_config,
     .call = call_mha_create},
    {"attn_mha_forward", "params", STRUCT(attn_mha_params, 32), .call = call_mha_forward},
    {"attn_mha_workspace_bytes", "params", STRUCT(attn_mha_params, 32),
     .call = call_mha_workspace_bytes},
    {"attn_mha_forward", "attention", STRUCT(attn_sdpa_params, 136), .call = call_mha_attention},
    {"attn_sdpa_describe_outputs", "params", STRUCT(attn_sdpa_params, 136),
     .call = call_sdpa_describe_outputs},
    {"attn_mha_explain", "params", STRUCT(attn_mha_params, 32), .call = call_mha_explain},
    {"attn_mha_explain", "attention", STRUCT(attn_sdpa_params, 136),
     .call = call_mha_explain_attention},
    {"attn_mha_describe_outputs", "params", STRUCT(attn_mha_params, 32),
     .call = call_mha_describe_outputs},
    {"attn_mha_load_parameter", "params", STRUCT(attn_mha_load_params, 8),
     .call = call_mha_load_parameter},
    {"attn_mha_init_parameters", "params", STRUCT(attn_mha_init_params, 16),
     .call = call_mha_init_parameters},
};

/* Filled by the library. */
static const tail_case results[] = {
    {"attn_context_describe", "info", STRUCT(attn_context_info, 48), .call = call_context_describe},
    {"attn_sdpa", "report", STRUCT(attn_sdpa_report, 64), .call = call_sdpa_report},
    {"attn_sdpa_explain", "report", STRUCT(attn_sdpa_report, 64), .call = call_sdpa_explain_report},
    {"attn_mha_forward", "attention.report", STRUCT(attn_sdpa_report, 64),
     .call = call_mha_attention_report},
    {"attn_mha_explain", "report", STRUCT(attn_mha_report, 40), .call = call_mha_explain_report},
    {"attn_mha_explain", "report.attention", STRUCT(attn_sdpa_report, 64),
     .call = call_mha_explain_attention_report},
    {"attn_mha_describe", "config", STRUCT(attn_mha_config, 96), .call = call_mha_describe},
    {"attn_sdpa_describe_outputs", "outputs", STRUCT(attn_sdpa_outputs, 584),
     .call = call_sdpa_describe_outputs_into},
    {"attn_mha_describe_outputs", "outputs", STRUCT(attn_mha_outputs, 584),
     .call = call_mha_describe_outputs_into},
};

/* Calls with a struct of `size` bytes: valid options as far as they go, then `tail` bytes, which for
 * sizes up to today's stand outside the struct. */
static attn_status call_with(const tail_case *entry, uint64_t size, unsigned char tail) {
    const size_t kept = size < entry->known_bytes ? (size_t)size : entry->known_bytes;
    memset(given.bytes, tail, sizeof given.bytes);
    if (entry->valid != NULL) {
        memcpy(given.bytes, entry->valid, kept);
    } else {
        memset(given.bytes, 0, kept);
    }
    given.struct_size = size;
    return entry->call(&given);
}

static void options_smaller_than_the_first_release_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t size = 0; size < entry->first_bytes; ++size) {
        refusal_assert(entry->function, call_with(entry, size, 0), ATTN_ERROR_VALUE,
                       refusal_size_line(entry->name, entry->first_bytes, size));
    }
}

/* Whatever stands behind the struct is not the library's to read. */
static void options_of_an_older_release_have_defaults_for_the_rest(void **state) {
    const tail_case *entry = *state;
    for (size_t size = entry->first_bytes; size <= entry->known_bytes; ++size) {
        refusal_assert_ok(entry->function, call_with(entry, size, REFUSAL_CANARY));
    }
}

static void options_of_a_newer_release_with_a_zero_tail_are_accepted(void **state) {
    const tail_case *entry = *state;
    for (size_t more = 1; more <= TAIL_BYTES; ++more) {
        refusal_assert_ok(entry->function, call_with(entry, entry->known_bytes + more, 0));
    }
}

/* Every byte of the tail; those behind it do not count. */
static void options_of_a_newer_release_that_are_used_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t more = 1; more <= TAIL_BYTES; ++more) {
        refusal_assert(entry->function, call_with(entry, entry->known_bytes + more, 1),
                       ATTN_ERROR_UNSUPPORTED,
                       refusal_newer_line(entry->name, entry->known_bytes, entry->known_bytes));
    }
    memset(given.bytes + entry->known_bytes, 0, sizeof given.bytes - entry->known_bytes);
    for (size_t at = entry->known_bytes; at < entry->known_bytes + TAIL_BYTES; ++at) {
        given.bytes[at] = 0x80;
        refusal_assert(entry->function, entry->call(&given), ATTN_ERROR_UNSUPPORTED,
                       refusal_newer_line(entry->name, entry->known_bytes, at));
        given.bytes[at] = 0;
    }
    refusal_assert_ok(entry->function, entry->call(&given));
}

/* Calls with a struct of `size` bytes to fill, in memory that holds the canary. */
static attn_status fill(const tail_case *entry, uint64_t size) {
    refusal_fill(given.bytes, sizeof given.bytes);
    given.struct_size = size;
    return entry->call(&given);
}

static void results_smaller_than_the_first_release_are_refused(void **state) {
    const tail_case *entry = *state;
    for (size_t size = 0; size < entry->first_bytes; ++size) {
        refusal_assert(entry->function, fill(entry, size), ATTN_ERROR_VALUE,
                       refusal_size_line(entry->name, entry->first_bytes, size));
        refusal_assert_untouched(entry->name, given.bytes + sizeof size,
                                 sizeof given.bytes - sizeof size);
    }
}

/* struct_size is not changed, so that a program may ask again. What a later release has beyond
 * today's fields becomes 0, and what lies behind the struct stays. */
static void results_are_filled_as_far_as_the_program_has_room(void **state) {
    const tail_case *entry = *state;
    for (size_t size = entry->first_bytes; size <= entry->known_bytes + TAIL_BYTES; ++size) {
        refusal_assert_ok(entry->function, fill(entry, size));
        assert_int_equal(given.struct_size, size);
        const size_t filled = size < entry->known_bytes ? size : entry->known_bytes;
        for (size_t at = filled; at < size; ++at) {
            assert_int_equal(given.bytes[at], 0);
        }
        refusal_assert_untouched(entry->name, given.bytes + size, sizeof given.bytes - size);
        /* No field of a result is made of canaries alone. */
        for (size_t at = sizeof size; at + sizeof(int32_t) <= filled; at += sizeof(int32_t)) {
            static const unsigned char canaries[sizeof(int32_t)] = {REFUSAL_CANARY, REFUSAL_CANARY,
                                                                    REFUSAL_CANARY, REFUSAL_CANARY};
            assert_memory_not_equal(given.bytes + at, canaries, sizeof canaries);
        }
    }
}

/* ---- the tests ---- */

/* A test's name says function, struct and condition. */
static void add(refusal_suite *suite, const tail_case *entry, const char *condition,
                CMUnitTestFunction run) {
    static char names[REFUSAL_MAX_TESTS][128];
    char *name = names[suite->count];
    snprintf(name, sizeof names[0], "%s_%s_%s", entry->function, entry->name, condition);
    refusal_suite_add(suite, name, run, entry);
}

int main(void) {
    static refusal_suite suite;
    mha_layer_create(&layer, NULL);
    sdpa_fixture_prepare(&sources, NULL);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
        add(&suite, &options[i], "too_small_is_refused",
            options_smaller_than_the_first_release_are_refused);
        add(&suite, &options[i], "older_has_defaults",
            options_of_an_older_release_have_defaults_for_the_rest);
        add(&suite, &options[i], "newer_with_zeroes_is_accepted",
            options_of_a_newer_release_with_a_zero_tail_are_accepted);
        add(&suite, &options[i], "newer_in_use_is_refused",
            options_of_a_newer_release_that_are_used_are_refused);
    }
    for (size_t i = 0; i < sizeof results / sizeof results[0]; ++i) {
        add(&suite, &results[i], "too_small_is_refused",
            results_smaller_than_the_first_release_are_refused);
        add(&suite, &results[i], "is_filled_as_far_as_it_goes",
            results_are_filled_as_far_as_the_program_has_room);
    }
    const int failed = refusal_suite_run(&suite, "struct_tails");
    attn_mha_destroy(layer.layer);
    return failed;
}
