/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_tools.h: layers to try things on, and whole parameters at a time.
 */
#ifndef TESTS_MULTIHEAD_LAYER_TOOLS_H
#define TESTS_MULTIHEAD_LAYER_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/multihead.h>

#include "errors/counting_allocator.h"

enum { LAYER_MOST_VALUES = 4096 };

/* The values of a parameter in C order. */
typedef struct parameter_values {
    int64_t count;
    double values[LAYER_MOST_VALUES];
} parameter_values;

/* A layer whose memory `counting`, set up here, watches; the context it was made with is gone
 * already. Ends the test on a failure. */
attn_mha *layer_make(counting_allocator *counting, const attn_mha_config *config);

/* Destroys it and fails the test if memory is still out, or was given back wrongly. */
void layer_end(attn_mha *layer, const counting_allocator *counting);

/* How a caller's tensor of a parameter's shape lies in memory. */
enum value_layout {
    VALUES_DENSE,
    VALUES_TRANSPOSED, /* last axis slowest */
    VALUES_SPREAD,     /* gaps between all elements */
    VALUES_REVERSED,   /* every axis backwards */
    VALUES_UNALIGNED,
    VALUES_NUM_LAYOUTS
};

/* A view of `shape` in the caller's `memory`, which must have room for twice its elements and 8
 * bytes. */
attn_tensor layer_view(const attn_tensor *shape, int32_t dtype, enum value_layout layout,
                       void *memory);

/* The number of elements, and elements by their place in C order. */
int64_t layer_count(const attn_tensor *view);
double layer_get(const attn_tensor *view, int64_t flat);
void layer_set(const attn_tensor *view, int64_t flat, double value);

/* Loads `first`, first + 1, ... into a parameter of these lengths (rank 1 where cols is 0). */
void layer_load_counting(attn_mha *layer, int32_t dtype, const char *name, int64_t rows,
                         int64_t cols, double first);

/* Reads a parameter of these lengths. */
parameter_values layer_read(const attn_mha *layer, int32_t dtype, const char *name, int64_t rows,
                            int64_t cols);

/* Fails the test unless value i is first + i for i in [begin, end). */
void layer_assert_counting(const parameter_values *values, int64_t begin, int64_t end,
                           double first);

#endif
