/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_forward.c: the computation of "attn run": context, options, outputs, the call and its
 * repetitions.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "attention_run.h"
#include "chosen_context.h"
#include "program_exit.h"

/* What one call needs besides the inputs. */
typedef struct forward_call {
    attn_sdpa_params attention;
    attn_dropout dropout;
    attn_rope_params rope;
    attn_mha_params params;
    int64_t query_offset;
    attn_tensor query_offset_view;
    void *workspace;
    size_t workspace_bytes;
} forward_call;

int run_open_context(attention_run *run) {
    const run_options *options = run->options;
    return choose_context(&options->threads, options->kernels, ATTN_GEMM_AUTO, &run->context,
                          &run->context_info);
}

const char *run_weights_axes(const attention_run *run) {
    int per_head = run->options->weights == RUN_WEIGHTS_HEADS;
    if (run->is_batched) {
        return per_head ? "NHLT" : "NLT";
    }
    return per_head ? "HLT" : "LT";
}

/* ---- outputs ---- */

static int allocate_output(attention_run *run) {
    char error[400];
    attn_tensor shape = *run->query_view;
    shape.shape[shape.rank - 1] = run->layer.config.embed_dim;
    if (owned_tensor_allocate(&run->output, run->layer.config.dtype, shape.rank, shape.shape, error,
                              sizeof error) != 0) {
        return program_fail(EXIT_COMPUTATION, "attn_output: %s", error);
    }
    return EXIT_DONE;
}

static int allocate_weights(attention_run *run) {
    char error[400];
    const int64_t lengths[4] = {run->num_sequences, run->layer.config.num_heads, run->query_length,
                                run->num_columns};
    int64_t shape[4];
    int32_t rank = 0;
    if (run->options->weights == RUN_WEIGHTS_NONE) {
        return EXIT_DONE;
    }
    for (const char *axis = run_weights_axes(run); *axis != '\0'; axis++) {
        shape[rank++] = lengths[*axis == 'N' ? 0 : *axis == 'H' ? 1 : *axis == 'L' ? 2 : 3];
    }
    if (owned_tensor_allocate(&run->weights, run->layer.config.dtype, rank, shape, error,
                              sizeof error) != 0) {
        return program_fail(EXIT_COMPUTATION, "attn_weights: %s", error);
    }
    return EXIT_DONE;
}

/* ---- options ---- */

static int32_t mask_kind(const attention_run *run, const run_input *mask) {
    if (mask->entry == NULL) {
        return ATTN_MASK_NONE;
    }
    if (mask->tensor.view.dtype != ATTN_DTYPE_BOOL) {
        return ATTN_MASK_ADDITIVE;
    }
    return run->options->mask_polarity == RUN_POLARITY_INCLUDE ? ATTN_MASK_BOOL_INCLUDE
                                                               : ATTN_MASK_BOOL_EXCLUDE;
}

static const attn_tensor *input_view(const run_input *input) {
    return input->entry != NULL ? &input->tensor.view : NULL;
}

static void set_rope(const attention_run *run, forward_call *call) {
    const run_options *options = run->options;
    call->rope = (attn_rope_params){
        .struct_size = sizeof call->rope,
        .rotary_dim = options->rope_dim.value,
        .base = options->rope.value,
        .interleaved = options->rope_interleaved,
        .frequencies = input_view(&run->rope_frequencies),
    };
    call->params.rope =
        options->rope.given || options->rope_frequencies != NULL ? &call->rope : NULL;
}

/* `call` holds pointers into itself and into the run, and must not move afterwards. */
static int prepare_call(attention_run *run, forward_call *call) {
    const run_options *options = run->options;
    call->query_offset = options->query_offset.value;
    call->dropout = (attn_dropout){.struct_size = sizeof call->dropout,
                                   .probability = options->dropout.value,
                                   .seed = (uint64_t)options->dropout_seed.value};
    call->attention = (attn_sdpa_params){
        .struct_size = sizeof call->attention,
        .set = (options->scale.given ? ATTN_SDPA_SET_SCALE : 0) |
               (options->window != NULL ? ATTN_SDPA_SET_WINDOW : 0),
        .is_causal = options->is_causal,
        .scale = options->scale.value,
        .softcap = options->softcap.value,
        .window_left = options->window_sides[0],
        .window_right = options->window_sides[1],
        .align_end = options->align_end,
        .normalizer = options->normalizer,
        .mask_kind = mask_kind(run, &run->attn_mask),
        .mask = input_view(&run->attn_mask),
        .bias = input_view(&run->bias),
        .position_bias = input_view(&run->position_bias),
        .alibi_slopes = input_view(&run->alibi),
        .sinks = input_view(&run->sinks),
        .block_mask = input_view(&run->block_mask),
        .block_rows = options->block_rows.value,
        .block_columns = options->block_columns.value,
        .dropout = &call->dropout,
        .query_offset = options->query_offset.given ? &call->query_offset_view : NULL,
        .key_lengths = run->key_lengths.memory != NULL ? &run->key_lengths.view : NULL,
        .weights = options->weights != RUN_WEIGHTS_NONE ? &run->weights.view : NULL,
        .report = &run->report,
    };
    call->params = (attn_mha_params){
        .struct_size = sizeof call->params,
        .key_padding_mask_kind = mask_kind(run, &run->key_padding_mask),
        .key_padding_mask = input_view(&run->key_padding_mask),
        .attention = &call->attention,
    };
    set_rope(run, call);
    run->report.struct_size = sizeof run->report;
    return attn_tensor_init(&call->query_offset_view, &call->query_offset, ATTN_DTYPE_INT64, 0,
                            NULL);
}

/* ---- the call and the clock ---- */

static attn_status forward_once(attention_run *run, forward_call *call) {
    return attn_mha_forward(run->context, run->layer.layer, run->query_view, run->key_view,
                            run->value_view, &call->params, &run->output.view, call->workspace,
                            call->workspace_bytes);
}

static double milliseconds_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int compare_numbers(const void *left, const void *right) {
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* On a terminal, says how far a measurement of more than a second is; at most ten times a second.
 */
static void show_progress(int64_t done, int64_t count, double started, double *shown) {
    double now = milliseconds_now();
    if (isatty(STDERR_FILENO) && now - started > 1000 && now - *shown > 100) {
        (void)fprintf(stderr, "\rrun %lld of %lld", (long long)done, (long long)count);
        *shown = now;
    }
    if (done == count && *shown > 0) {
        (void)fprintf(stderr, "\r\033[K");
    }
}

/* The first call, whose results are kept, has warmed everything up. */
static int repeat_for_clock(attention_run *run, forward_call *call) {
    int64_t count = run->options->time.value;
    double *times = malloc((size_t)count * sizeof *times);
    if (times == NULL) {
        return program_fail(EXIT_COMPUTATION, "--time: out of memory");
    }
    double started = milliseconds_now();
    double shown = 0;
    attn_status status = ATTN_OK;
    for (int64_t i = 0; i < count && status == ATTN_OK; i++) {
        double before = milliseconds_now();
        status = forward_once(run, call);
        times[i] = milliseconds_now() - before;
        show_progress(i + 1, count, started, &shown);
    }
    if (status == ATTN_OK) {
        qsort(times, (size_t)count, sizeof *times, compare_numbers);
        run->min_milliseconds = times[0];
        run->median_milliseconds = (times[(count - 1) / 2] + times[count / 2]) / 2;
    }
    free(times);
    return status == ATTN_OK ? EXIT_DONE : program_fail_library("forward", status);
}

static int compute(attention_run *run, forward_call *call) {
    attn_status status = attn_mha_workspace_bytes(run->context, run->layer.layer, run->query_view,
                                                  run->key_view, run->value_view, &call->params,
                                                  &run->output.view, &call->workspace_bytes);
    if (status != ATTN_OK) {
        return program_fail_library("forward", status);
    }
    call->workspace = malloc(call->workspace_bytes + 1);
    if (call->workspace == NULL) {
        return program_fail(EXIT_COMPUTATION, "forward: out of memory for %zu bytes of workspace",
                            call->workspace_bytes);
    }
    status = forward_once(run, call);
    int exit_code = status == ATTN_OK ? EXIT_DONE : program_fail_library("forward", status);
    if (exit_code == EXIT_DONE && run->options->time.given) {
        exit_code = repeat_for_clock(run, call);
    }
    free(call->workspace);
    if (run->report.reason == NULL) {
        run->report.reason = "nothing to compute";
        run->report.kernels = run->context_info.kernels;
    }
    return exit_code;
}

int run_forward(attention_run *run) {
    forward_call call = {.workspace = NULL};
    int exit_code = allocate_output(run);
    exit_code = exit_code != EXIT_DONE ? exit_code : allocate_weights(run);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    attn_status status = prepare_call(run, &call);
    return status == ATTN_OK ? compute(run, &call) : program_fail_library("forward", status);
}
