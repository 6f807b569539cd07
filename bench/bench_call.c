/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_call.c: tensors and options of a call, for attn_sdpa and for the attention inside a layer.
 */
#include "bench_call.h"

#include <math.h>
#include <stdlib.h>

#include "blas_threads.h"
#include "program_exit.h"

static const char *const role_names[ROLE_COUNT] = {"query",
                                                   "key",
                                                   "value",
                                                   "output",
                                                   "mask",
                                                   "bias",
                                                   "block_mask",
                                                   "query_offset",
                                                   "key_lengths",
                                                   "alibi",
                                                   "sinks",
                                                   "lse",
                                                   "weights",
                                                   "page_table",
                                                   "query_starts",
                                                   "gradients.output",
                                                   "gradients.query",
                                                   "gradients.key",
                                                   "gradients.value"};

static int make_context(bench_call *call) {
    const bench_options *o = &call->options;
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = (int32_t)o->threads.value,
                                        .engine = o->engine,
                                        .gemm = o->gemm,
                                        .kernels = o->kernels,
                                        .float32_weights = o->float32_weights};
    int status = attn_context_create(&params, &call->context);
    call->info.struct_size = sizeof call->info;
    status = status == ATTN_OK ? attn_context_describe(call->context, &call->info) : status;
    if (status != ATTN_OK) {
        return program_fail_library("context", status);
    }
    blas_threads_set(o->blas_threads.given ? (int)o->blas_threads.value : call->info.num_threads);
    call->blas_threads = blas_threads_get();
    return EXIT_DONE;
}

int bench_make_tensor(bench_call *call, int role, int32_t dtype, int32_t rank,
                      const int64_t *shape) {
    return bench_tensor_make(&call->tensors[role], role_names[role], dtype, rank, shape);
}

int bench_make_filled(bench_call *call, int role, int32_t dtype, int32_t rank,
                      const int64_t *shape) {
    const int exit_code = bench_make_tensor(call, role, dtype, rank, shape);
    if (exit_code == EXIT_DONE) {
        bench_tensor_fill(&call->tensors[role],
                          (uint64_t)call->options.seed.value * ROLE_COUNT + (uint64_t)role);
    }
    return exit_code;
}

static int32_t score_dtype(const bench_options *o) {
    return bench_element_dtype(o) == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

/* (batch, heads, rows, features) as a view of memory in the layout that was asked for. */
static int make_heads(bench_call *call, int role, int64_t batch, int64_t heads, int64_t rows,
                      int64_t features) {
    const bench_options *o = &call->options;
    const int64_t bhsd[] = {batch, heads, rows, features};
    const int64_t bshd[] = {batch, rows, heads, features};
    const int is_bhsd = o->layout == BENCH_LAYOUT_BHSD;
    const int exit_code =
        bench_make_filled(call, role, bench_element_dtype(o), 4, is_bhsd ? bhsd : bshd);
    if (exit_code != EXIT_DONE || is_bhsd) {
        return exit_code;
    }
    attn_tensor *view = &call->tensors[role].view;
    const int status = attn_tensor_transpose(view, 1, 2, view);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library(role_names[role], status);
}

/* Query or output: those of a ragged call have no batch axis. */
static int make_rows(bench_call *call, int role, int64_t features) {
    const bench_options *o = &call->options;
    const int is_ragged = o->query_lengths.text != NULL;
    attn_tensor *view = &call->tensors[role].view;
    const int exit_code =
        make_heads(call, role, is_ragged ? 1 : o->batch.value, o->heads.value,
                   is_ragged ? bench_all_query_rows(o) : o->queries.value, features);
    if (exit_code != EXIT_DONE || !is_ragged) {
        return exit_code;
    }
    const int status = attn_tensor_select(view, 0, 0, view);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library(role_names[role], status);
}

/* Key or value: of pages, or of sequences. */
static int make_source(bench_call *call, int role, int64_t features) {
    const bench_options *o = &call->options;
    const int64_t pages = o->page.given ? o->keys.value / o->page.value : 1;
    return make_heads(call, role, o->batch.value * pages, o->kv_heads.value, o->keys.value / pages,
                      features);
}

static int make_sdpa_tensors(bench_call *call) {
    const bench_options *o = &call->options;
    int exit_code = make_rows(call, ROLE_QUERY, o->head_dim.value);
    exit_code = exit_code == EXIT_DONE ? make_source(call, ROLE_KEY, o->head_dim.value) : exit_code;
    if (exit_code == EXIT_DONE) {
        exit_code = make_source(call, ROLE_VALUE, o->value_dim.value);
    }
    if (exit_code == EXIT_DONE) {
        exit_code = make_rows(call, ROLE_OUTPUT, o->value_dim.value);
    }
    if (exit_code == EXIT_DONE && o->page.given) {
        exit_code = bench_pages_make(call);
    }
    return exit_code == EXIT_DONE && o->query_lengths.text != NULL ? bench_query_starts_make(call)
                                                                   : exit_code;
}

/* Inputs and output of a layer: (B, rows, E), or (rows, B, E). Without --keys it attends to its
 * query: key and value are that tensor, else key and value are one other tensor. */
static int make_layer_tensors(bench_call *call) {
    const bench_options *o = &call->options;
    const int swaps = o->is_sequence_first;
    const int64_t axes[] = {o->batch.value, o->queries.value};
    const int64_t source_axes[] = {o->batch.value, o->keys.value};
    const int64_t shape[] = {axes[swaps], axes[1 - swaps], o->embed_dim.value};
    const int64_t source[] = {source_axes[swaps], source_axes[1 - swaps], o->embed_dim.value};
    const int32_t dtype = bench_element_dtype(o);
    int exit_code = bench_make_filled(call, ROLE_QUERY, dtype, 3, shape);
    if (exit_code == EXIT_DONE && o->keys.given) {
        exit_code = bench_make_filled(call, ROLE_KEY, dtype, 3, source);
    }
    return exit_code == EXIT_DONE ? bench_make_tensor(call, ROLE_OUTPUT, dtype, 3, shape)
                                  : exit_code;
}

static int make_positions(bench_call *call) {
    const bench_options *o = &call->options;
    int exit_code = EXIT_DONE;
    if (o->query_offset.given) {
        exit_code = bench_make_tensor(call, ROLE_QUERY_OFFSET, ATTN_DTYPE_INT64, 0, NULL);
        if (exit_code == EXIT_DONE) {
            *(int64_t *)call->tensors[ROLE_QUERY_OFFSET].memory = o->query_offset.value;
        }
    }
    if (exit_code == EXIT_DONE && o->key_lengths.text != NULL) {
        exit_code = bench_make_tensor(call, ROLE_KEY_LENGTHS, ATTN_DTYPE_INT64, 1, &o->batch.value);
        int64_t *lengths = call->tensors[ROLE_KEY_LENGTHS].memory;
        for (int64_t i = 0; exit_code == EXIT_DONE && i < o->batch.value; i++) {
            lengths[i] = o->key_lengths.items[i % o->key_lengths.count];
        }
    }
    return exit_code;
}

/* ALiBi's slopes are 2^(-8 (h + 1) / H). */
static int make_head_vectors(bench_call *call) {
    const bench_options *o = &call->options;
    int exit_code = EXIT_DONE;
    if (o->has_alibi) {
        exit_code = bench_make_tensor(call, ROLE_SLOPES, ATTN_DTYPE_FLOAT32, 1, &o->heads.value);
        float *slopes = call->tensors[ROLE_SLOPES].memory;
        for (int64_t h = 0; exit_code == EXIT_DONE && h < o->heads.value; h++) {
            slopes[h] = (float)exp2(-8.0 * (double)(h + 1) / (double)o->heads.value);
        }
    }
    if (exit_code == EXIT_DONE && o->has_sinks) {
        exit_code = bench_make_filled(call, ROLE_SINKS, ATTN_DTYPE_FLOAT32, 1, &o->heads.value);
    }
    return exit_code;
}

static int make_outputs(bench_call *call) {
    const bench_options *o = &call->options;
    const int64_t per_head[] = {o->batch.value, o->heads.value, o->queries.value, o->keys.value};
    const int64_t average[] = {o->batch.value, o->queries.value, o->keys.value};
    int exit_code = EXIT_DONE;
    const int needs_lse =
        o->function == BENCH_SDPA && o->is_backward && o->normalizer == ATTN_NORMALIZER_SOFTMAX;
    if (o->has_lse || needs_lse) {
        exit_code = bench_make_tensor(call, ROLE_LSE, score_dtype(o), 3, per_head);
    }
    if (exit_code == EXIT_DONE && o->weights == BENCH_WEIGHTS_HEADS) {
        exit_code = bench_make_tensor(call, ROLE_WEIGHTS, bench_element_dtype(o), 4, per_head);
    } else if (exit_code == EXIT_DONE && o->weights == BENCH_WEIGHTS_AVERAGE) {
        exit_code = bench_make_tensor(call, ROLE_WEIGHTS, bench_element_dtype(o), 3, average);
    }
    return exit_code;
}

static int make_option_tensors(bench_call *call) {
    int exit_code = bench_masks_make(call);
    exit_code = exit_code == EXIT_DONE ? make_positions(call) : exit_code;
    exit_code = exit_code == EXIT_DONE ? make_head_vectors(call) : exit_code;
    return exit_code == EXIT_DONE ? make_outputs(call) : exit_code;
}

static const attn_tensor *view_of(const bench_call *call, int role) {
    return call->tensors[role].memory == NULL ? NULL : &call->tensors[role].view;
}

/* Keys and values in pages have their lengths there. */
static void set_kv(bench_call *call) {
    call->kv = (attn_kv){.struct_size = sizeof call->kv,
                         .key = view_of(call, ROLE_KEY),
                         .value = view_of(call, ROLE_VALUE),
                         .page_table = view_of(call, ROLE_PAGE_TABLE),
                         .lengths = view_of(call, ROLE_KEY_LENGTHS)};
    call->params.kv = &call->kv;
    call->params.key_lengths = NULL;
}

/* The mask of a layer may be its key_padding_mask: see bench_call_mha.c. */
static void set_params(bench_call *call) {
    const bench_options *o = &call->options;
    const int is_sdpa = o->function == BENCH_SDPA;
    call->report.struct_size = sizeof call->report;
    call->params = (attn_sdpa_params){
        .struct_size = sizeof call->params,
        .scale = o->scale.value,
        .softcap = o->softcap.value,
        .is_causal = o->is_causal,
        .align_end = o->align_end,
        .window_left = o->window[0],
        .window_right = o->window[1],
        .normalizer = o->normalizer,
        .bias = o->bias != BENCH_BIAS_DISTANCES ? view_of(call, ROLE_BIAS) : NULL,
        .position_bias = o->bias == BENCH_BIAS_DISTANCES ? view_of(call, ROLE_BIAS) : NULL,
        .query_offset = view_of(call, ROLE_QUERY_OFFSET),
        .key_lengths = view_of(call, ROLE_KEY_LENGTHS),
        .alibi_slopes = view_of(call, ROLE_SLOPES),
        .sinks = view_of(call, ROLE_SINKS),
        .lse = view_of(call, ROLE_LSE),
        .weights = view_of(call, ROLE_WEIGHTS),
        .block_mask = view_of(call, ROLE_BLOCK_MASK),
        .report = &call->report,
    };
    call->params.set |= o->scale.given ? ATTN_SDPA_SET_SCALE : 0;
    call->params.set |= o->window_text != NULL ? ATTN_SDPA_SET_WINDOW : 0;
    if (o->blocks != BENCH_BLOCKS_NONE) {
        call->params.block_rows = o->block_rows.value;
        call->params.block_columns = o->block_columns.value;
    }
    if (is_sdpa && o->page.given) {
        set_kv(call);
    }
    if (is_sdpa) {
        call->params.query_starts = view_of(call, ROLE_QUERY_STARTS);
        call->params.enable_gqa = o->is_gqa || o->kv_heads.value != o->heads.value;
        call->params.mask = view_of(call, ROLE_MASK);
        call->params.mask_kind = o->mask == BENCH_MASK_NONE   ? ATTN_MASK_NONE
                                 : o->mask == BENCH_MASK_BOOL ? ATTN_MASK_BOOL_INCLUDE
                                                              : ATTN_MASK_ADDITIVE;
    }
}

const attn_tensor *bench_source_of(const bench_call *call, int role) {
    return call->params.kv != NULL ? NULL : &call->tensors[role].view;
}

static attn_status run_sdpa(const bench_call *call) {
    const bench_tensor *tensors = call->tensors;
    return attn_sdpa(call->context, &tensors[ROLE_QUERY].view, bench_source_of(call, ROLE_KEY),
                     bench_source_of(call, ROLE_VALUE), &call->params, &tensors[ROLE_OUTPUT].view,
                     call->workspace, call->workspace_bytes);
}

static attn_status sdpa_workspace_bytes(const bench_call *call, size_t *bytes) {
    const bench_tensor *tensors = call->tensors;
    return attn_sdpa_workspace_bytes(
        call->context, &tensors[ROLE_QUERY].view, bench_source_of(call, ROLE_KEY),
        bench_source_of(call, ROLE_VALUE), &call->params, &tensors[ROLE_OUTPUT].view, bytes);
}

/* The calls that are measured, by function and whether backward. */
static const struct measured {
    int (*make)(bench_call *call); /* what none of the others has; NULL: nothing */
    attn_status (*workspace_bytes)(const bench_call *call, size_t *bytes);
    attn_status (*run)(const bench_call *call);
} calls_measured[][2] = {
    [BENCH_SDPA] = {{NULL, sdpa_workspace_bytes, run_sdpa},
                    {bench_backward_make, bench_backward_workspace_bytes, bench_backward_run}},
    [BENCH_MHA] = {{NULL, bench_layer_workspace_bytes, bench_layer_run},
                   {bench_layer_backward_make, bench_layer_backward_workspace_bytes,
                    bench_layer_backward_run}},
};

static const struct measured *measured_of(const bench_call *call) {
    return &calls_measured[call->options.function][call->options.is_backward != 0];
}

attn_status bench_call_run(bench_call *call) {
    return measured_of(call)->run(call);
}

static int make_workspace(bench_call *call) {
    const int status = measured_of(call)->workspace_bytes(call, &call->workspace_bytes);
    if (status != ATTN_OK) {
        return program_fail_library("workspace", status);
    }
    if (call->options.allocates) {
        return EXIT_DONE;
    }
    call->workspace = aligned_alloc(64, call->workspace_bytes / 64 * 64 + 64);
    return call->workspace != NULL
               ? EXIT_DONE
               : program_fail(EXIT_COMPUTATION, "workspace: no memory for %zu bytes",
                              call->workspace_bytes);
}

int bench_call_make(bench_call *call, const bench_options *options) {
    *call = (bench_call){.options = *options};
    const int is_sdpa = options->function == BENCH_SDPA;
    int exit_code = make_context(call);
    if (exit_code == EXIT_DONE) {
        exit_code = is_sdpa ? make_sdpa_tensors(call) : make_layer_tensors(call);
    }
    exit_code = exit_code == EXIT_DONE ? make_option_tensors(call) : exit_code;
    if (exit_code == EXIT_DONE) {
        set_params(call);
    }
    if (exit_code == EXIT_DONE && !is_sdpa) {
        exit_code = bench_layer_make(call);
    }
    if (exit_code == EXIT_DONE && measured_of(call)->make != NULL) {
        exit_code = measured_of(call)->make(call);
    }
    return exit_code == EXIT_DONE ? make_workspace(call) : exit_code;
}

void bench_call_free(bench_call *call) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        bench_tensor_free(&call->tensors[role]);
    }
    bench_layer_backward_free(call);
    attn_mha_destroy(call->layer);
    for (int i = 0; i < BENCH_PARAMETERS_MAX; i++) {
        bench_tensor_free(&call->bound[i]);
    }
    free(call->workspace);
    attn_context_destroy(call->context);
}

int64_t bench_call_tensor_bytes(const bench_call *call) {
    int64_t bytes = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        bytes += bench_tensor_bytes(&call->tensors[role]);
    }
    for (int i = 0; i < BENCH_PARAMETERS_MAX; i++) {
        bytes += bench_tensor_bytes(&call->of_parameters[i]);
    }
    for (int64_t index = 0; call->layer != NULL; index++) {
        attn_tensor shape;
        int64_t count = 0;
        if (attn_mha_parameter_describe(call->layer, index, NULL, &shape) != ATTN_OK ||
            attn_tensor_count(&shape, &count) != ATTN_OK) {
            break;
        }
        const int is_int8 =
            shape.rank == 2 && bench_parameter_dtype(&call->options) == ATTN_DTYPE_INT8;
        bytes += is_int8 ? count + shape.shape[0] * (int64_t)sizeof(float)
                         : count * (int64_t)attn_dtype_size_bytes(shape.dtype);
    }
    return bytes;
}
