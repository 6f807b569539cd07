/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_block.h: memory in which nothing outside a chosen stretch can be read or written
 * unnoticed.
 */
#ifndef TESTS_KERNELS_GUARDED_BLOCK_H
#define TESTS_KERNELS_GUARDED_BLOCK_H

#include <stddef.h>

#include "support/guard_pages.h"

/* Where the stretch lies. Pages that may not be touched begin before the first and behind the last
 * byte of the block. */
enum guarded_placement {
    GUARDED_AT_START,  /* nothing before it may be touched */
    GUARDED_AT_END,    /* nothing behind it may be touched */
    GUARDED_UNALIGNED, /* in the middle, off every alignment */
    GUARDED_NUM_PLACEMENTS
};

enum { GUARDED_BYTES = 65536 };

typedef struct guarded_block {
    guard_pages pages;
    unsigned char *start; /* the stretch */
    size_t length;
} guarded_block;

/* A block of GUARDED_BYTES, or of some bytes, rounded up to pages. */
void guarded_open(guarded_block *block);
void guarded_open_bytes(guarded_block *block, size_t bytes);
void guarded_close(guarded_block *block);

/* Chooses a stretch of `length` bytes, half of the block at most; a kilobyte before and behind it
 * gets a pattern. */
char *guarded_place(guarded_block *block, size_t length, enum guarded_placement placement);

/* Fails the test if the pattern has been written to. */
void guarded_check(const guarded_block *block, const char *what);

#endif
