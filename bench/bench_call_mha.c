/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call_mha.c: a multi-head layer and its forward call.
 */
#include "bench_call.h"

#include "program_exit.h"

static int create_layer(bench_call *call) {
    const bench_options *o = &call->options;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = o->embed_dim.value,
                                    .num_heads = o->heads.value,
                                    .num_kv_heads = o->kv_heads.value,
                                    .head_dim = o->head_dim.value,
                                    .value_head_dim = o->value_dim.value,
                                    .dtype = bench_element_dtype(o),
                                    .batch_first = !o->is_sequence_first,
                                    .parameter_dtype = bench_parameter_dtype(o)};
    int status = attn_mha_create(call->context, &config, &call->layer);
    if (status == ATTN_OK) {
        const attn_mha_init_params init = {.struct_size = sizeof init,
                                           .seed = (uint64_t)o->seed.value};
        status = attn_mha_init_parameters(NULL, call->layer, &init);
    }
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("layer", status);
}

/* Copies a parameter out of the layer and gives the copy back as the caller's memory. */
static int bind_parameter(bench_call *call, int64_t index, bench_tensor *copy) {
    const char *name = NULL;
    attn_tensor shape;
    int status = attn_mha_parameter_describe(call->layer, index, &name, &shape);
    if (status != ATTN_OK) {
        return program_fail_library("layer", status);
    }
    const int exit_code = bench_tensor_make(copy, name, shape.dtype, shape.rank, shape.shape);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    status = attn_mha_read_parameter(NULL, call->layer, name, &copy->view);
    if (status == ATTN_OK) {
        status = attn_mha_bind_parameter(call->layer, name, &copy->view);
    }
    return status == ATTN_OK ? EXIT_DONE : program_fail_library(name, status);
}

static int bind_parameters(bench_call *call) {
    int64_t count = 0;
    const int status = attn_mha_parameter_count(call->layer, &count);
    if (status != ATTN_OK) {
        return program_fail_library("layer", status);
    }
    int exit_code = EXIT_DONE;
    for (int64_t i = 0; i < count && i < BENCH_PARAMETERS_MAX && exit_code == EXIT_DONE; i++) {
        exit_code = bind_parameter(call, i, &call->bound[i]);
    }
    return exit_code;
}

static void set_layer_params(bench_call *call) {
    const bench_options *o = &call->options;
    attn_mha_params *params = &call->mha_params;
    *params = (attn_mha_params){
        .struct_size = sizeof *params,
        .attention = &call->params,
    };
    const int32_t kind = o->mask == BENCH_MASK_BOOL ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_ADDITIVE;
    if (o->mask != BENCH_MASK_NONE && o->mask_shape == BENCH_MASK_KEYS) {
        params->key_padding_mask = &call->tensors[ROLE_MASK].view;
        params->key_padding_mask_kind = kind;
    } else if (o->mask != BENCH_MASK_NONE) {
        call->params.mask = &call->tensors[ROLE_MASK].view;
        call->params.mask_kind = kind;
    }
}

int bench_layer_make(bench_call *call) {
    set_layer_params(call);
    const int exit_code = create_layer(call);
    return exit_code == EXIT_DONE && call->options.is_bound ? bind_parameters(call) : exit_code;
}

const attn_tensor *bench_layer_source_of(const bench_call *call) {
    return &call->tensors[call->options.keys.given ? ROLE_KEY : ROLE_QUERY].view;
}

attn_status bench_layer_workspace_bytes(const bench_call *call, size_t *bytes) {
    const attn_tensor *source = bench_layer_source_of(call);
    return attn_mha_workspace_bytes(call->context, call->layer, &call->tensors[ROLE_QUERY].view,
                                    source, source, &call->mha_params,
                                    &call->tensors[ROLE_OUTPUT].view, bytes);
}

attn_status bench_layer_run(const bench_call *call) {
    const attn_tensor *source = bench_layer_source_of(call);
    return attn_mha_forward(call->context, call->layer, &call->tensors[ROLE_QUERY].view, source,
                            source, &call->mha_params, &call->tensors[ROLE_OUTPUT].view,
                            call->workspace, call->workspace_bytes);
}
