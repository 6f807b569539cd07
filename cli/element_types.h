/* SPDX-License-Identifier: BSD-3-Clause
 *
 * element_types.h: the element types attn computes with and stores: one table of what they are
 * called, how long they are, and how one element is read and written.
 */
#ifndef ATTN_CLI_ELEMENT_TYPES_H
#define ATTN_CLI_ELEMENT_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

typedef struct element_type {
    int32_t dtype;         /* enum attn_dtype */
    int32_t precision;     /* bits of a significand, its leading 1 included: a normal number x is
                              rounded by at most x * 2^-precision; 0: bool, which is not floating */
    const char *file_name; /* in .safetensors files: "BF16" */
    const char *title;     /* on the command line and in reports: "bfloat16" */
    size_t bytes;
    double largest;                      /* finite value */
    double (*read)(const void *element); /* at any alignment; exact */
    /* To nearest, ties to even, rounded once; beyond the largest: infinity. A bool: value != 0. */
    void (*write)(void *element, double value);
} element_type;

/* The type of that number; NULL if attn has none. */
const element_type *element_type_of(int32_t dtype);

/* The type of that name in files; NULL if attn has none: integers, for instance. */
const element_type *element_type_in_file(const char *file_name);

/* Element `index` of a contiguous tensor; NaN if it is of none of these types. */
double element_at(const attn_tensor *tensor, int64_t index);

#endif
