/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guard_pages.h: memory between two pages that may not be touched.
 */
#ifndef ATTENTION_TESTS_GUARD_PAGES_H
#define ATTENTION_TESTS_GUARD_PAGES_H

#include <stddef.h>

typedef struct guard_pages {
    unsigned char *bytes; /* at the begin of a page */
    size_t capacity;      /* of them; whole pages */
} guard_pages;

/* Zeroes; as many as were asked for, rounded up to pages. Ends the program when memory is out. */
guard_pages guard_pages_map(size_t bytes);
void guard_pages_unmap(const guard_pages *pages);

/* The last `bytes` bytes: the page behind them may not be touched. */
unsigned char *guard_pages_last(const guard_pages *pages, size_t bytes);

#endif
