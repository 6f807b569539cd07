/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random_tensor.h: tensors of every layout with memory around them that is watched.
 *
 * An input's memory reaches exactly from its lowest to its highest element, and one of them touches a
 * page without access (guarded_memory.h), so that a read outside is a crash; what lies between its
 * elements is NaN (bool: true, int64: -1), so that a stray read shows in the result; it is read-only
 * during a call. An output's memory has margins, and every byte that belongs to no element must be
 * unchanged.
 */
#ifndef ATTENTION_TESTS_RANDOM_TENSOR_H
#define ATTENTION_TESTS_RANDOM_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "support/random.h"

enum tensor_layout {
    LAYOUT_CONTIGUOUS,
    LAYOUT_SEQUENCE_FIRST, /* axes -3 and -2 swapped in memory: (S, N, E) for (N, S, E) */
    LAYOUT_PACKED,         /* rows three times as long as the last axis: packed query-key-value */
    LAYOUT_STEP_TWO,       /* every second element along the last axis */
    LAYOUT_TRANSPOSED,     /* last two axes swapped in memory: column-major */
    LAYOUT_REVERSED,       /* every stride negative */
    LAYOUT_UNALIGNED,      /* contiguous, one byte off any alignment */

    /* Only inputs may repeat elements. */
    LAYOUT_REPEATED_FIRST,   /* stride 0 on the first axis, if there are three or more */
    LAYOUT_REPEATED_ROWS,    /* stride 0 on axis -2 */
    LAYOUT_REPEATED_COLUMNS, /* stride 0 on the last axis */
    LAYOUT_NUM_INPUT,
    LAYOUT_NUM_OUTPUT = LAYOUT_REPEATED_FIRST
};

/* Names of the layouts, in the order of the enum. */
extern const char *const tensor_layout_names[LAYOUT_NUM_INPUT];

typedef struct watched_tensor {
    attn_tensor view;
    unsigned char *memory;
    unsigned char *before;   /* copy taken by pool_begin */
    unsigned char *is_owned; /* per byte: 1 if it belongs to an element */
    size_t bytes;
    int is_output;
} watched_tensor;

/* All tensors of one call. */
enum { POOL_CAPACITY = 40 };
typedef struct tensor_pool {
    watched_tensor tensors[POOL_CAPACITY];
    int count;
} tensor_pool;

/* A new tensor of the pool; its elements are not set yet. An empty one has NULL data. Valid until
 * pool_destroy. */
attn_tensor *pool_input(tensor_pool *pool, int32_t dtype, int32_t rank, const int64_t *shape,
                        enum tensor_layout layout);
attn_tensor *pool_output(tensor_pool *pool, int32_t dtype, int32_t rank, const int64_t *shape,
                         enum tensor_layout layout);

/* Remembers all memory before a call; afterwards, pool_check returns 0, or 1 and a line in
 * `message` if any was written wrongly. */
void pool_begin(tensor_pool *pool);
int pool_check(const tensor_pool *pool, char *message, size_t message_bytes);
/* The same after a call that was refused: no element of an output may have changed either. */
int pool_check_untouched(const tensor_pool *pool, char *message, size_t message_bytes);
void pool_destroy(tensor_pool *pool);

/* Every element uniform in [lowest, highest); then, if step > 0, rounded to a multiple of it. */
void random_fill(const attn_tensor *tensor, random_state *random, double lowest, double highest,
                 double step);

/* Every element 0 with the probability given, else a random byte that is not 0: all of them mean
 * true. */
void random_fill_bool(const attn_tensor *tensor, random_state *random, double probability_of_zero);

void random_fill_integers(const attn_tensor *tensor, random_state *random, int64_t lowest,
                          int64_t highest);

/* A random element's index; 0 if the tensor is empty. */
int random_index(const attn_tensor *tensor, random_state *random, int64_t *index);

#endif
