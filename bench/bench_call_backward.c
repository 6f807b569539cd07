/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call_backward.c: the gradients of a call, whose forward pass is done once.
 */
#include "bench_call.h"
#include "program_exit.h"

/* A tensor like that of a role, in its layout. */
static int make_like(bench_call *call, int role, int like, const char *name) {
    const attn_tensor *view = &call->tensors[like].view;
    bench_tensor *made = &call->tensors[role];
    const int exit_code = bench_tensor_make(made, name, view->dtype, view->rank, view->shape);
    if (exit_code == EXIT_DONE && call->options.layout == BENCH_LAYOUT_BSHD) {
        for (int32_t axis = 0; axis < view->rank; axis++) {
            made->view.strides[axis] = view->strides[axis];
        }
    }
    return exit_code;
}

int bench_backward_make(bench_call *call) {
    const bench_tensor *tensors = call->tensors;
    int exit_code = make_like(call, ROLE_GRADIENT, ROLE_OUTPUT, "gradients.output");
    if (exit_code == EXIT_DONE) {
        exit_code = make_like(call, ROLE_OF_QUERY, ROLE_QUERY, "gradients.query");
    }
    if (exit_code == EXIT_DONE) {
        exit_code = make_like(call, ROLE_OF_KEY, ROLE_KEY, "gradients.key");
    }
    if (exit_code == EXIT_DONE) {
        exit_code = make_like(call, ROLE_OF_VALUE, ROLE_VALUE, "gradients.value");
    }
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    bench_tensor_fill(&call->tensors[ROLE_GRADIENT],
                      (uint64_t)call->options.seed.value * ROLE_COUNT + ROLE_GRADIENT);
    const int has_pages = call->params.kv != NULL; /* which have no gradients */
    call->gradients = (attn_sdpa_gradients){
        .struct_size = sizeof call->gradients,
        .output = &tensors[ROLE_GRADIENT].view,
        .query = &tensors[ROLE_OF_QUERY].view,
        .key = has_pages ? NULL : &tensors[ROLE_OF_KEY].view,
        .value = has_pages ? NULL : &tensors[ROLE_OF_VALUE].view,
    };
    const attn_tensor *key = bench_source_of(call, ROLE_KEY);
    const attn_tensor *value = bench_source_of(call, ROLE_VALUE);
    const attn_tensor *query = &tensors[ROLE_QUERY].view, *output = &tensors[ROLE_OUTPUT].view;
    int status = attn_sdpa(call->context, query, key, value, &call->params, output, NULL, 0);
    if (status != ATTN_OK) {
        return program_fail_library("attn_sdpa", status);
    }
    call->backward = (attn_sdpa_backward_report){.struct_size = sizeof call->backward};
    status = attn_sdpa_backward_explain(call->context, query, key, value, &call->params, output,
                                        &call->gradients, &call->backward);
    return status == ATTN_OK ? EXIT_DONE
                             : program_fail_library("attn_sdpa_backward_explain", status);
}

attn_status bench_backward_workspace_bytes(const bench_call *call, size_t *bytes) {
    const bench_tensor *tensors = call->tensors;
    return attn_sdpa_backward_workspace_bytes(call->context, &tensors[ROLE_QUERY].view,
                                              bench_source_of(call, ROLE_KEY),
                                              bench_source_of(call, ROLE_VALUE), &call->params,
                                              &tensors[ROLE_OUTPUT].view, &call->gradients, bytes);
}

attn_status bench_backward_run(const bench_call *call) {
    const bench_tensor *tensors = call->tensors;
    return attn_sdpa_backward(call->context, &tensors[ROLE_QUERY].view,
                              bench_source_of(call, ROLE_KEY), bench_source_of(call, ROLE_VALUE),
                              &call->params, &tensors[ROLE_OUTPUT].view, &call->gradients,
                              call->workspace, call->workspace_bytes);
}
