/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call.h: one contestant: a call of the library with all it needs, ready to be made again and
 * again.
 */
#ifndef ATTN_BENCH_CALL_H
#define ATTN_BENCH_CALL_H

#include <stddef.h>
#include <stdint.h>

#include <attention/attention.h>

#include "bench_options.h"
#include "bench_tensor.h"

enum bench_role {
    ROLE_QUERY,
    ROLE_KEY,
    ROLE_VALUE,
    ROLE_OUTPUT,
    ROLE_MASK,
    ROLE_BIAS,
    ROLE_BLOCK_MASK,
    ROLE_QUERY_OFFSET,
    ROLE_KEY_LENGTHS,
    ROLE_SLOPES,
    ROLE_SINKS,
    ROLE_LSE,
    ROLE_WEIGHTS,
    ROLE_PAGE_TABLE,
    ROLE_QUERY_STARTS,
    ROLE_GRADIENT, /* backward: of output, then of query, key and value */
    ROLE_OF_QUERY,
    ROLE_OF_KEY,
    ROLE_OF_VALUE,
    ROLE_COUNT
};

/* The most parameters a layer of this program has: in_proj_weight or three, in_proj_bias,
 * out_proj.weight and out_proj.bias. */
enum { BENCH_PARAMETERS_MAX = 8 };

typedef struct bench_call {
    bench_options options; /* complete */
    attn_context *context;
    attn_context_info info;
    int blas_threads; /* what BLAS made of those asked for; 0: unknown */

    bench_tensor tensors[ROLE_COUNT];   /* those the options need */
    attn_kv kv;                         /* of keys in pages */
    attn_sdpa_params params;            /* in multi-head: of the attention inside */
    attn_sdpa_report report;            /* filled by every forward call */
    attn_sdpa_gradients gradients;      /* backward */
    attn_sdpa_backward_report backward; /* what its calls run */

    attn_mha *layer; /* multi-head */
    attn_mha_params mha_params;
    bench_tensor bound[BENCH_PARAMETERS_MAX];
    attn_mha_gradients mha_gradients; /* backward */
    bench_tensor of_parameters[BENCH_PARAMETERS_MAX];
    attn_tensor views_of_parameters[BENCH_PARAMETERS_MAX];

    void *workspace; /* NULL: the library allocates */
    size_t workspace_bytes;
} bench_call;

/* Makes the context, tensors, layer and workspace that `options`, complete, ask for. Returns an
 * exit code, after an error line. bench_call_free is due in either case. */
int bench_call_make(bench_call *call, const bench_options *options);

void bench_call_free(bench_call *call);

/* The call that is measured. */
attn_status bench_call_run(bench_call *call);

/* Bytes of inputs, outputs and parameters; the workspace is not among them. */
int64_t bench_call_tensor_bytes(const bench_call *call);

/* ---- for the files of bench_call alone ---- */

/* Makes the tensor of a role; and fills it with random numbers, a float tensor. */
int bench_make_tensor(bench_call *call, int role, int32_t dtype, int32_t rank,
                      const int64_t *shape);
int bench_make_filled(bench_call *call, int role, int32_t dtype, int32_t rank,
                      const int64_t *shape);

/* Makes masks and bias, as far as the options ask for them. */
int bench_masks_make(bench_call *call);

/* Makes the layer of bench_call_mha.c, and asks for the workspace of its forward call. */
int bench_layer_make(bench_call *call);
attn_status bench_layer_workspace_bytes(const bench_call *call, size_t *bytes);
attn_status bench_layer_run(const bench_call *call);

/* What a layer's keys and values are projected from. */
const attn_tensor *bench_layer_source_of(const bench_call *call);

/* Makes the gradients of bench_call_mha_backward.c, once the layer is there, and its forward call;
 * asks for the workspace; runs; frees. */
int bench_layer_backward_make(bench_call *call);
attn_status bench_layer_backward_workspace_bytes(const bench_call *call, size_t *bytes);
attn_status bench_layer_backward_run(const bench_call *call);
void bench_layer_backward_free(bench_call *call);

/* Makes the gradients of bench_call_backward.c, once the forward call can be made, and makes that;
 * asks for the workspace; runs. */
int bench_backward_make(bench_call *call);
attn_status bench_backward_workspace_bytes(const bench_call *call, size_t *bytes);
attn_status bench_backward_run(const bench_call *call);

/* Key or value beside kv, which has its own. */
const attn_tensor *bench_source_of(const bench_call *call, int role);

/* Makes the table of the pages that keys and values lie in, or the starts of query rows. */
int bench_pages_make(bench_call *call);
int bench_query_starts_make(bench_call *call);

#endif
