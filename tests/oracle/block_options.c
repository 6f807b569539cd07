/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_options.c: masks by blocks of the cases.
 */
#include "block_options.h"

#include "call_factors.h"
#include "support/oracle_tensor.h"

/* Rows of a sequence. */
static int64_t rows_of_one(const option_shape *shape) {
    return shape->is_ragged && shape->sequences > 0 ? shape->rows / shape->sequences : shape->rows;
}

/* Such that blocks are many, or vectors of rows divide them, or one is larger than all. */
static int64_t draw_block(int64_t length, random_state *random) {
    static const int64_t some[] = {1, 2, 3, 7, 16, 32, 48};
    const int64_t drawn = random_between(random, 0, 7);
    return drawn < 7 ? some[drawn] : length + 1;
}

/* The axes of a block mask of a level; returns their number. */
static int32_t blocks_axes(int level, const option_shape *shape, const attn_sdpa_params *params,
                           int64_t *axes) {
    const int has_rows = level != BLOCKS_COLUMNS && level != BLOCKS_PER_BATCH;
    const int has_heads = has_rows && level != BLOCKS_MATRIX && shape->lead_rank > 0;
    const int has_batches =
        level == BLOCKS_FULL || level == BLOCKS_HIDING || level == BLOCKS_PER_BATCH;
    const int64_t rows = rows_of_one(shape);
    int32_t rank = 0;
    if (has_batches && shape->is_ragged) {
        axes[rank++] = shape->sequences;
    }
    for (int32_t axis = 0; axis < shape->lead_rank - 1 && has_batches; ++axis) {
        axes[rank++] = shape->lead[axis];
    }
    if ((has_heads || has_batches) && shape->lead_rank > 0) {
        axes[rank++] = has_heads ? shape->lead[shape->lead_rank - 1] : 1;
    }
    if (level != BLOCKS_COLUMNS) {
        axes[rank++] = has_rows ? (rows + params->block_rows - 1) / params->block_rows : 1;
    }
    axes[rank++] = (shape->columns + params->block_columns - 1) / params->block_columns;
    return rank;
}

void build_blocks(int level, const option_shape *shape, tensor_pool *pool, random_state *random,
                  attn_sdpa_params *params) {
    static const enum tensor_layout layouts[NUM_BLOCKS_LEVELS] = {
        [BLOCKS_PER_HEAD] = LAYOUT_REVERSED,
        [BLOCKS_MATRIX] = LAYOUT_TRANSPOSED,
        [BLOCKS_PER_BATCH] = LAYOUT_UNALIGNED};
    int64_t axes[ATTN_MAX_RANK] = {1};
    int32_t rank = 1;
    if (level == BLOCKS_NONE) {
        return;
    }
    params->block_rows = level == BLOCKS_ONE ? INT64_MAX : draw_block(rows_of_one(shape), random);
    params->block_columns = level == BLOCKS_ONE ? INT64_MAX : draw_block(shape->keys, random);
    if (level != BLOCKS_ONE) {
        rank = blocks_axes(level, shape, params, axes);
    }
    attn_tensor *blocks = pool_input(pool, ATTN_DTYPE_UINT8, rank, axes, layouts[level]);
    params->block_mask = blocks;
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(rank, axes) == 0) {
        return;
    }
    do {
        const int is_hidden = random_real(random, 0, 1) < (level == BLOCKS_HIDING ? 0.8 : 0.3);
        oracle_store(blocks, index,
                     is_hidden && level != BLOCKS_ONE ? ATTN_BLOCK_HIDDEN
                                                      : (double)random_between(random, 1, 2));
    } while (oracle_next_index(rank, axes, index));
}
