/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_record.c: the fields, in groups. Numbers have six digits, which is more than a time is good
 * for; what is unknown is null.
 */
#include "bench_record.h"

#include <math.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "bench_work.h"
#include "machine_limits.h"
#include "program_exit.h"

/* Each of these adds to `object` and returns 0, or 1 when memory runs out. */

static int add_text(cJSON *object, const char *name, const char *text) {
    return text == NULL ? cJSON_AddNullToObject(object, name) == NULL
                        : cJSON_AddStringToObject(object, name, text) == NULL;
}

static int add_count(cJSON *object, const char *name, int64_t count) {
    return cJSON_AddNumberToObject(object, name, (double)count) == NULL;
}

static int add_truth(cJSON *object, const char *name, int truth) {
    return cJSON_AddBoolToObject(object, name, truth) == NULL;
}

static int add_number(cJSON *object, const char *name, double number) {
    char text[32];
    (void)snprintf(text, sizeof text, "%.6g", number);
    return cJSON_AddRawToObject(object, name, isfinite(number) ? text : "null") == NULL;
}

/* A quotient of what may be unknown. */
static int add_share(cJSON *object, const char *name, double part, double whole) {
    return add_number(object, name, whole > 0.0 ? part / whole : NAN);
}

static int add_known(cJSON *object, const char *name, double number) {
    return add_number(object, name, number > 0.0 ? number : NAN);
}

static int add_shapes(cJSON *root, const bench_options *o) {
    int failed =
        add_text(root, "command", o->function == BENCH_SDPA ? "sdpa" : "mha") |
        add_count(root, "batch", o->batch.value) | add_count(root, "heads", o->heads.value) |
        add_count(root, "kv_heads", o->kv_heads.value) |
        add_count(root, "queries", o->queries.value) | add_count(root, "keys", o->keys.value) |
        add_count(root, "head_dim", o->head_dim.value) |
        add_count(root, "value_dim", o->value_dim.value) |
        add_text(root, "dtype", bench_dtypes[o->dtype]);
    if (o->function == BENCH_SDPA) {
        return failed | add_text(root, "layout", bench_layouts[o->layout]) |
               add_known(root, "page", (double)o->page.value) |
               add_text(root, "query_lengths", o->query_lengths.text);
    }
    return failed | add_count(root, "embed_dim", o->embed_dim.value) |
           add_truth(root, "self_attention", !o->keys.given) |
           add_text(root, "parameters", bench_parameters[o->parameters]) |
           add_truth(root, "bound", o->is_bound) |
           add_truth(root, "sequence_first", o->is_sequence_first);
}

static int add_options(cJSON *root, const bench_options *o) {
    const int has_mask = o->mask != BENCH_MASK_NONE;
    const int has_blocks = o->blocks != BENCH_BLOCKS_NONE;
    return add_truth(root, "causal", o->is_causal) | add_text(root, "window", o->window_text) |
           add_count(root, "query_offset", o->query_offset.value) |
           add_truth(root, "align_end", o->align_end) |
           add_text(root, "key_lengths", o->key_lengths.text) |
           add_text(root, "mask", bench_masks[o->mask]) |
           add_text(root, "mask_shape", has_mask ? bench_mask_shapes[o->mask_shape] : NULL) |
           add_text(root, "bias", bench_biases[o->bias]) |
           add_text(root, "block_mask", o->block_mask_text) |
           add_known(root, "block_rows", has_blocks ? (double)o->block_rows.value : NAN) |
           add_known(root, "block_columns", has_blocks ? (double)o->block_columns.value : NAN) |
           add_number(root, "scale", o->scale.given ? o->scale.value : NAN) |
           add_known(root, "softcap", o->softcap.value) | add_truth(root, "alibi", o->has_alibi) |
           add_truth(root, "sinks", o->has_sinks) |
           add_text(root, "normalizer", bench_normalizers[o->normalizer]) |
           add_text(root, "weights", bench_weights_names[o->weights]) |
           add_truth(root, "lse", o->has_lse) | add_truth(root, "backward", o->is_backward) |
           add_count(root, "seed", o->seed.value);
}

static int add_engine(cJSON *root, const bench_call *call) {
    const bench_options *o = &call->options;
    const attn_sdpa_report *report = &call->report;
    return add_text(root, "engine_option", bench_engines[o->engine]) |
           add_text(root, "engine", bench_engines[report->engine]) |
           add_text(root, "kernels", report->kernels) |
           add_text(root, "gemm", bench_gemms[report->gemm]) |
           add_text(root, "reason", o->is_backward ? call->backward.reason : report->reason) |
           add_text(root, "blas", call->info.blas) |
           add_count(root, "threads", call->info.num_threads) |
           add_known(root, "blas_threads", call->blas_threads) |
           add_text(root, "version", attn_version_string());
}

static int add_memory(cJSON *root, const bench_record *record) {
    const bench_call *call = record->call;
    return add_text(root, "workspace", call->workspace == NULL ? "library" : "caller") |
           add_count(root, "workspace_bytes", (int64_t)call->workspace_bytes) |
           add_count(root, "tensor_bytes", bench_call_tensor_bytes(call)) |
           add_known(root, "peak_rss_mib", record->peak_rss_bytes / 1048576.0);
}

static int add_times(cJSON *root, const bench_record *record, const bench_work *work) {
    return add_number(root, "median_ms", 1e3 * record->median_seconds) |
           add_number(root, "min_ms", 1e3 * record->min_seconds) |
           add_count(root, "repeats", record->repeats) |
           add_count(root, "calls_per_timing", record->calls_per_timing) |
           add_count(root, "visible_pairs", work->visible_pairs) |
           add_share(root, "gflops", 1e-9 * work->flops, record->median_seconds) |
           add_share(root, "gbytes", 1e-9 * work->bytes, record->median_seconds);
}

/* The peak of float64 is half of what was measured in float32. */
static int add_limits(cJSON *root, const bench_record *record, const bench_work *work) {
    const bench_call *call = record->call;
    const int is_wide = bench_element_dtype(&call->options) == ATTN_DTYPE_FLOAT64;
    const int per_cycle = attn_limit_flops_per_cycle() / (is_wide ? 2 : 1);
    const int threads = call->info.num_threads;
    const double peak = is_wide ? record->limits.fma_flops / 2.0 : record->limits.fma_flops;
    const double bandwidth = record->limits.read_bytes;
    const double seconds = record->median_seconds;
    const double bound = peak > 0.0 ? bench_bound_seconds(work, peak, per_cycle, threads) : NAN;
    return add_text(root, "limits_isa", attn_limit_isa()) |
           add_known(root, "fma_gflops", 1e-9 * peak) |
           add_known(root, "read_gbytes", 1e-9 * bandwidth) |
           add_known(root, "cycle_ghz", 1e-9 * bench_cycle_hz(peak, per_cycle, threads)) |
           add_share(root, "fraction_of_fma", work->flops / seconds, peak) |
           add_share(root, "fraction_of_compute_bound", bound, seconds) |
           add_share(root, "fraction_of_read", work->bytes / seconds, bandwidth);
}

static int add_comparison(cJSON *root, const bench_record *record) {
    int failed = add_text(root, "versus", record->versus);
    if (record->versus != NULL) {
        failed |= add_number(root, "speedup", record->speedup[1]) |
                  add_number(root, "speedup_low", record->speedup[0]) |
                  add_number(root, "speedup_high", record->speedup[2]);
    }
    return failed;
}

/* Prints `root`, which may be NULL, and frees it. */
static int print_line(cJSON *root, int failed) {
    char *text = failed ? NULL : cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL) {
        return program_fail(EXIT_COMPUTATION, "JSON: no memory");
    }
    (void)puts(text);
    (void)fflush(stdout);
    cJSON_free(text);
    return EXIT_DONE;
}

int bench_record_print(const bench_record *record) {
    const bench_options *options = &record->call->options;
    const bench_work work = bench_work_of(options);
    cJSON *root = cJSON_CreateObject();
    const int failed = add_shapes(root, options) | add_options(root, options) |
                       add_engine(root, record->call) | add_times(root, record, &work) |
                       add_memory(root, record) | add_limits(root, record, &work) |
                       add_comparison(root, record);
    return print_line(root, failed);
}

int bench_limits_print(int threads, const machine_limits *limits) {
    cJSON *root = cJSON_CreateObject();
    const double peak = limits->fma_flops;
    const int failed =
        add_text(root, "command", "limits") | add_count(root, "threads", threads) |
        add_text(root, "limits_isa", attn_limit_isa()) |
        add_known(root, "fma_gflops", 1e-9 * peak) |
        add_known(root, "read_gbytes", 1e-9 * limits->read_bytes) |
        add_known(root, "cycle_ghz",
                  1e-9 * bench_cycle_hz(peak, attn_limit_flops_per_cycle(), threads));
    return print_line(root, failed);
}
