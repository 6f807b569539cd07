/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_refusal.c: runs entries of the error tables of attn_mha_forward and its queries.
 */
#include "mha_refusal.h"

#include <string.h>

attn_context *mha_refusal_context;
mha_layer mha_refusal_layer;

static void apply(const mha_refusal *entry, mha_fixture *fixture) {
    fixture->options = entry->params;
    fixture->attention = entry->attention;
    fixture->options.struct_size =
        entry->params.struct_size != 0 ? entry->params.struct_size : sizeof fixture->options;
    fixture->attention.struct_size = entry->attention.struct_size != 0
                                         ? entry->attention.struct_size
                                         : sizeof fixture->attention;
    fixture->options.attention = &fixture->attention;
    if (entry->cache != MHA_NO_CACHE) {
        mha_fixture_cache(fixture, entry->cache);
    }
    if (entry->cache_size != 0) {
        fixture->cache.struct_size = entry->cache_size;
    }
    fixture->rope = entry->rope;
    fixture->rope.struct_size =
        entry->rope.struct_size != 0 ? entry->rope.struct_size : sizeof fixture->rope;
    fixture->options.rope = entry->is_rotated ? &fixture->rope : NULL;
    if (entry->is_ragged) {
        mha_fixture_ragged(fixture);
    }
    for (int i = 0; i < 2; ++i) {
        if (entry->links[i] != 0) {
            mha_fixture_link(fixture, entry->links[i]);
        }
    }
    for (int i = 0; i < MHA_MAX_SPOILS; ++i) {
        const refusal_spoil *spoil = &entry->spoils[i];
        refusal_spoil_view(fixture->views, spoil);
        if (spoil->fault == REFUSAL_NO_TENSOR && spoil->tensor < MHA_ARGUMENTS) {
            fixture->arguments[spoil->tensor] = NULL;
        } else if (spoil->fault == REFUSAL_NO_TENSOR) {
            mha_fixture_unlink(fixture, spoil->tensor);
        } else if (spoil->fault != REFUSAL_NO_FAULT && spoil->tensor >= MHA_ARGUMENTS) {
            mha_fixture_link(fixture, spoil->tensor);
        }
    }
}

/* Whether it is about an output, which attn_mha_describe_outputs is not given. */
static bool is_about_output(const char *line) {
    return refusal_line_names(line, "output") || refusal_line_names(line, "attention.lse") ||
           refusal_line_names(line, "attention.weights") ||
           refusal_line_names(line, "attention.scores");
}

static void assert_query(const char *call, attn_status status, const mha_refusal *entry,
                         bool succeeds) {
    if (succeeds || entry->call_only || entry->status == ATTN_OK) {
        refusal_assert_ok(call, status);
    } else {
        refusal_assert(call, status, entry->status, entry->line);
    }
}

static void assert_queries(mha_fixture *fixture, const mha_refusal *entry) {
    size_t bytes = 77;
    attn_status status = mha_fixture_workspace_bytes(fixture, &bytes);
    assert_query("attn_mha_workspace_bytes", status, entry, false);
    if (status != ATTN_OK) {
        assert_int_equal(bytes, 77);
    }
    attn_mha_report report;
    attn_sdpa_report attention;
    refusal_fill(&report, sizeof report);
    refusal_fill(&attention, sizeof attention);
    report.struct_size = sizeof report;
    report.attention = &attention;
    attention.struct_size = sizeof attention;
    const attn_mha_report before = report;
    status = mha_fixture_explain(fixture, &report);
    assert_query("attn_mha_explain", status, entry, false);
    if (status != ATTN_OK) {
        assert_memory_equal(&report, &before, sizeof report);
        refusal_assert_untouched("report.attention", &attention.engine,
                                 sizeof attention - offsetof(attn_sdpa_report, engine));
    }
    attn_mha_outputs outputs;
    refusal_fill(&outputs, sizeof outputs);
    outputs.struct_size = sizeof outputs;
    status = mha_fixture_describe_outputs(fixture, &outputs);
    assert_query("attn_mha_describe_outputs", status, entry,
                 entry->status != ATTN_OK && is_about_output(entry->line));
    if (status != ATTN_OK) {
        refusal_assert_untouched("outputs", &outputs.output,
                                 sizeof outputs - offsetof(attn_mha_outputs, output));
    }
}

void mha_refusal_assert_usable(void) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
}

static void test_refusal(void **state) {
    const mha_refusal *entry = *state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    apply(entry, &fixture);
    mha_memory before;
    mha_parameters parameters_before;
    memcpy(&before, &fixture.memory, sizeof before);
    memcpy(&parameters_before, &mha_refusal_layer.parameters, sizeof parameters_before);
    refusal_assert("attn_mha_forward", mha_fixture_run(&fixture), entry->status, entry->line);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_memory_equal(&mha_refusal_layer.parameters, &parameters_before,
                        sizeof parameters_before);
    assert_queries(&fixture, entry);
    mha_refusal_assert_usable();
}

static void test_acceptance(void **state) {
    const mha_refusal *entry = *state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    apply(entry, &fixture);
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
    assert_queries(&fixture, entry);
}

void mha_refusal_add(refusal_suite *suite, const mha_refusal *table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        refusal_suite_add(suite, table[i].name,
                          table[i].status == ATTN_OK ? test_acceptance : test_refusal, &table[i]);
    }
}

static int make_context_and_layer(void **state) {
    (void)state;
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 2};
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &mha_refusal_context));
    mha_layer_create(&mha_refusal_layer, mha_refusal_context);
    return 0;
}

static int free_context_and_layer(void **state) {
    (void)state;
    attn_mha_destroy(mha_refusal_layer.layer);
    attn_context_destroy(mha_refusal_context);
    return 0;
}

int mha_refusal_main(const refusal_suite *suite, const char *name) {
    return _cmocka_run_group_tests(name, suite->tests, suite->count, make_context_and_layer,
                                   free_context_and_layer);
}
