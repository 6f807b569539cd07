/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_options.h: what is to be measured: the command line of attn-bench as a struct.
 */
#ifndef ATTN_BENCH_OPTIONS_H
#define ATTN_BENCH_OPTIONS_H

#include <stdint.h>

#include "option_parsing.h"

enum bench_function { BENCH_SDPA, BENCH_MHA };
enum bench_mask { BENCH_MASK_NONE, BENCH_MASK_BOOL, BENCH_MASK_ADDITIVE };
enum bench_mask_shape { BENCH_MASK_FULL, BENCH_MASK_PER_HEAD, BENCH_MASK_KEYS };
enum bench_bias { BENCH_BIAS_NONE, BENCH_BIAS_FULL, BENCH_BIAS_PER_HEAD, BENCH_BIAS_DISTANCES };
enum bench_blocks { BENCH_BLOCKS_NONE, BENCH_BLOCKS_SHARE, BENCH_BLOCKS_DOCUMENTS };
enum bench_weights { BENCH_WEIGHTS_NONE, BENCH_WEIGHTS_AVERAGE, BENCH_WEIGHTS_HEADS };
enum bench_layout { BENCH_LAYOUT_BHSD, BENCH_LAYOUT_BSHD };

enum { BENCH_LISTED_MAX = 64, BENCH_AXIS_MAX = 1 << 20 };

/* A list of numbers, as given and read. */
typedef struct bench_list {
    const char *text; /* NULL: not given */
    int count;
    int64_t items[BENCH_LISTED_MAX];
} bench_list;

/* bench_options_parse fills it, bench_options_complete derives what was not given. Choices are the
 * index in the option's list, which are the values of the enums above or of the library's. */
typedef struct bench_options {
    int function; /* enum bench_function */

    /* Shapes. */
    option_integer batch;
    option_integer heads;
    option_integer kv_heads;
    option_integer queries;
    option_integer keys;
    option_integer head_dim;
    option_integer value_dim;
    option_integer embed_dim;
    option_integer page; /* rows; sdpa */

    /* What a query sees. */
    const char *window_text;
    int64_t window[2]; /* left and right, if window_text is not NULL */
    option_integer query_offset;
    int is_causal;
    int align_end;
    bench_list key_lengths;   /* sequence b has items[b % count] */
    bench_list query_lengths; /* likewise; sdpa */
    int mask;
    int mask_shape;
    int bias;
    const char *block_mask_text;
    int blocks;         /* enum bench_blocks, of the text */
    double block_share; /* of blocks that are seen, likewise */
    option_integer block_rows;
    option_integer block_columns;

    /* How scores become weights, and what comes out. */
    option_number scale;
    option_number softcap;
    int has_alibi;
    int has_sinks;
    int normalizer;
    int weights;
    int has_lse;
    int is_backward; /* gradients instead; sdpa */

    /* Storage. */
    int dtype; /* of bench_dtypes */
    int layout;
    int is_gqa;            /* given, though kv_heads says it too */
    int parameters;        /* of bench_parameters; multi-head */
    int is_bound;          /* multi-head */
    int is_sequence_first; /* multi-head */

    /* How it runs. */
    int engine;
    int gemm;
    const char *kernels;
    int float32_weights;
    option_integer threads;      /* 0: the library's default */
    option_integer blas_threads; /* 0: as threads */
    int allocates;

    /* How it is measured. */
    option_integer repeats;
    option_number seconds;
    option_integer seed;
    int skips_limits;
    option_texts versus;
    bench_list lengths; /* grow */
} bench_options;

extern const char *const bench_dtypes[];

/* The enum attn_dtype of the tensors. */
int32_t bench_element_dtype(const bench_options *o);
extern const char *const bench_parameters[];

/* attn_mha_config.parameter_dtype. */
int32_t bench_parameter_dtype(const bench_options *o);
extern const char *const bench_engines[];
extern const char *const bench_gemms[];
extern const char *const bench_layouts[];
extern const char *const bench_masks[];
extern const char *const bench_mask_shapes[];
extern const char *const bench_biases[];
extern const char *const bench_normalizers[];
extern const char *const bench_weights_names[];

/* Query rows of a sequence, and of all: --query-lengths, or --queries each. */
int64_t bench_query_rows(const bench_options *options, int64_t sequence);
int64_t bench_all_query_rows(const bench_options *options);

/* What holds before a command line is read. */
bench_options bench_options_default(int function);

/* Reads the command line of a measurement; `grows`: --lengths is an option too. Returns an exit
 * code, after an error line if it is not EXIT_DONE. */
int bench_options_parse(bench_options *options, int grows, int count, char *const *arguments);

/* Reads the options of a --versus text over those of `options`. Words of `text` are kept, and are
 * ended by zeros in it. Returns an exit code. */
int bench_options_parse_versus(bench_options *options, char *text);

/* Derives sizes that were not given, reads windows and lists, and checks what options say together.
 * Returns an exit code. */
int bench_options_complete(bench_options *options);

/* Reads the list of --lengths. Returns an exit code. */
int bench_options_read_lengths(bench_options *options);

#endif
