/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_memory.h: the one block of memory of a call, the caller's or an allocation.
 */
#ifndef ATTNI_MPI_MEMORY_H
#define ATTNI_MPI_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi_error.h"

/* Pieces of the block, one behind the other, each a whole number of units of messages. */
typedef struct attni_mpi_layout {
    int64_t bytes;
    bool overflows;
} attni_mpi_layout;

/* Appends count elements and returns the offset of the first. */
int64_t attni_mpi_layout_add(attni_mpi_layout *layout, int64_t count, int64_t element_bytes);

/* Appends what a contiguous tensor of the view's shape and dtype takes. */
int64_t attni_mpi_layout_add_tensor(attni_mpi_layout *layout, const attn_tensor *view);

/* The view's shape in contiguous memory of this dtype at `data`. */
attn_tensor attni_mpi_contiguous(const attn_tensor *view, int32_t dtype, void *data);

/* Bytes of the contiguous tensor, rounded up to whole units; INT64_MAX if that does not fit. */
int64_t attni_mpi_tensor_bytes(const attn_tensor *view);

typedef struct attni_mpi_memory {
    char *base; /* aligned to a unit */
    void *owned;
    size_t owned_bytes;
} attni_mpi_memory;

/* What a caller's workspace must have for it at any alignment. */
attn_status attni_mpi_layout_bytes(const attni_mpi_layout *layout, size_t *bytes);

/* Fails with ATTN_ERROR_WORKSPACE, ATTN_ERROR_OVERFLOW or ATTN_ERROR_MEMORY. */
attn_status attni_mpi_memory_take(attn_context *context, const attni_mpi_layout *layout,
                                  void *workspace, size_t workspace_bytes,
                                  attni_mpi_memory *memory);
void attni_mpi_memory_release(attn_context *context, attni_mpi_memory *memory);

#endif
