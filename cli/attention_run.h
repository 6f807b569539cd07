/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention_run.h: what "attn run" works on, and its stages in their order. Each stage returns
 * EXIT_DONE, or another exit code after an error line.
 *
 *     run_open_context     threads and kernels
 *     layer_load           the layer
 *     run_load_inputs      query, key, value, masks, bias
 *     run_check_leftovers  tensors of the layer that attn does not know
 *     run_load_words       the words of their metadata
 *     run_forward          computes, and repeats for the clock
 *     run_compare          against --expect
 *     run_find_links       strongest word-to-word links
 *     run_save             the output file
 *     run_print_*          says it all
 *
 * Letters for lengths: N sequences, L queries, S keys, H heads, T = S + extra columns.
 */
#ifndef ATTN_CLI_ATTENTION_RUN_H
#define ATTN_CLI_ATTENTION_RUN_H

#include <stdint.h>

#include <attention/attention.h>

#include "layer_load.h"
#include "run_options.h"
#include "tensor_load.h"
#include "token_lists.h"

/* A tensor of the command line, with the file it came from (whose metadata has the words). */
typedef struct run_input {
    char *path;
    safetensors_file *file;
    const safetensors_entry *entry; /* NULL: not given */
    owned_tensor tensor;
} run_input;

/* One word attending to another. */
typedef struct word_link {
    int64_t sequence;
    int64_t head;
    int64_t query; /* positions */
    int64_t key;
    double weight;
} word_link;

/* The largest absolute difference of a tensor from the expected one. */
typedef struct run_difference {
    int is_compared;
    double largest; /* NaN if one side is NaN where the other is not */
} run_difference;

typedef struct attention_run {
    const run_options *options;
    attn_context *context;
    attn_context_info context_info;
    loaded_layer layer;
    int64_t num_ignored; /* tensors of the layer that --ignore left out */

    run_input query, key, value, key_padding_mask, attn_mask, bias;
    run_input position_bias, alibi, sinks, block_mask, rope_frequencies;
    const attn_tensor *query_view; /* an absent input's view is the one it defaults to */
    const attn_tensor *key_view;
    const attn_tensor *value_view;
    int is_batched;
    int64_t num_sequences; /* N, 1 if unbatched */
    int64_t query_length;  /* L */
    int64_t key_length;    /* S */
    int64_t num_columns;   /* T */
    owned_tensor key_lengths;
    owned_tensor is_padding; /* bool (N, S): keys that the padding mask or the lengths exclude; none
                                if neither is given */
    token_table query_words;
    token_table key_words;

    owned_tensor output;
    owned_tensor weights;
    attn_sdpa_report report;
    double min_milliseconds;
    double median_milliseconds;

    run_difference output_difference;
    run_difference weights_difference;
    word_link *links; /* by sequence, head, falling weight */
    int64_t num_links;
} attention_run;

int run_open_context(attention_run *run);
int run_load_inputs(attention_run *run);
int run_check_leftovers(attention_run *run);
int run_load_words(attention_run *run);
int run_forward(attention_run *run);
int run_compare(attention_run *run);
int run_find_links(attention_run *run);
int run_save(const attention_run *run);

/* 1 if every compared tensor is within the tolerance. */
int run_is_within_tolerance(const attention_run *run);

/* 1 if key column `key` < S of a sequence is padding; for self-attention this is also true of query
 * rows. */
int run_is_padding(const attention_run *run, int64_t sequence, int64_t key);

/* 1 if key was not given: rows and columns are the same words. */
int run_is_self_attention(const attention_run *run);

/* The axes of attn_weights as computed, "NHLT", "NLT", "HLT" or "LT". */
const char *run_weights_axes(const attention_run *run);

void run_print_text(const attention_run *run);
int run_print_json(const attention_run *run);

void attention_run_free(attention_run *run);

#endif
