/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_refusal.c: runs entries of the error tables of attn_mha_forward and attn_mha_workspace_bytes.
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
    if (entry->with_attention) {
        fixture->options.attention = &fixture->attention;
    }
    for (int i = 0; i < 2; ++i) {
        if (entry->links[i] != 0) {
            mha_fixture_link(fixture, entry->links[i]);
        }
    }
    for (int i = 0; i < MHA_MAX_SPOILS; ++i) {
        const refusal_spoil *spoil = &entry->spoils[i];
        refusal_spoil_view(fixture->views, spoil);
        if (spoil->fault == REFUSAL_NO_TENSOR) {
            fixture->arguments[spoil->tensor] = NULL;
        } else if (spoil->fault != REFUSAL_NO_FAULT && spoil->tensor >= MHA_ARGUMENTS) {
            mha_fixture_link(fixture, spoil->tensor);
        }
    }
}

static void assert_query(mha_fixture *fixture, const mha_refusal *entry) {
    size_t bytes = 77;
    const attn_status status = mha_fixture_workspace_bytes(fixture, &bytes);
    if (entry->call_only || entry->status == ATTN_OK) {
        refusal_assert_ok("attn_mha_workspace_bytes", status);
    } else {
        refusal_assert("attn_mha_workspace_bytes", status, entry->status, entry->line);
        assert_int_equal(bytes, 77);
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
    assert_query(&fixture, entry);
    mha_refusal_assert_usable();
}

static void test_acceptance(void **state) {
    const mha_refusal *entry = *state;
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, mha_refusal_context, &mha_refusal_layer);
    apply(entry, &fixture);
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
    assert_query(&fixture, entry);
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
