/* SPDX-License-Identifier: BSD-3-Clause
 *
 * allocator.h: the one way to memory. Everything the library allocates goes through an
 * attni_allocator, so that a caller's allocator and the tests' failing one see every allocation.
 */
#ifndef ATTNI_BASE_ALLOCATOR_H
#define ATTNI_BASE_ALLOCATOR_H

#include <stddef.h>

typedef struct attni_allocator {
    void *(*allocate)(void *state, size_t bytes, size_t alignment);
    void (*deallocate)(void *state, void *memory, size_t bytes, size_t alignment);
    void *state;
} attni_allocator;

/* Alignment of every block the library asks for: one cache line, which is also the widest vector.
 */
enum { ATTNI_ALIGNMENT = 64 };

/* The C library's allocator. */
extern const attni_allocator attni_system_allocator;

/* `bytes` > 0 bytes at ATTNI_ALIGNMENT, uninitialised, or NULL. */
void *attni_allocate(const attni_allocator *allocator, size_t bytes);

/* Frees what attni_allocate returned for the same size. NULL is allowed. */
void attni_deallocate(const attni_allocator *allocator, void *memory, size_t bytes);

#endif
