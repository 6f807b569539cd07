/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_refusal.c: runs entries of the error tables of attn_sdpa and its queries.
 */
#include "sdpa_refusal.h"

#include <string.h>

attn_context *sdpa_refusal_context;

static void apply(const sdpa_refusal *entry, sdpa_fixture *fixture) {
    fixture->options = entry->params;
    if (entry->params.struct_size == 0) {
        fixture->options.struct_size = sizeof fixture->options;
    }
    for (int i = 0; i < 2; ++i) {
        if (entry->links[i] != 0) {
            sdpa_fixture_link(fixture, entry->links[i]);
        }
    }
    for (int i = 0; i < SDPA_MAX_SPOILS; ++i) {
        const refusal_spoil *spoil = &entry->spoils[i];
        refusal_spoil_view(fixture->views, spoil);
        if (spoil->fault == REFUSAL_NO_TENSOR) {
            fixture->arguments[spoil->tensor] = NULL;
        } else if (spoil->fault != REFUSAL_NO_FAULT && spoil->tensor >= SDPA_ARGUMENTS) {
            sdpa_fixture_link(fixture, spoil->tensor);
        }
    }
}

/* Whether it is about an output, which attn_sdpa_describe_outputs is not given. */
static bool is_about_output(const char *line) {
    return refusal_line_names(line, "output") || refusal_line_names(line, "lse") ||
           refusal_line_names(line, "weights") || refusal_line_names(line, "scores");
}

static void assert_query(const char *call, attn_status status, const sdpa_refusal *entry,
                         bool succeeds) {
    if (succeeds || entry->call_only || entry->status == ATTN_OK) {
        refusal_assert_ok(call, status);
    } else {
        refusal_assert(call, status, entry->status, entry->line);
    }
}

static void assert_queries(sdpa_fixture *fixture, const sdpa_refusal *entry) {
    size_t bytes = 77;
    attn_status status = sdpa_fixture_workspace_bytes(fixture, &bytes);
    assert_query("attn_sdpa_workspace_bytes", status, entry, false);
    if (status != ATTN_OK) {
        assert_int_equal(bytes, 77);
    }
    attn_sdpa_report report;
    refusal_fill(&report, sizeof report);
    report.struct_size = sizeof report;
    status = sdpa_fixture_explain(fixture, &report);
    assert_query("attn_sdpa_explain", status, entry, false);
    if (status != ATTN_OK) {
        refusal_assert_untouched("report", &report.engine,
                                 sizeof report - offsetof(attn_sdpa_report, engine));
    }
    attn_sdpa_outputs outputs;
    refusal_fill(&outputs, sizeof outputs);
    outputs.struct_size = sizeof outputs;
    status = sdpa_fixture_describe_outputs(fixture, &outputs);
    assert_query("attn_sdpa_describe_outputs", status, entry,
                 entry->status != ATTN_OK && is_about_output(entry->line));
    if (status != ATTN_OK) {
        refusal_assert_untouched("outputs", &outputs.output,
                                 sizeof outputs - offsetof(attn_sdpa_outputs, output));
    }
}

void sdpa_refusal_assert_usable(void) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
}

static void test_refusal(void **state) {
    const sdpa_refusal *entry = *state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    apply(entry, &fixture);
    sdpa_memory before;
    memcpy(&before, &fixture.memory, sizeof before);
    refusal_assert("attn_sdpa", sdpa_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_queries(&fixture, entry);
    sdpa_refusal_assert_usable();
}

static void test_acceptance(void **state) {
    const sdpa_refusal *entry = *state;
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, sdpa_refusal_context);
    apply(entry, &fixture);
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
    assert_queries(&fixture, entry);
}

void sdpa_refusal_add(refusal_suite *suite, const sdpa_refusal *table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        refusal_suite_add(suite, table[i].name,
                          table[i].status == ATTN_OK ? test_acceptance : test_refusal, &table[i]);
    }
}

int sdpa_refusal_main(const refusal_suite *suite, const char *name) {
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 2};
    if (attn_context_create(&params, &sdpa_refusal_context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    const int failures = refusal_suite_run(suite, name);
    attn_context_destroy(sdpa_refusal_context);
    return failures;
}
