/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_load.h: tensors of a file as aligned memory of an element type the library computes with.
 */
#ifndef ATTN_CLI_TENSOR_LOAD_H
#define ATTN_CLI_TENSOR_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "safetensors_read.h"

/* A contiguous tensor with its memory. All zero: none. */
typedef struct owned_tensor {
    attn_tensor view;
    void *memory; /* view.data, NULL if there is none */
    size_t memory_bytes;
} owned_tensor;

/* Frees the memory and makes it "none" again. */
void owned_tensor_free(owned_tensor *tensor);

/* Allocates zeroed memory for a shape. 0, or -1 with one line in `error`. */
int owned_tensor_allocate(owned_tensor *tensor, int32_t dtype, int32_t rank, const int64_t *shape,
                          char *error, size_t error_bytes);

/* 1 if the entry's dtype is a floating type tensor_load_values can convert: F16, BF16, F32, F64. */
int entry_is_floating(const safetensors_entry *entry);

/*
 * Copies a tensor's values, converted to `dtype`: to ATTN_DTYPE_FLOAT32, FLOAT64, BFLOAT16 or
 * FLOAT16 from F16, BF16, F32 and F64; to ATTN_DTYPE_BOOL from BOOL. Wider types hold the same
 * values; narrower ones are rounded to once. 0, or -1 with one line in `error` that names the
 * tensor.
 */
int tensor_load_values(const safetensors_entry *entry, int32_t dtype, owned_tensor *tensor,
                       char *error, size_t error_bytes);

/* Writes "(3, 14, 384)" for a shape. Cut to `bytes`. Returns `text`. */
const char *shape_text(const int64_t *shape, int32_t rank, char *text, size_t bytes);

#endif
