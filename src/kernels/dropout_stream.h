/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dropout_stream.h: which weights dropout keeps, as kernels are told: a weight has the random word
 * (column mod 4) of Philox4x32-10 with the counter {column / 4, row, head and batch} and is kept if
 * that is not below a threshold (see attention/sdpa.h, attn_dropout).
 */
#ifndef ATTNI_KERNELS_DROPOUT_STREAM_H
#define ATTNI_KERNELS_DROPOUT_STREAM_H

#include <stdint.h>

typedef struct attni_dropout_stream {
    uint32_t key[2];
    uint32_t threshold;
    uint32_t batch; /* the counter's last word */
    double scale;   /* of what is kept */
} attni_dropout_stream;

#endif
