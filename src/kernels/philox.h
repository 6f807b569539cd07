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

/* Counters, of whose 64 bits only the lower 32 count. */
typedef struct wide_counter {
    wide_word_vector words[4];
} wide_counter;

INLINE wide_counter philox_round(wide_counter counter, wide_word_vector first,
                                 wide_word_vector second) {
    const wide_word_vector low = multiply_words(counter.words[0], 0xD2511F53U);
    const wide_word_vector high = multiply_words(counter.words[2], 0xCD9E8D57U);
    return (wide_counter){{
        (high >> 32) ^ counter.words[1] ^ first,
        high,
        (low >> 32) ^ counter.words[3] ^ second,
        low,
    }};
}

/* Every second counter apart, as products are: two chains that do not wait for each other, and
 * nothing to put together before the end. */
INLINE void philox(word_vector counter[4], const uint32_t key[2]) {
    wide_word_vector first = key[0] - (wide_word_vector){0};
    wide_word_vector second = key[1] - (wide_word_vector){0};
    wide_counter even;
    wide_counter odd;
    UNROLL
    for (int word = 0; word < 4; ++word) {
        even.words[word] = (wide_word_vector)counter[word];
        odd.words[word] = even.words[word] >> 32;
    }
    UNROLL
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        even = philox_round(even, first, second);
        odd = philox_round(odd, first, second);
        first += 0x9E3779B9U;
        second += 0xBB67AE85U;
    }
    UNROLL
    for (int word = 0; word < 4; ++word) {
        counter[word] = (word_vector)((even.words[word] & UINT32_MAX) | (odd.words[word] << 32));
    }
}

#endif
