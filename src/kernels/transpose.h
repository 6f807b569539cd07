/* SPDX-License-Identifier: BSD-3-Clause
 *
 * transpose.h: a square of LANES x LANES float32 elements, transposed in registers. For sources
 * that the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_TRANSPOSE_H
#define ATTNI_KERNELS_TRANSPOSE_H

#include "kernels/vectors.h"

/* Pairs of elements, halves of quarters and so on change places between two vectors; every step is
 * one instruction of the common instruction sets, which work within quarters of 128 bits. */
#if VECTOR_BYTES == 64
#define LOW_ONES 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define HIGH_ONES 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define LOW_TWOS 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_TWOS 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW_FOURS 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH_FOURS 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW_EIGHTS 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_EIGHTS 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#elif VECTOR_BYTES == 32
#define LOW_ONES 0, 8, 1, 9, 4, 12, 5, 13
#define HIGH_ONES 2, 10, 3, 11, 6, 14, 7, 15
#define LOW_TWOS 0, 1, 8, 9, 4, 5, 12, 13
#define HIGH_TWOS 2, 3, 10, 11, 6, 7, 14, 15
#define LOW_FOURS 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_FOURS 4, 5, 6, 7, 12, 13, 14, 15
#else
#define LOW_ONES 0, 4, 1, 5
#define HIGH_ONES 2, 6, 3, 7
#define LOW_TWOS 0, 1, 4, 5
#define HIGH_TWOS 2, 3, 6, 7
#endif

/* Rows 4 i to 4 i + 3: transposes each of their 4 x 4 squares. */
INLINE void transpose_quads(vector *rows) {
    const vector a = __builtin_shufflevector(rows[0], rows[1], LOW_ONES);
    const vector b = __builtin_shufflevector(rows[0], rows[1], HIGH_ONES);
    const vector c = __builtin_shufflevector(rows[2], rows[3], LOW_ONES);
    const vector d = __builtin_shufflevector(rows[2], rows[3], HIGH_ONES);
    rows[0] = __builtin_shufflevector(a, c, LOW_TWOS);
    rows[1] = __builtin_shufflevector(a, c, HIGH_TWOS);
    rows[2] = __builtin_shufflevector(b, d, LOW_TWOS);
    rows[3] = __builtin_shufflevector(b, d, HIGH_TWOS);
}

/* Row i, column j of the square to row j, column i. */
INLINE void transpose(vector square[LANES]) {
    UNROLL
    for (int i = 0; i < LANES; i += 4) {
        transpose_quads(square + i);
    }
#if VECTOR_BYTES >= 32
    UNROLL
    for (int i = 0; i < LANES; ++i) {
        if ((i & 4) == 0) {
            const vector low = square[i];
            const vector high = square[i + 4];
            square[i] = __builtin_shufflevector(low, high, LOW_FOURS);
            square[i + 4] = __builtin_shufflevector(low, high, HIGH_FOURS);
        }
    }
#endif
#if VECTOR_BYTES == 64
    UNROLL
    for (int i = 0; i < LANES / 2; ++i) {
        const vector low = square[i];
        const vector high = square[i + 8];
        square[i] = __builtin_shufflevector(low, high, LOW_EIGHTS);
        square[i + 8] = __builtin_shufflevector(low, high, HIGH_EIGHTS);
    }
#endif
}

#endif
