/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_copy.h: elements of one view to those of another, copied or added.
 */
#ifndef ATTNI_MPI_COPY_H
#define ATTNI_MPI_COPY_H

#include <stdint.h>

#include <attention/tensor.h>

/* Copies all elements; the views have the same shape and dtype and share no memory. */
void attni_mpi_copy(const attn_tensor *from, const attn_tensor *to);

/* The same, but adds, of one type that is float32 or float64. */
void attni_mpi_add(const attn_tensor *from, const attn_tensor *to);

/* Adds so many bytes of numbers of such a type, side by side and aligned, to those at `to`. */
void attni_mpi_add_flat(const void *from, int32_t dtype, int64_t bytes, void *to);

/* `count` positions from `first` on of an axis, counted from the end: -2 are rows, -3 heads. They
 * must lie inside. */
attn_tensor attni_mpi_slice(const attn_tensor *tensor, int32_t axis, int64_t first, int64_t count);

#endif
