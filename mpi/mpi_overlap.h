/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_overlap.h: whether views share memory, by the core library's rule.
 */
#ifndef ATTNI_MPI_OVERLAP_H
#define ATTNI_MPI_OVERLAP_H

#include <stdbool.h>
#include <stddef.h>

#include <attention/tensor.h>

/* Whether two views certainly share no element: their address ranges are apart, or they are so
 * within one stride of the first, as column slices of one buffer are. */
bool attni_mpi_are_apart(const attn_tensor *a, const attn_tensor *b);

/* So many bytes as a view. */
attn_tensor attni_mpi_bytes_at(const void *data, size_t bytes);

#endif
