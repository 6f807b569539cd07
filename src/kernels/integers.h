/* SPDX-License-Identifier: BSD-3-Clause
 *
 * integers.h: how integers of 8 bits become a vector of float32, exactly. For sources that the
 * build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_INTEGERS_H
#define ATTNI_KERNELS_INTEGERS_H

#include "kernels/vectors.h"

/* With has_sign the bytes are two's complement. Compilers convert integers one by one. */
INLINE vector load_bytes(const void *from, const int has_sign) {
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
    const __m128i bytes = _mm_loadu_si128(from);
    return (vector)_mm512_cvtepi32_ps(has_sign ? _mm512_cvtepi8_epi32(bytes)
                                               : _mm512_cvtepu8_epi32(bytes));
#elif VECTOR_BYTES == 32
    const __m128i bytes = _mm_loadl_epi64(from);
    return (vector)_mm256_cvtepi32_ps(has_sign ? _mm256_cvtepi8_epi32(bytes)
                                               : _mm256_cvtepu8_epi32(bytes));
#else
    typedef int8_t with_sign __attribute__((vector_size(LANES)));
    typedef uint8_t without_sign __attribute__((vector_size(LANES)));
    with_sign x;
    memcpy(&x, from, sizeof x);
    return has_sign ? __builtin_convertvector(x, vector)
                    : __builtin_convertvector((without_sign)x, vector);
#endif
}

#endif
