/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_block_mask.h: which blocks of rows and keys a --block-mask leaves, alike for the tensor and
 * for the count of what is seen.
 */
#ifndef ATTN_BENCH_BLOCK_MASK_H
#define ATTN_BENCH_BLOCK_MASK_H

#include "bench_options.h"

/* Reads the text of --block-mask. Returns an exit code, after an error line. */
int bench_block_mask_read(bench_options *options);

/* Blocks along the rows of the longest sequence, and along the keys; 1 without a mask. */
int64_t bench_block_count_rows(const bench_options *options);
int64_t bench_block_count_columns(const bench_options *options);

/* Keys [0, width) of a block column; all keys without a mask. */
int64_t bench_block_width(const bench_options *options);

/* Whether rows see keys there; always without a mask. */
int bench_block_shows(const bench_options *options, int64_t block_row, int64_t block_column);

#endif
