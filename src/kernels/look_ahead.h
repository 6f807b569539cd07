/* SPDX-License-Identifier: BSD-3-Clause
 *
 * look_ahead.h: asks for memory before it is needed. For sources that the build compiles for each
 * instruction set.
 */
#ifndef ATTNI_KERNELS_LOOK_AHEAD_H
#define ATTNI_KERNELS_LOOK_AHEAD_H

#include "kernels/ahead.h"
#include "kernels/vectors.h"

INLINE void ask_for_rows(attni_ahead *ahead) {
    for (int64_t i = 0; i < ahead->rows_at_once && ahead->num_rows > 0; ++i) {
        for (int64_t byte = 0; byte < ahead->bytes; byte += 64) {
            __builtin_prefetch(ahead->row + byte, 0, 2);
        }
        ahead->row += ahead->stride;
        --ahead->num_rows;
    }
}

/* Asks for rows that the second-level cache should have by the time they are needed. */
INLINE void look_ahead(attni_ahead *ahead) {
    for (; ahead != NULL; ahead = ahead->also) {
        ask_for_rows(ahead);
    }
}

#endif
