/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tiny_layer.h: a layer so small that its results are known by hand.
 *
 * One head of one feature: q = x + 1, k = x, v = 4x + 2, output = 0.5 * context + 1. With two words
 * x = 0, 1 the scores of row i are (0, i + 1), the values 2 and 6, and so the output of a row with
 * weights (w0, w1) is w0 + 3 * w1 + 1.
 */
#ifndef ATTENTION_TESTS_CLI_TINY_LAYER_H
#define ATTENTION_TESTS_CLI_TINY_LAYER_H

#include "safetensors_write.h"

/* How a file names and stores the layer. */
enum tiny_naming {
    TINY_TORCH_PACKED,
    TINY_TORCH_SEPARATE,
    TINY_BERT,
    TINY_BART,
    TINY_LLAMA,
    TINY_NAMINGS
};

/* Writes the layer, each tensor's name after the prefix, as dtype "F32", "F64", "F16" or "BF16",
 * with metadata. */
void tiny_layer_write(const char *path, const char *prefix, int naming, const char *dtype,
                      const safetensors_text *texts, int64_t text_count);

/* The same, and beside the layer a tensor of one number for each of these whole names, at most 8;
 * NULL ends the list. */
void tiny_layer_write_beside(const char *path, const char *prefix, int naming, const char *dtype,
                             const char *const *extras, const safetensors_text *texts,
                             int64_t text_count);

/* Writes one F32 tensor. */
void tiny_tensor_write(const char *path, const char *name, int32_t rank, const int64_t *shape,
                       const float *values, const safetensors_text *texts, int64_t text_count);

/* Writes one BOOL tensor. */
void tiny_mask_write(const char *path, const char *name, int32_t rank, const int64_t *shape,
                     const unsigned char *values);

/* Compares a floating tensor of a file with `count` values: each is to be within 1e-6, what
 * computing in float32 may change, and half the spacing of the file's type. */
void assert_tensor(const char *path, const char *name, int64_t count, const double *expected);

/* CMocka fixture: a scratch directory with layer.safetensors, whose metadata says num_heads 1, and
 * x.safetensors: a tensor x (2, 1) of 0 and 1 with the words river and bank. Its teardown is
 * scratch_teardown. */
int tiny_layer_setup(void **state);

#endif
