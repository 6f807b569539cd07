/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_rows.h: one row of a block of scores, and the rows of the weights output.
 */
#ifndef ATTNI_BLAS_BLAS_ROWS_H
#define ATTNI_BLAS_BLAS_ROWS_H

#include "blas/blas_state.h"

/* Turns row `index` of the block from scores into weights and hands out what the caller asked for.
 */
void attni_weigh_row(const attni_blas_engine *engine, int64_t index);

/* Sets the weights output of a head to 0: hidden positions stay so, and averages are added up head
 * by head. */
void attni_clear_weights(const attni_blas_engine *engine, int64_t head);

/* Stores the averages of a batch, where they were summed apart. */
void attni_store_averages(const attni_blas_engine *engine);

#endif
