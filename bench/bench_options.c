/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_options.c: the tables of options.
 */
#include "bench_options.h"

#include <attention/tensor.h>

#include <stddef.h>
#include <string.h>

#include "program_exit.h"

/* In the order of the library's enums, or of those in bench_options.h. */
const char *const bench_dtypes[] = {"float32", "float64", "bfloat16", "float16", NULL};

int32_t bench_element_dtype(const bench_options *o) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16};
    return dtypes[o->dtype];
}
const char *const bench_parameters[] = {"dtype",   "float32", "float64", "bfloat16",
                                        "float16", "int8",    NULL};

int32_t bench_parameter_dtype(const bench_options *o) {
    static const int32_t dtypes[] = {0,
                                     ATTN_DTYPE_FLOAT32,
                                     ATTN_DTYPE_FLOAT64,
                                     ATTN_DTYPE_BFLOAT16,
                                     ATTN_DTYPE_FLOAT16,
                                     ATTN_DTYPE_INT8};
    return dtypes[o->parameters];
}
const char *const bench_engines[] = {"auto", "blas", "fused", NULL};
const char *const bench_gemms[] = {"auto", "blas", "native", NULL};
const char *const bench_layouts[] = {"bhsd", "bshd", NULL};
const char *const bench_masks[] = {"none", "bool", "additive", NULL};
const char *const bench_mask_shapes[] = {"full", "per-head", "keys", NULL};
const char *const bench_biases[] = {"none", "full", "per-head", "distances", NULL};
const char *const bench_normalizers[] = {"softmax", "sigmoid", "linear", NULL};
const char *const bench_weights_names[] = {"none", "average", "heads", NULL};

bench_options bench_options_default(int function) {
    return (bench_options){
        .function = function,
        .batch.value = 1,
        .heads.value = 12,
        .queries.value = 512,
        .head_dim.value = 64,
        .embed_dim.value = 768,
        .block_rows.value = 128,
        .block_columns.value = 128,
        .repeats.value = 5,
        .seconds.value = 0.5,
        .seed.value = 1,
    };
}

/* Appends `count` specs to the table. */
static int append_specs(option_spec *table, int used, const option_spec *specs, size_t bytes) {
    memcpy(table + used, specs, bytes);
    return used + (int)(bytes / sizeof *specs);
}

static int append_problem(bench_options *o, option_spec *table, int used) {
    const option_spec specs[] = {
        {"--batch", OPTION_INTEGER, &o->batch, 1, BENCH_AXIS_MAX, NULL},
        {"--heads", OPTION_INTEGER, &o->heads, 1, BENCH_AXIS_MAX, NULL},
        {"--kv-heads", OPTION_INTEGER, &o->kv_heads, 1, BENCH_AXIS_MAX, NULL},
        {"--queries", OPTION_INTEGER, &o->queries, 1, BENCH_AXIS_MAX, NULL},
        {"--keys", OPTION_INTEGER, &o->keys, 1, BENCH_AXIS_MAX, NULL},
        {"--head-dim", OPTION_INTEGER, &o->head_dim, 1, BENCH_AXIS_MAX, NULL},
        {"--value-dim", OPTION_INTEGER, &o->value_dim, 1, BENCH_AXIS_MAX, NULL},
        {"--causal", OPTION_FLAG, &o->is_causal, 0, 0, NULL},
        {"--window", OPTION_TEXT, &o->window_text, 0, 0, NULL},
        {"--query-offset", OPTION_INTEGER, &o->query_offset, -BENCH_AXIS_MAX, BENCH_AXIS_MAX, NULL},
        {"--align-end", OPTION_FLAG, &o->align_end, 0, 0, NULL},
        {"--key-lengths", OPTION_TEXT, &o->key_lengths.text, 0, 0, NULL},
        {"--mask", OPTION_CHOICE, &o->mask, 0, 0, bench_masks},
        {"--mask-shape", OPTION_CHOICE, &o->mask_shape, 0, 0, bench_mask_shapes},
        {"--block-mask", OPTION_TEXT, &o->block_mask_text, 0, 0, NULL},
        {"--block-rows", OPTION_INTEGER, &o->block_rows, 1, BENCH_AXIS_MAX, NULL},
        {"--block-columns", OPTION_INTEGER, &o->block_columns, 1, BENCH_AXIS_MAX, NULL},
        {"--bias", OPTION_CHOICE, &o->bias, 0, 0, bench_biases},
        {"--scale", OPTION_NUMBER, &o->scale, 0, 0, NULL},
        {"--softcap", OPTION_NUMBER, &o->softcap, 0, 0, NULL},
        {"--alibi", OPTION_FLAG, &o->has_alibi, 0, 0, NULL},
        {"--sinks", OPTION_FLAG, &o->has_sinks, 0, 0, NULL},
        {"--normalizer", OPTION_CHOICE, &o->normalizer, 0, 0, bench_normalizers},
        {"--weights", OPTION_CHOICE, &o->weights, 0, 0, bench_weights_names},
        {"--lse", OPTION_FLAG, &o->has_lse, 0, 0, NULL},
        {"--backward", OPTION_FLAG, &o->is_backward, 0, 0, NULL},
        {"--dtype", OPTION_CHOICE, &o->dtype, 0, 0, bench_dtypes},
    };
    return append_specs(table, used, specs, sizeof specs);
}

static int append_function(bench_options *o, option_spec *table, int used) {
    const option_spec sdpa[] = {
        {"--layout", OPTION_CHOICE, &o->layout, 0, 0, bench_layouts},
        {"--gqa", OPTION_FLAG, &o->is_gqa, 0, 0, NULL},
        {"--page", OPTION_INTEGER, &o->page, 1, BENCH_AXIS_MAX, NULL},
        {"--query-lengths", OPTION_TEXT, &o->query_lengths.text, 0, 0, NULL},
    };
    const option_spec mha[] = {
        {"--embed-dim", OPTION_INTEGER, &o->embed_dim, 1, BENCH_AXIS_MAX, NULL},
        {"--parameters", OPTION_CHOICE, &o->parameters, 0, 0, bench_parameters},
        {"--bound", OPTION_FLAG, &o->is_bound, 0, 0, NULL},
        {"--sequence-first", OPTION_FLAG, &o->is_sequence_first, 0, 0, NULL},
    };
    return o->function == BENCH_SDPA ? append_specs(table, used, sdpa, sizeof sdpa)
                                     : append_specs(table, used, mha, sizeof mha);
}

static int append_run(bench_options *o, option_spec *table, int used) {
    const option_spec specs[] = {
        {"--engine", OPTION_CHOICE, &o->engine, 0, 0, bench_engines},
        {"--kernels", OPTION_TEXT, &o->kernels, 0, 0, NULL},
        {"--float32-weights", OPTION_FLAG, &o->float32_weights, 0, 0, NULL},
        {"--gemm", OPTION_CHOICE, &o->gemm, 0, 0, bench_gemms},
        {"--threads", OPTION_INTEGER, &o->threads, 1, 1024, NULL},
        {"--blas-threads", OPTION_INTEGER, &o->blas_threads, 1, 1024, NULL},
        {"--allocate", OPTION_FLAG, &o->allocates, 0, 0, NULL},
        {"--seed", OPTION_INTEGER, &o->seed, 0, INT64_MAX, NULL},
    };
    return append_specs(table, used, specs, sizeof specs);
}

static int append_measurement(bench_options *o, int grows, option_spec *table, int used) {
    const option_spec specs[] = {
        {"--repeats", OPTION_INTEGER, &o->repeats, 1, 1000000, NULL},
        {"--seconds", OPTION_NUMBER, &o->seconds, 0, 0, NULL},
        {"--no-limits", OPTION_FLAG, &o->skips_limits, 0, 0, NULL},
        {"--versus", OPTION_TEXTS, &o->versus, 0, 0, NULL},
        {"--lengths", OPTION_TEXT, &o->lengths.text, 0, 0, NULL},
    };
    return append_specs(table, used, specs, sizeof specs - (grows ? 0 : sizeof specs[0]));
}

int bench_options_parse(bench_options *options, int grows, int count, char *const *arguments) {
    option_spec table[OPTIONS_MAX];
    int used = append_problem(options, table, 0);
    used = append_function(options, table, used);
    used = append_run(options, table, used);
    used = append_measurement(options, grows, table, used);
    return options_parse(table, used, count, arguments, NULL, NULL);
}

int bench_options_parse_versus(bench_options *options, char *text) {
    char *words[2 * OPTIONS_MAX];
    int count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (count == 2 * OPTIONS_MAX) {
            return program_fail(EXIT_USAGE, "--versus: expected at most %d words", 2 * OPTIONS_MAX);
        }
        words[count++] = word;
    }
    option_spec table[OPTIONS_MAX];
    int used = append_problem(options, table, 0);
    used = append_function(options, table, used);
    used = append_run(options, table, used);
    return options_parse(table, used, count, words, NULL, NULL);
}
