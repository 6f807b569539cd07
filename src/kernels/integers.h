/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integers.h: how integers of 8 bits become a vector of float32, exactly. For sources that the
 * build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_INTEGERS_H
#define ATTNI_KERNELS_INTEGERS_H

#include "kernels/vectors.h"

/* Compilers convert integers one by one. */
INLINE vector load_int8(const int8_t *from) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)from)));
#elif VECTOR_BYTES == 32
    return (vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)from)));
#else
    typedef int8_t small __attribute__((vector_size(LANES)));
    small x;
    memcpy(&x, from, sizeof x);
    return __builtin_convertvector(x, vector);
#endif
}

INLINE vector load_uint8(const uint8_t *from) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    return (vector)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)from)));
#elif VECTOR_BYTES == 32
    return (vector)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)from)));
#else
    typedef uint8_t small __attribute__((vector_size(LANES)));
    small x;
    memcpy(&x, from, sizeof x);
    return __builtin_convertvector(x, vector);
#endif
}

#endif
