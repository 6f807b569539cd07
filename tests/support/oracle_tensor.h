/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_tensor.h: elements of any attn_tensor as numbers, whatever its type, strides and
 * alignment, and the plain arrays the oracle computes with. It knows the struct attn_tensor and
 * nothing else of the library.
 */
#ifndef ATTENTION_TESTS_ORACLE_TENSOR_H
#define ATTENTION_TESTS_ORACLE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

/* Exact or computed values, each with a bound on how far a computation in the tested type may be
 * from it. Contiguous. */
typedef struct oracle_array {
    int64_t count;
    double *value;
    double *error; /* absolute, >= 0; NaN beside a number: the headers leave the element open */
} oracle_array;

/* Zeroed; ends the program when memory is out, so that callers need no error path. */
void *oracle_allocate(int64_t count, size_t element_bytes);

oracle_array oracle_array_create(int64_t count);
void oracle_array_destroy(oracle_array *array);

int64_t oracle_count(int32_t rank, const int64_t *shape);

/* Steps `index` to the next position in C order; 0 after the last one, when index is all zeros
 * again. */
int oracle_next_index(int32_t rank, const int64_t *shape, int64_t *index);

/* Address of an element; it may be unaligned. */
unsigned char *oracle_address(const attn_tensor *tensor, const int64_t *index);

/* The element as a double (bool: 0 or 1); storing a double, rounded to the tensor's type (bool:
 * zero or not). */
double oracle_element(const attn_tensor *tensor, const int64_t *index);
void oracle_store(const attn_tensor *tensor, const int64_t *index, double value);

/* A number as a floating-point type holds it. */
double oracle_rounded(int32_t dtype, double value);

/* The same for int64 and int32 tensors; a double cannot hold every int64. */
int64_t oracle_integer(const attn_tensor *tensor, const int64_t *index);
void oracle_store_integer(const attn_tensor *tensor, const int64_t *index, int64_t value);

/*
 * All elements of the tensor broadcast to `shape` (aligned at the last axis, a missing axis or one
 * of length 1 repeats), in C order. The caller frees the array.
 */
double *oracle_expand(const attn_tensor *tensor, int32_t rank, const int64_t *shape);
int64_t *oracle_expand_integers(const attn_tensor *tensor, int32_t rank, const int64_t *shape);

#endif
