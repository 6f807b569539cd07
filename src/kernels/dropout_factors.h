/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dropout_factors.h: what dropout multiplies neighbouring weights of a row with. For sources that
 * the build compiles for each instruction set.
 */
#ifndef ATTNI_KERNELS_DROPOUT_FACTORS_H
#define ATTNI_KERNELS_DROPOUT_FACTORS_H

#include "kernels/dropout_stream.h"
#include "kernels/philox.h"
#if defined(ATTNI_REAL_IS_float)
#include "kernels/transpose.h"
#endif
#include "kernels/vectors.h"

enum { DROP_COLS = 4 * WORD_LANES };

/* What DROP_COLS columns from 4 * group on are multiplied with. The counters of neighbouring columns
 * are where transposed squares of 4 x 4 words bring them side by side. */
INLINE void drop_factors(real *factors, uint32_t group, uint32_t number, uint32_t head,
                         const attni_dropout_stream *stream) {
    uint32_t groups[WORD_LANES];
    for (uint32_t lane = 0; lane < WORD_LANES; ++lane) {
        groups[lane] = group + lane % 4 * (WORD_LANES / 4) + lane / 4;
    }
    word_vector counter[4] = {
        {0}, number - (word_vector){0}, head - (word_vector){0}, stream->batch - (word_vector){0}};
    memcpy(&counter[0], groups, sizeof groups);
    philox(counter, stream->key);
#if defined(ATTNI_REAL_IS_float)
    vector kept[4];
    UNROLL
    for (int word = 0; word < 4; ++word) {
        kept[word] = choose((vector_mask)(counter[word] >= stream->threshold),
                            broadcast((real)stream->scale), broadcast(0));
    }
    transpose_quads(kept);
    UNROLL
    for (int word = 0; word < 4; ++word) {
        store(factors + word * LANES, kept[word]);
    }
#else
    for (int lane = 0; lane < WORD_LANES; ++lane) {
        for (int word = 0; word < 4; ++word) {
            factors[4 * (groups[lane] - group) + (uint32_t)word] =
                counter[word][lane] >= stream->threshold ? stream->scale : 0;
        }
    }
#endif
}

#endif
