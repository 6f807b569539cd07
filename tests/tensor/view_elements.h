/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view_elements.h: the elements of a view, one by one, from the definition of an address alone. It
 * shares no code with the library.
 */
#ifndef TESTS_TENSOR_VIEW_ELEMENTS_H
#define TESTS_TENSOR_VIEW_ELEMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "support/random.h"

/* Bytes of an element, by the table in tensor.h. */
int64_t element_bytes_of(int32_t dtype);

/* The number of elements. */
int64_t elements_of(const attn_tensor *view);

/* Moves `index` (zeroes for the first element) to the next one, last axis fastest; false behind the
 * last. */
bool next_element(const attn_tensor *view, int64_t *index);

/* data + (index[0] * strides[0] + ...) * element size. */
char *element_at(const attn_tensor *view, const int64_t *index);

/* What random_view draws. */
typedef struct view_limits {
    int32_t lowest_rank;
    int32_t highest_rank;
    int64_t longest; /* lengths are 0 to longest; 0 is rarer than the others */
    int64_t stride;  /* strides are -stride to stride */
} view_limits;

/* A view of any dtype whose element (0, 0, ...) lies at `data`. Unused axes hold numbers that must
 * not matter, and so do some strides of axes of length 0 and 1. */
attn_tensor random_view(random_state *random, void *data, view_limits limits);

/* "float32 (2, 3) by (3, 1)", for messages; static memory, two calls at a time. */
const char *view_text(const attn_tensor *view);

#endif
