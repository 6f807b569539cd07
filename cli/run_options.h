/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run_options.h: the command line of "attn run".
 */
#ifndef ATTN_CLI_RUN_OPTIONS_H
#define ATTN_CLI_RUN_OPTIONS_H

#include <stdint.h>

#include "option_parsing.h"

enum run_weights { RUN_WEIGHTS_NONE, RUN_WEIGHTS_AVERAGE, RUN_WEIGHTS_HEADS };
enum run_polarity { RUN_POLARITY_EXCLUDE, RUN_POLARITY_INCLUDE };

/* Texts are NULL and integers not `given` where the option is absent. */
typedef struct run_options {
    const char *layer_path;
    const char *prefix; /* "" by default */
    option_texts ignore;
    option_integer num_heads;
    option_integer num_kv_heads;
    option_integer head_dim;
    option_integer value_head_dim;
    int add_zero_attn;
    int batch_first;
    int sequence_first;
    int32_t dtype; /* enum attn_dtype; ATTN_DTYPE_INVALID: auto */

    const char *query; /* FILE[:TENSOR], as all inputs */
    const char *key;
    const char *value;
    const char *key_padding_mask;
    const char *attn_mask;
    const char *bias;
    const char *position_bias;
    const char *alibi;
    const char *sinks;
    const char *block_mask;
    option_integer block_rows;
    option_integer block_columns;
    int mask_polarity;       /* enum run_polarity */
    const char *key_lengths; /* N integers separated by commas, parsed when N is known */
    option_integer query_offset;
    int align_end;

    int is_causal;
    const char *window;
    int64_t window_sides[2]; /* left, right; from window */
    option_number scale;
    option_number softcap;
    int normalizer; /* enum attn_normalizer */
    option_number dropout;
    option_integer dropout_seed;

    /* Rotary positions, if either of the first two is there. */
    option_number rope; /* the base */
    const char *rope_frequencies;
    option_integer rope_dim;
    int rope_interleaved;

    int weights; /* enum run_weights */
    const char *output;
    const char *expect;
    option_number tolerance; /* not given: the default of the dtype */
    option_integer time;     /* repetitions */
    option_integer links;    /* links per head */
    option_integer threads;
    const char *kernels;
    int json;
} run_options;

/* Parses and checks the options against one another. EXIT_DONE, or EXIT_USAGE after an error line.
 */
int run_options_parse(int count, char *const *arguments, run_options *options);

#endif
