/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_tensor.h: tensors that own their memory, filled with random numbers.
 */
#ifndef ATTN_BENCH_TENSOR_H
#define ATTN_BENCH_TENSOR_H

#include <stdint.h>

#include <attention/tensor.h>

/* Zeroed: no tensor. */
typedef struct bench_tensor {
    attn_tensor view;
    void *memory;
    int64_t count; /* elements */
} bench_tensor;

/* Allocates a contiguous tensor at a cache line. Returns an exit code, after an error line that
 * calls it `name`. */
int bench_tensor_make(bench_tensor *tensor, const char *name, int32_t dtype, int32_t rank,
                      const int64_t *shape);

void bench_tensor_free(bench_tensor *tensor);

/* Fills a float tensor with numbers of mean 0 and standard deviation 1, nearly normal; the same for
 * the same seed. */
void bench_tensor_fill(bench_tensor *tensor, uint64_t seed);

/* 64 bits that look random: element `index` of sequence `seed`. */
uint64_t bench_random_bits(uint64_t seed, uint64_t index);

/* Bytes of its memory; 0 for no tensor. */
int64_t bench_tensor_bytes(const bench_tensor *tensor);

#endif
