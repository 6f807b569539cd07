/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_refusal.c: runs entries of the error tables of attn_sdpa_backward and its queries.
 */
#include "backward_refusal.h"

#include <string.h>

attn_context *backward_refusal_context;

static void apply(const backward_refusal *entry, backward_fixture *fixture) {
    fixture->call.options = entry->params;
    fixture->call.options.struct_size = sizeof fixture->call.options;
    backward_fixture_link(fixture, SDPA_LSE);
    fixture->options.accumulate = entry->accumulate;
    fixture->options.reserved = entry->reserved;
    for (int i = 0; i < BACKWARD_MAX_LINKS; ++i) {
        if (entry->links[i] != 0) {
            backward_fixture_link(fixture, entry->links[i]);
        }
    }
    for (int i = 0; i < BACKWARD_MAX_SPOILS; ++i) {
        const refusal_spoil *spoil = &entry->spoils[i];
        refusal_spoil_view(fixture->views, spoil);
        if (spoil->fault == REFUSAL_NO_TENSOR) {
            backward_fixture_drop(fixture, spoil->tensor);
        } else if (spoil->fault != REFUSAL_NO_FAULT && spoil->tensor >= SDPA_TENSORS) {
            backward_fixture_link(fixture, spoil->tensor);
        }
    }
}

static void assert_query(const char *call, attn_status status, const backward_refusal *entry) {
    if (entry->call_only) {
        refusal_assert_ok(call, status);
    } else {
        refusal_assert(call, status, entry->status, entry->line);
    }
}

static void assert_queries(backward_fixture *fixture, const backward_refusal *entry) {
    size_t bytes = 77;
    attn_status status = backward_fixture_workspace_bytes(fixture, &bytes);
    assert_query("attn_sdpa_backward_workspace_bytes", status, entry);
    if (status != ATTN_OK) {
        assert_int_equal(bytes, 77);
    }
    attn_sdpa_backward_report report;
    refusal_fill(&report, sizeof report);
    report.struct_size = sizeof report;
    status = backward_fixture_explain(fixture, &report);
    assert_query("attn_sdpa_backward_explain", status, entry);
    if (status != ATTN_OK) {
        refusal_assert_untouched("report", &report.whole_heads,
                                 sizeof report - offsetof(attn_sdpa_backward_report, whole_heads));
    }
}

void backward_refusal_assert_usable(void) {
    static backward_fixture fixture;
    backward_fixture_prepare(&fixture, backward_refusal_context);
    refusal_assert_ok("attn_sdpa_backward", backward_fixture_run(&fixture));
    backward_fixture_assert_values(&fixture);
}

static void test_refusal(void **state) {
    const backward_refusal *entry = *state;
    static backward_fixture fixture;
    backward_fixture_prepare(&fixture, backward_refusal_context);
    apply(entry, &fixture);
    const sdpa_memory call_before = fixture.call.memory;
    const backward_memory before = fixture.memory;
    refusal_assert("attn_sdpa_backward", backward_fixture_run(&fixture), entry->status,
                   entry->line);
    assert_memory_equal(&fixture.call.memory, &call_before, sizeof call_before);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_queries(&fixture, entry);
    backward_refusal_assert_usable();
}

void backward_refusal_add(refusal_suite *suite, const backward_refusal *table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        refusal_suite_add(suite, table[i].name, test_refusal, &table[i]);
    }
}

int backward_refusal_main(const refusal_suite *suite, const char *name) {
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 2};
    if (attn_context_create(&params, &backward_refusal_context) != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        return 1;
    }
    const int failures = refusal_suite_run(suite, name);
    attn_context_destroy(backward_refusal_context);
    return failures;
}
