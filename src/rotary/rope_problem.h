/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_problem.h: one checked call of attn_rope. Data and nothing else.
 *
 * A group is what shares its angles: the heads of one batch, or those of all batches where no
 * option tells batches apart. A plane is one head of one batch, (L, E); planes are numbered in the
 * order of input's axes, so that those of a group follow one another.
 */
#ifndef ATTNI_ROTARY_ROPE_PROBLEM_H
#define ATTNI_ROTARY_ROPE_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/tensor.h>

/* An option that is read by batch, and by what follows the batch axes. */
typedef struct attni_rope_option {
    bool is_given;
    attn_tensor tensor;             /* dtype and data */
    int64_t strides[ATTN_MAX_RANK]; /* broadcast to (batch axes, ...) */
} attni_rope_option;

/* Rows of many sequences, one behind the other: those of sequence b from start b to start b + 1. */
typedef struct attni_rope_starts {
    bool is_given;
    attn_tensor tensor; /* (num_sequences + 1) */
    int64_t num_sequences;
} attni_rope_starts;

/* Where cosines and sines come from. */
typedef enum attni_rope_source {
    ATTNI_ROPE_BASE,        /* base */
    ATTNI_ROPE_FREQUENCIES, /* frequencies: (R/2) */
    ATTNI_ROPE_TABLE,       /* cos, sin: (batch axes, L, R/2) */
    ATTNI_ROPE_LOOKED_UP    /* cos, sin: (table_rows, R/2), by position */
} attni_rope_source;

typedef struct attni_rope_problem {
    attn_tensor input;
    attn_tensor output;
    bool is_in_place;
    int32_t score_dtype;
    int32_t batch_rank; /* of batch axes */
    int64_t num_batches;
    int64_t num_heads;
    int64_t num_rows;     /* L */
    int64_t num_features; /* E */
    int64_t num_pairs;    /* R / 2 */
    int64_t num_groups;
    int64_t group_planes;
    bool is_interleaved;
    double cosine_factor; /* magnitude */
    double sine_factor;   /* magnitude, negative for the inverse */
    attni_rope_source source;
    double base;
    attn_tensor frequencies;
    const double *first_frequencies; /* what attni_rope_frequencies says of the first pairs, as many
                                        as it has at a time, where it was asked already; or NULL */
    attni_rope_option cos;           /* looked up: strides of its two axes */
    attni_rope_option sin;
    int64_t table_rows;
    attni_rope_option positions; /* (batch axes, L) */
    attni_rope_option lengths;   /* (batch axes), or with starts (num_sequences) */
    attni_rope_starts starts;    /* then there are no batch axes */
} attni_rope_problem;

#endif
