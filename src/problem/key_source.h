/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key_source.h: the shapes of a call's query, key and value as those of a call with one tensor for
 * each sequence, however they lie.
 */
#ifndef ATTNI_PROBLEM_KEY_SOURCE_H
#define ATTNI_PROBLEM_KEY_SOURCE_H

#include "problem/kv_tensors.h"
#include "problem/sdpa_problem.h"
#include "problem/sdpa_request.h"

/* What may have batch axes: query, key, value, then what says where sequences are. */
enum { ATTNI_QUERY, ATTNI_KEY, ATTNI_VALUE, ATTNI_KEY_PLACES, ATTNI_QUERY_PLACES, ATTNI_INPUTS };

/* Views that broadcast against each other, aligned at the end. Key and value have the axes (...,
 * heads, S, features), counted in values, and the strides of the first page; what says where
 * sequences are has its batch axes and three of length 1 behind them. */
typedef struct attni_input_views {
    const attn_tensor *views[ATTNI_INPUTS]; /* the caller's, or made; NULL where there is none */
    const attn_tensor *given[ATTNI_INPUTS]; /* the caller's, which messages show */
    const char *names[ATTNI_INPUTS];
    bool are_starts[ATTNI_INPUTS];  /* (B + 1), which do not broadcast */
    const attni_kv_names *kv_names; /* of kv, or NULL */
    const char *key_rows_name;      /* of the axis of key and value that has rows */
    const attn_tensor *page_table;  /* of kv, or NULL */
    const attn_tensor *key_lengths; /* of kv or of the call itself, or NULL */
    const char *lengths_name;
    const attn_tensor *scales[ATTNI_INPUTS]; /* of key and value, or NULL */
    const attn_tensor *zeros[ATTNI_INPUTS];
    attn_tensor made[ATTNI_INPUTS];
} attni_input_views;

/* Makes *inputs those of a call that has none yet. */
void attni_start_inputs(attni_input_views *inputs);

/* Fills *inputs, which must stay where it is, and in *problem what lies where. Fails with every
 * error of query, key, value and what kv says of them, but for those of their shapes against each
 * other and of values. */
attn_status attni_read_inputs(const attni_sdpa_request *request, attni_input_views *inputs,
                              attni_sdpa_problem *problem);

/* The same of kv alone: key, value, what says where they are, and lengths. */
attn_status attni_read_kv(const attn_kv *given, const attni_kv_names *names,
                          attni_data_rule data_rule, attni_input_views *inputs,
                          attni_sdpa_problem *problem);

/* Once the batch axes are known: whether starts have as many sequences, the page table's strides,
 * and where scales and zeros are. */
attn_status attni_place_sequences(const attni_input_views *inputs, attni_sdpa_problem *problem);

/* The page table's strides alone: over the batch axes, which it was broadcast along, then over a
 * sequence's pages. And where scales and zeros are. */
void attni_place_kv(const attni_input_views *inputs, attni_sdpa_problem *problem);

/* Starts of B sequences and the end of the last, (B + 1): operand and, for broadcasting, view
 * `which`. */
attn_status attni_take_starts(const char *name, const attn_tensor *starts,
                              attni_data_rule data_rule, attni_operand *operand,
                              attni_input_views *inputs, int32_t which);

/* Where a tensor's elements are; its strides are set apart. */
void attni_place_operand(const attn_tensor *tensor, attni_operand *operand);

/* A view of indices over the batch axes. */
attn_status attni_check_batch_indices(const char *name, const attn_tensor *tensor,
                                      attni_data_rule data_rule, const attni_sdpa_problem *problem,
                                      attni_operand *operand);

/* Says that starts are not those of so many sequences. */
attn_status attni_fail_starts(const attni_input_views *inputs, int32_t which, int64_t num_batches);

/* Sequences one behind the other are those of the only batch axis. */
attn_status attni_check_starts_axis(const attni_input_views *inputs, int32_t which,
                                    const attni_operand *starts, const attni_sdpa_problem *problem);

#endif
