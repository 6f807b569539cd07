/* SPDX-License-Identifier: BSD-3-Clause
 *
 * structured_mask.c: blocks of a mask, and shapes and layouts for it.
 */
#include "structured_mask.h"

#include <math.h>

#include "support/oracle_tensor.h"

enum { BLOCKS = 4, NUM_UNITS = 6, NUM_SHAPES = 6 };

/* Keys of tiles and chunks, rows of panels and vectors. */
static const int64_t units[NUM_UNITS] = {8, 16, 48, 96, 256, 2048};

int64_t length_at_border(random_state *random, int64_t most) {
    const int64_t unit = units[random_between(random, 0, NUM_UNITS - 1)];
    const int64_t length = unit * random_between(random, 1, 4) + random_between(random, -1, 1);
    return length > most ? random_between(random, 1, most) : length;
}

enum block_kind { BLOCK_HIDDEN, BLOCK_SHOWN, BLOCK_MIXED };

/* Ascending ends of the blocks of an axis; the last is the axis's. */
static void draw_ends(random_state *random, int64_t length, int64_t ends[BLOCKS]) {
    int64_t last = 0;
    for (int i = 0; i < BLOCKS - 1; ++i) {
        const int is_anywhere = random_between(random, 0, 1) == 0;
        const int64_t next =
            is_anywhere ? random_between(random, 1, length) : length_at_border(random, length);
        last = next > last ? next : last;
        ends[i] = last;
    }
    ends[BLOCKS - 1] = length;
}

static int block_of(const int64_t ends[BLOCKS], int64_t index) {
    int block = 0;
    while (index >= ends[block]) {
        ++block;
    }
    return block;
}

static int is_shown(random_state *random, enum block_kind kind) {
    return kind == BLOCK_MIXED ? random_between(random, 0, 3) != 0 : kind == BLOCK_SHOWN;
}

/* What an additive mask has where it shows: in whole blocks mostly 0. */
static double draw_bias(random_state *random, enum block_kind kind) {
    return kind == BLOCK_MIXED ? random_real(random, -2, 2)
                               : (random_between(random, 0, 63) == 0 ? 0.5 : 0);
}

static void fill_element(const attn_tensor *mask, const int64_t *index, random_state *random,
                         int32_t mask_kind, enum block_kind kind) {
    const int shows = is_shown(random, kind);
    if (mask_kind == ATTN_MASK_ADDITIVE) {
        oracle_store(mask, index, shows ? draw_bias(random, kind) : -INFINITY);
    } else {
        oracle_store(mask, index, shows == (mask_kind == ATTN_MASK_BOOL_INCLUDE));
    }
}

/* Heads and batches have blocks of their own kinds, with the borders of all. */
static void fill_blocks(const attn_tensor *mask, random_state *random, int32_t mask_kind) {
    int64_t row_ends[BLOCKS];
    int64_t key_ends[BLOCKS];
    int64_t index[ATTN_MAX_RANK] = {0};
    enum block_kind kinds[BLOCKS][BLOCKS] = {{BLOCK_HIDDEN}};
    draw_ends(random, mask->shape[2], row_ends);
    draw_ends(random, mask->shape[3], key_ends);
    do {
        if (index[2] == 0 && index[3] == 0) {
            for (int i = 0; i < BLOCKS * BLOCKS; ++i) {
                const int64_t draw = random_between(random, 0, 9);
                kinds[i / BLOCKS][i % BLOCKS] = draw < 5   ? BLOCK_HIDDEN
                                                : draw < 8 ? BLOCK_SHOWN
                                                           : BLOCK_MIXED;
            }
        }
        fill_element(mask, index, random, mask_kind,
                     kinds[block_of(row_ends, index[2])][block_of(key_ends, index[3])]);
    } while (oracle_next_index(4, mask->shape, index));
}

attn_tensor *structured_mask(tensor_pool *pool, random_state *random, int32_t kind, int32_t dtype,
                             const int64_t scores[4]) {
    /* Which axes are whole; the others have length 1. */
    static const int is_whole[NUM_SHAPES][4] = {{0, 0, 1, 1}, {0, 0, 1, 1}, {1, 0, 1, 1},
                                                {1, 1, 1, 1}, {1, 0, 0, 1}, {0, 1, 1, 0}};
    const int shape_of = (int)random_between(random, 0, NUM_SHAPES - 1);
    const int is_plain = random_between(random, 0, 1) == 0;
    const enum tensor_layout layout =
        is_plain ? LAYOUT_CONTIGUOUS
                 : (enum tensor_layout)random_between(random, 0, LAYOUT_NUM_INPUT - 1);
    int64_t shape[4];
    for (int axis = 0; axis < 4; ++axis) {
        shape[axis] = is_whole[shape_of][axis] ? scores[axis] : 1;
    }
    attn_tensor *mask =
        pool_input(pool, kind == ATTN_MASK_ADDITIVE ? dtype : ATTN_DTYPE_BOOL, 4, shape, layout);
    fill_blocks(mask, random, kind);
    return mask;
}
