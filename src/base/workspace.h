/* SPDX-License-Identifier: BSD-3-Clause
 *
 * workspace.h: the scratch memory of one call. A plan adds up what it needs in an attni_layout and
 * keeps the offsets; the run then takes one block, the caller's or its own, and finds each piece at
 * its offset.
 */
#ifndef ATTNI_BASE_WORKSPACE_H
#define ATTNI_BASE_WORKSPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/allocator.h"
#include "base/error.h"

/* Running size of a workspace. Start from zeroes. */
typedef struct attni_layout {
    size_t bytes;
    bool overflow; /* some piece did not fit: the whole layout is unusable */
} attni_layout;

/* Adds `count` elements of `element_bytes` (both >= 0) and returns their offset, a multiple of
 * ATTNI_ALIGNMENT. */
size_t attni_layout_add(attni_layout *layout, int64_t count, size_t element_bytes);

/* Bytes a caller must give at any alignment, into *bytes. Fails with ATTN_ERROR_OVERFLOW. */
attn_status attni_layout_bytes(const attni_layout *layout, size_t *bytes);

/* The block of one call. */
typedef struct attni_workspace {
    char *base; /* aligned to ATTNI_ALIGNMENT; NULL if the layout is empty */
    void *owned;
    size_t owned_bytes;
} attni_workspace;

/* Fails with ATTN_ERROR_WORKSPACE if the caller's block (not NULL) has fewer than
 * attni_layout_bytes bytes. */
attn_status attni_workspace_check(const attni_layout *layout, const void *given,
                                  size_t given_bytes);

/* Bytes from the start of the caller's block that a call may write, of a layout that was checked.
 * */
size_t attni_workspace_reach(const attni_layout *layout);

/* Takes the caller's block, already checked, or allocates one if it is NULL. Fails with
 * ATTN_ERROR_MEMORY. */
attn_status attni_workspace_acquire(const attni_layout *layout, const attni_allocator *allocator,
                                    void *given, attni_workspace *workspace);

void attni_workspace_release(attni_workspace *workspace, const attni_allocator *allocator);

#endif
