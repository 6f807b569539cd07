/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kv_refusal.c: runs entries of the error tables of attn_sdpa with kv.
 */
#include "kv_refusal.h"

#include <string.h>

static attn_context *context;

static void apply(const kv_refusal *entry, kv_fixture *fixture) {
    fixture->options = entry->options;
    fixture->options.struct_size = sizeof fixture->options;
    fixture->kv_size = entry->kv_size;
    for (int i = 0; i < KV_MAX_LINKS; ++i) {
        if (entry->links[i] != 0) {
            fixture->arguments[entry->links[i]] = &fixture->views[entry->links[i]];
        }
    }
    for (int i = 0; i < KV_MAX_SPOILS; ++i) {
        const refusal_spoil *spoil = &entry->spoils[i];
        refusal_spoil_view(fixture->views, spoil);
        if (spoil->fault != REFUSAL_NO_FAULT) {
            fixture->arguments[spoil->tensor] =
                spoil->fault == REFUSAL_NO_TENSOR ? NULL : &fixture->views[spoil->tensor];
        }
    }
}

/* Whether it is about an output, which attn_sdpa_describe_outputs is not given. */
static bool is_about_output(const char *line) {
    return refusal_line_names(line, "output") || refusal_line_names(line, "lse") ||
           refusal_line_names(line, "weights");
}

static void assert_query(const char *call, attn_status status, const kv_refusal *entry,
                         bool succeeds) {
    if (succeeds || entry->call_only || entry->status == ATTN_OK) {
        refusal_assert_ok(call, status);
    } else {
        refusal_assert(call, status, entry->status, entry->line);
    }
}

static void assert_queries(kv_fixture *fixture, const kv_refusal *entry) {
    size_t bytes = 77;
    attn_status status = kv_fixture_workspace_bytes(fixture, &bytes);
    assert_query("attn_sdpa_workspace_bytes", status, entry, false);
    if (status != ATTN_OK) {
        assert_int_equal(bytes, 77);
    }
    attn_sdpa_report report;
    refusal_fill(&report, sizeof report);
    report.struct_size = sizeof report;
    status = kv_fixture_explain(fixture, &report);
    assert_query("attn_sdpa_explain", status, entry, false);
    if (status != ATTN_OK) {
        refusal_assert_untouched("report", &report.engine,
                                 sizeof report - offsetof(attn_sdpa_report, engine));
    }
    attn_sdpa_outputs outputs;
    refusal_fill(&outputs, sizeof outputs);
    outputs.struct_size = sizeof outputs;
    status = kv_fixture_describe_outputs(fixture, &outputs);
    assert_query("attn_sdpa_describe_outputs", status, entry,
                 entry->status != ATTN_OK && is_about_output(entry->line));
    if (status != ATTN_OK) {
        refusal_assert_untouched("outputs", &outputs.output,
                                 sizeof outputs - offsetof(attn_sdpa_outputs, output));
    }
}

static void test_refusal(void **state) {
    const kv_refusal *entry = *state;
    kv_fixture fixture;
    kv_fixture_prepare(&fixture, context, entry->kind, entry->is_ragged);
    apply(entry, &fixture);
    const kv_memory before = fixture.memory;
    refusal_assert("attn_sdpa", kv_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_queries(&fixture, entry);
    kv_fixture_prepare(&fixture, context, entry->kind, entry->is_ragged);
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    kv_fixture_assert_values(&fixture);
}

static void test_acceptance(void **state) {
    const kv_refusal *entry = *state;
    kv_fixture fixture;
    kv_fixture_prepare(&fixture, context, entry->kind, entry->is_ragged);
    apply(entry, &fixture);
    refusal_assert_ok("attn_sdpa", kv_fixture_run(&fixture));
    kv_fixture_assert_values(&fixture);
    assert_queries(&fixture, entry);
}

void kv_refusal_add(refusal_suite *suite, const kv_refusal *table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        refusal_suite_add(suite, table[i].name,
                          table[i].status == ATTN_OK ? test_acceptance : test_refusal, &table[i]);
    }
}

int kv_refusal_main(const refusal_suite *suite, const char *name) {
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    if (attn_context_create(&config, &context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    const int failures = refusal_suite_run(suite, name);
    attn_context_destroy(context);
    return failures;
}
