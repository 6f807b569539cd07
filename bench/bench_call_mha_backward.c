/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call_mha_backward.c: the gradients of a layer's inputs and of all its parameters, whose
 * forward call is made once and saves what they need.
 */
#include <stdlib.h>

#include "bench_call.h"
#include "program_exit.h"

enum { SAVED_ALIGNMENT = 64 };

/* Where key and value are the query, or one tensor, each has a gradient all the same. */
static int make_gradients_of_inputs(bench_call *call) {
    static const int roles[] = {ROLE_GRADIENT, ROLE_OF_QUERY, ROLE_OF_KEY, ROLE_OF_VALUE};
    const int source = call->options.keys.given ? ROLE_KEY : ROLE_QUERY;
    const int likes[] = {ROLE_OUTPUT, ROLE_QUERY, source, source};
    int exit_code = EXIT_DONE;
    for (int i = 0; i < 4 && exit_code == EXIT_DONE; i++) {
        const attn_tensor *like = &call->tensors[likes[i]].view;
        exit_code = bench_make_filled(call, roles[i], like->dtype, like->rank, like->shape);
    }
    return exit_code;
}

static int make_gradients_of_parameters(bench_call *call) {
    int64_t count = 0;
    int status = attn_mha_parameter_count(call->layer, &count);
    for (int64_t i = 0; status == ATTN_OK && i < count && i < BENCH_PARAMETERS_MAX; i++) {
        const char *name = NULL;
        attn_tensor like;
        status = attn_mha_parameter_describe(call->layer, i, &name, &like);
        bench_tensor *made = &call->of_parameters[i];
        if (status == ATTN_OK &&
            bench_tensor_make(made, name, like.dtype, like.rank, like.shape) != EXIT_DONE) {
            return EXIT_COMPUTATION;
        }
        call->views_of_parameters[i] = made->view;
    }
    call->mha_gradients = (attn_mha_gradients){
        .struct_size = sizeof call->mha_gradients,
        .output = &call->tensors[ROLE_GRADIENT].view,
        .query = &call->tensors[ROLE_OF_QUERY].view,
        .key = &call->tensors[ROLE_OF_KEY].view,
        .value = &call->tensors[ROLE_OF_VALUE].view,
        .parameters = call->views_of_parameters,
        .num_parameters = count,
    };
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("layer", status);
}

/* Makes what the forward call saves into, and that call. */
static int save_forward(bench_call *call) {
    const attn_tensor *source = bench_layer_source_of(call);
    size_t bytes = 0;
    int status = attn_mha_saved_bytes(call->context, call->layer, &call->tensors[ROLE_QUERY].view,
                                      source, source, &call->mha_params, &bytes);
    if (status != ATTN_OK) {
        return program_fail_library("attn_mha_saved_bytes", status);
    }
    call->mha_params.saved =
        aligned_alloc(SAVED_ALIGNMENT, bytes / SAVED_ALIGNMENT * SAVED_ALIGNMENT + SAVED_ALIGNMENT);
    if (call->mha_params.saved == NULL) {
        return program_fail(EXIT_COMPUTATION, "saved: no memory for %zu bytes", bytes);
    }
    call->mha_params.saved_bytes = bytes;
    status = bench_layer_run(call);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("attn_mha_forward", status);
}

int bench_layer_backward_make(bench_call *call) {
    int exit_code = make_gradients_of_inputs(call);
    exit_code = exit_code == EXIT_DONE ? make_gradients_of_parameters(call) : exit_code;
    return exit_code == EXIT_DONE ? save_forward(call) : exit_code;
}

attn_status bench_layer_backward_workspace_bytes(const bench_call *call, size_t *bytes) {
    const attn_tensor *source = bench_layer_source_of(call);
    return attn_mha_backward_workspace_bytes(call->context, call->layer,
                                             &call->tensors[ROLE_QUERY].view, source, source,
                                             &call->mha_params, &call->mha_gradients, bytes);
}

attn_status bench_layer_backward_run(const bench_call *call) {
    const attn_tensor *source = bench_layer_source_of(call);
    return attn_mha_backward(call->context, call->layer, &call->tensors[ROLE_QUERY].view, source,
                             source, &call->mha_params, &call->mha_gradients, call->workspace,
                             call->workspace_bytes);
}

void bench_layer_backward_free(bench_call *call) {
    free(call->mha_params.saved);
    for (int i = 0; i < BENCH_PARAMETERS_MAX; i++) {
        bench_tensor_free(&call->of_parameters[i]);
    }
}
