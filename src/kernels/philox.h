/* SPDX-License-Identifier: BSD-3-Clause
 *
 * philox.h: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011), a counter in each lane of 4 vectors
 * of 32 bits. For sources that the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_PHILOX_H
#define ATTNI_KERNELS_PHILOX_H

#include "kernels/vectors.h"

typedef uint32_t word_vector __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t wide_word_vector __attribute__((vector_size(VECTOR_BYTES)));

enum { WORD_LANES = VECTOR_BYTES / sizeof(uint32_t), PHILOX_ROUNDS = 10 };

/* The products of every second 32 bits, from the lowest, with a constant below 2^32. */
INLINE wide_word_vector multiply_words(wide_word_vector x, uint32_t factor) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (wide_word_vector)_mm512_mul_epu32((__m512i)x, _mm512_set1_epi64(factor));
#elif VECTOR_BYTES == 32
    return (wide_word_vector)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(factor));
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
    return (wide_word_vector)_mm_mul_epu32((__m128i)x, _mm_set1_epi64x(factor));
#else
    return (x & UINT32_MAX) * (uint64_t)factor;
#endif
}

INLINE void multiply_high_low(word_vector x, uint32_t factor, word_vector *high, word_vector *low) {
    const uint64_t upper = UINT64_MAX - UINT32_MAX;
    const wide_word_vector even = multiply_words((wide_word_vector)x, factor);
    const wide_word_vector odd = multiply_words((wide_word_vector)x >> 32, factor);
    *high = (word_vector)((even >> 32) | (odd & upper));
    *low = (word_vector)((even & UINT32_MAX) | (odd << 32));
}

INLINE void philox(word_vector counter[4], const uint32_t key[2]) {
    uint32_t first = key[0];
    uint32_t second = key[1];
    UNROLL
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        word_vector high[2];
        word_vector low[2];
        multiply_high_low(counter[0], 0xD2511F53U, &high[0], &low[0]);
        multiply_high_low(counter[2], 0xCD9E8D57U, &high[1], &low[1]);
        counter[0] = high[1] ^ counter[1] ^ first;
        counter[1] = low[1];
        counter[2] = high[0] ^ counter[3] ^ second;
        counter[3] = low[0];
        first += 0x9E3779B9U;
        second += 0xBB67AE85U;
    }
}

#endif
