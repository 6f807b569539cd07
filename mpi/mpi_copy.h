/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_copy.h: elements of one view to those of another.
 */
#ifndef ATTNI_MPI_COPY_H
#define ATTNI_MPI_COPY_H

#include <stdint.h>

#include <attention/tensor.h>

/* Copies all elements; the views have the same shape and dtype and share no memory. */
void attni_mpi_copy(const attn_tensor *from, const attn_tensor *to);

/* `count` positions from `first` on of an axis, counted from the end: -2 are rows, -3 heads. They
 * must lie inside. */
attn_tensor attni_mpi_slice(const attn_tensor *tensor, int32_t axis, int64_t first, int64_t count);

#endif
