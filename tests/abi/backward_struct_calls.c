/* SPDX-License-Identifier: BSD-3-Clause
 *
 * backward_struct_calls.c: one valid call, and what each struct of it is replaced with.
 */
#include "backward_struct_calls.h"

#include "errors/backward_fixture.h"

static backward_fixture valid;

const attn_sdpa_gradients valid_gradients = {.struct_size = sizeof valid_gradients,
                                             .output = &valid.views[BACKWARD_OF_OUTPUT],
                                             .query = &valid.views[BACKWARD_OF_QUERY],
                                             .key = &valid.views[BACKWARD_OF_KEY],
                                             .value = &valid.views[BACKWARD_OF_VALUE]};

const attn_sdpa_params valid_backward_params = {.struct_size = sizeof valid_backward_params,
                                                .lse = &valid.views[SDPA_LSE]};

const attn_kv valid_backward_kv = {.struct_size = sizeof valid_backward_kv,
                                   .key = &valid.views[SDPA_KEY],
                                   .value = &valid.views[SDPA_VALUE]};

void backward_struct_calls_create(void) {
    backward_fixture_prepare(&valid, NULL);
}

/* The valid call, made anew. */
static backward_fixture *prepare(void) {
    backward_struct_calls_create();
    return &valid;
}

static attn_status run(backward_fixture *fixture) {
    const attn_status status = backward_fixture_run(fixture);
    if (status == ATTN_OK) {
        backward_fixture_assert_values(fixture);
    }
    return status;
}

static attn_status ask_bytes(backward_fixture *fixture) {
    size_t bytes;
    return backward_fixture_workspace_bytes(fixture, &bytes);
}

static attn_status ask_report(backward_fixture *fixture) {
    attn_sdpa_backward_report report = {.struct_size = sizeof report};
    return backward_fixture_explain(fixture, &report);
}

static backward_fixture *with_gradients(const void *gradients) {
    backward_fixture *fixture = prepare();
    fixture->gradients = gradients;
    return fixture;
}

static backward_fixture *with_params(const void *params) {
    backward_fixture *fixture = prepare();
    fixture->call.params = params;
    return fixture;
}

attn_status call_backward_gradients(void *gradients) {
    return run(with_gradients(gradients));
}

attn_status call_backward_workspace_bytes_gradients(void *gradients) {
    return ask_bytes(with_gradients(gradients));
}

attn_status call_backward_explain_gradients(void *gradients) {
    return ask_report(with_gradients(gradients));
}

attn_status call_backward_params(void *params) {
    return run(with_params(params));
}

attn_status call_backward_workspace_bytes_params(void *params) {
    return ask_bytes(with_params(params));
}

attn_status call_backward_explain_params(void *params) {
    return ask_report(with_params(params));
}

attn_status call_backward_kv(void *kv) {
    backward_fixture *fixture = prepare();
    backward_fixture_drop(fixture, SDPA_KEY);
    backward_fixture_drop(fixture, SDPA_VALUE);
    fixture->call.options.kv = kv;
    return run(fixture);
}

attn_status call_backward_report(void *report) {
    return backward_fixture_explain(prepare(), report);
}
