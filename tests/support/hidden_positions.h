/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hidden_positions.h: a tensor (batches, heads, positions, features) of which each batch may be
 * read at some positions only; the others lie in pages that may not be touched, so that a wrong
 * read ends the process.
 *
 * Pages are larger than rows. So either the first positions that may be read begin a page, or the
 * last ones end one, in every batch and head at once and whatever the size of a page: the stride
 * of the batches makes up for what the positions differ from batch to batch.
 */
#ifndef ATTENTION_TESTS_HIDDEN_POSITIONS_H
#define ATTENTION_TESTS_HIDDEN_POSITIONS_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

enum hidden_edge { HIDDEN_BEGIN, HIDDEN_END };

/* Batch b shows positions [begin + b * begin_step, end + b * end_step), within 0..positions; none
 * where both are the same. */
typedef struct hidden_shape {
    int32_t dtype; /* float32, float64 or bool */
    int64_t batches, heads, positions, features;
    int64_t begin, begin_step, end, end_step;
} hidden_shape;

/* The whole tensor has addresses of its own, hidden positions included, so that nothing else can
 * lie there. */
typedef struct hidden_positions {
    unsigned char *base;
    size_t bytes;
    attn_tensor view; /* rank 4, rows of features dense */
} hidden_positions;

/* What may be read is -3 to 3, or true and false. `edge` says which of its ends meets a page's.
 * Ends the program when memory is out. */
hidden_positions hidden_positions_map(const hidden_shape *shape, enum hidden_edge edge);
void hidden_positions_unmap(const hidden_positions *hidden);

#endif
