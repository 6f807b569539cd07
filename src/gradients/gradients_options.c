/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_options.c: an item is a part of an option that others do not add to: a tile of a mask,
 * all elements of a row or column that repeats, a head's table or number. It goes through all that
 * adds to it in a fixed order, so that nothing is kept between items.
 */
#include "gradients/gradients_options.h"

#include <math.h>
#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_blocks.h"
#include "gradients/gradients_owners.h"
#include "gradients/gradients_tile.h"
#include "gradients/gradients_view.h"
#include "problem/block_mask.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

/* An item on its way. */
typedef struct option_sums {
    const attni_gradients_option *option;
    attni_gradients_item item;
    attni_gradient_owners owners;
    double *table;     /* sums, but for tiles of masks: these are of the score type there */
    bool has_rows;     /* of a mask: elements of their own */
    bool has_cols;     /* likewise */
    int64_t row_parts; /* blocks of rows that are items of their own, or 1 */
    int64_t col_parts; /* likewise of columns */
    int64_t row_part;
    int64_t col_part;
} option_sums;

static const attni_mask *mask_of(const option_sums *sums) {
    return &sums->item.view.gradients->masks[sums->option->mask];
}

/* ---- parts ---- */

static int64_t columns_of(const attni_sdpa_problem *gradients, const attni_mask *mask) {
    return mask->columns == ATTNI_COLUMNS_ARE_PLACED ? mask->num_columns : gradients->src_len;
}

static void divide(option_sums *sums) {
    const attni_gradients_engine *engine = sums->option->engine;
    const attni_sdpa_problem *gradients = &engine->problem->gradients;
    const attni_mask *mask = &gradients->masks[sums->option->mask];
    sums->row_parts = 1;
    sums->col_parts = 1;
    switch (sums->option->option) {
    case ATTNI_OF_MASK:
        sums->owners = attni_mask_owners(gradients, mask);
        sums->has_rows = mask->strides[gradients->batch_rank + 1] != 0;
        sums->has_cols = mask->strides[gradients->batch_rank + 2] != 0 ||
                         mask->columns == ATTNI_COLUMNS_ARE_PLACED;
        sums->row_parts = sums->has_rows ? engine->plan->row_blocks : 1;
        sums->col_parts =
            sums->has_cols ? attni_divide_up(columns_of(gradients, mask), engine->plan->key_block)
                           : 1;
        break;
    case ATTNI_OF_DISTANCES:
        sums->owners = attni_mask_owners(gradients, mask);
        break;
    case ATTNI_OF_SLOPES:
        sums->owners =
            attni_gradient_owners_of(gradients, gradients->alibi_slopes.strides, false, 0);
        break;
    case ATTNI_OF_SINKS:
        sums->owners = attni_gradient_owners_of(gradients, gradients->sinks.strides, false, 0);
        break;
    }
}

int64_t attni_gradients_option_items(const attni_gradients_option *option) {
    option_sums sums = {.option = option};
    divide(&sums);
    return sums.owners.batches * sums.owners.heads * sums.row_parts * sums.col_parts;
}

/* ---- a tile's share ---- */

/* A tile of a mask; `offset` is the column of the table that the block's first key has. */
static void add_mask_tile(option_sums *sums, int64_t offset) {
    const attni_gradients_item *item = &sums->item;
    const attni_gradients_engine *engine = item->engine;
    const int64_t stride = engine->plan->key_block;
    const int64_t first = item->rows.first - sums->row_part * engine->plan->row_block;
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const char *row = attni_gradients_at(item, item->tile.scores, index, 0);
        if (sums->has_rows && sums->has_cols) {
            char *table =
                (char *)sums->table + ((first + index) * stride + offset) * engine->element;
            engine->kernels->add(table, row, item->keys.count);
        } else if (sums->has_cols) {
            for (int64_t key = 0; key < item->keys.count; ++key) {
                sums->table[offset + key] += attni_read_real(row, key, engine->dtype);
            }
        } else {
            sums->table[sums->has_rows ? first + index : 0] +=
                engine->kernels->sum(row, item->keys.count);
        }
    }
}

/* Where a block does not ask the mask, a score is no function of it. */
static void forget_unasked(const attni_gradients_item *item) {
    const size_t element = (size_t)item->engine->element;
    const int64_t begin = item->keys.keys.begin;
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const attni_interval seen = item->tile.seen[index];
        attni_interval keys = {begin + seen.begin, begin + seen.end};
        while (keys.begin < keys.end) {
            const attni_block_stretch stretch =
                attni_block_stretch_of(item->view.call, item->view.sequence.batch, item->rows.head,
                                       item->rows.first + index, keys);
            if (stretch.block != ATTN_BLOCK_MASKED) {
                memset(attni_gradients_at(item, item->tile.scores, index, keys.begin - begin), 0,
                       (size_t)(stretch.keys.end - keys.begin) * element);
            }
            keys.begin = stretch.keys.end;
        }
    }
}

static void add_distances(option_sums *sums) {
    const attni_gradients_item *item = &sums->item;
    const int64_t reach = mask_of(sums)->num_columns / 2;
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const char *row = attni_gradients_at(item, item->tile.scores, index, 0);
        const attni_interval seen = item->tile.seen[index];
        const int64_t position =
            attni_row_position(&item->view.sequence.visibility, item->rows.first + index);
        for (int64_t key = seen.begin; key < seen.end; ++key) {
            const int64_t before = attni_saturating_add(position, -item->keys.keys.begin - key);
            sums->table[reach - attni_clamp(before, -reach, reach)] +=
                attni_read_real(row, key, item->engine->dtype);
        }
    }
}

static void add_slopes(option_sums *sums) {
    const attni_gradients_item *item = &sums->item;
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const char *row = attni_gradients_at(item, item->tile.scores, index, 0);
        const attni_interval seen = item->tile.seen[index];
        const int64_t position =
            attni_row_position(&item->view.sequence.visibility, item->rows.first + index);
        for (int64_t key = seen.begin; key < seen.end; ++key) {
            const double distance = fabs((double)position - (double)(item->keys.keys.begin + key));
            sums->table[0] -= attni_read_real(row, key, item->engine->dtype) * distance;
        }
    }
}

static void add_tile(option_sums *sums, int64_t offset) {
    switch (sums->option->option) {
    case ATTNI_OF_MASK:
        if (sums->option->mask == ATTNI_MASK && attni_has_blocks(sums->item.view.call)) {
            forget_unasked(&sums->item);
        }
        add_mask_tile(sums, offset);
        break;
    case ATTNI_OF_DISTANCES:
        add_distances(sums);
        break;
    default:
        add_slopes(sums);
        break;
    }
}

/* ---- what adds to a part ---- */

static void add_rows(option_sums *sums, int64_t head, int64_t offset) {
    attni_gradients_item *item = &sums->item;
    const int64_t size = item->engine->plan->row_block;
    const int64_t blocks = attni_divide_up(item->view.call->tgt_len, size);
    const int64_t first = sums->row_part;
    const int64_t end = sums->has_rows ? attni_min(first + 1, blocks) : blocks;
    for (int64_t block = first; block < end; ++block) {
        const attni_interval rows = attni_gradients_seeing_rows(item, head, block);
        if (rows.begin < rows.end) {
            attni_gradients_take_keys(item, head);
            attni_gradients_take_rows(item, head, rows.begin, rows.end - rows.begin);
            if (attni_gradients_compute(item, ATTNI_TO_OPTIONS)) {
                add_tile(sums, offset);
            }
        }
    }
}

/* Keys of the part's columns, which begin at another key in every sequence where they are placed. */
static void add_columns(option_sums *sums, int64_t head) {
    attni_gradients_item *item = &sums->item;
    const attni_mask *mask = mask_of(sums);
    const int64_t size = item->engine->plan->key_block;
    const bool is_placed = mask->columns == ATTNI_COLUMNS_ARE_PLACED;
    const int64_t origin = is_placed ? item->view.sequence.mask_start : 0;
    const int64_t first = sums->col_part * size;
    const int64_t end = attni_min(first + size, columns_of(item->view.gradients, mask));
    const int64_t begin_key = attni_clamp(first + origin, 0, item->view.sequence.num_rows);
    const int64_t end_key = attni_clamp(end + origin, begin_key, item->view.sequence.num_rows);
    attni_gradients_place_keys(item, (attni_interval){begin_key, end_key});
    add_rows(sums, head, item->keys.keys.begin - origin - first);
}

static void add_keys(option_sums *sums, int64_t head) {
    attni_gradients_item *item = &sums->item;
    const int64_t blocks =
        attni_divide_up(item->view.sequence.num_rows, item->engine->plan->key_block);
    for (int64_t block = 0; block < blocks; ++block) {
        attni_gradients_choose_keys(item, block);
        add_rows(sums, head, 0);
    }
}

/* exp(sink - lse) is the sink's own weight, and 0 its value. */
static void add_sinks(option_sums *sums, int64_t head) {
    const attni_gradients_item *item = &sums->item;
    const attni_sdpa_problem *call = item->view.call;
    const double sink = attni_read_real(
        call->sinks.data, head * call->sinks.strides[call->batch_rank], call->sinks.dtype);
    for (int64_t row = 0; row < call->tgt_len; ++row) {
        double lse;
        attni_gradients_take_lse(item, head, row, 1, &lse);
        if (lse != -(double)INFINITY) {
            sums->table[0] -= exp(sink - lse) * *attni_gradients_means(item, head, row);
        }
    }
}

static void add_head(option_sums *sums, int64_t head) {
    if (sums->option->option == ATTNI_OF_SINKS) {
        add_sinks(sums, head);
    } else if (sums->option->option == ATTNI_OF_MASK && sums->has_cols) {
        add_columns(sums, head);
    } else {
        add_keys(sums, head);
    }
}

/* ---- results out ---- */

static void put(const option_sums *sums, char *data, int64_t offset, int32_t dtype, double number) {
    const double before =
        sums->item.engine->problem->accumulates ? attni_read_real(data, offset, dtype) : 0;
    attni_write_real(data, offset, dtype, before + number);
}

static void put_mask(const option_sums *sums, int64_t head) {
    const attni_gradients_item *item = &sums->item;
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *gradients = item->view.gradients;
    const attni_mask *mask = mask_of(sums);
    const int64_t *strides = &mask->strides[gradients->batch_rank];
    const int64_t first_row = sums->row_part * engine->plan->row_block;
    const int64_t first_col = sums->col_part * engine->plan->key_block;
    const int64_t rows =
        sums->has_rows ? attni_min(engine->plan->row_block, gradients->tgt_len - first_row) : 1;
    const int64_t cols =
        sums->has_cols ? attni_min(engine->plan->key_block, columns_of(gradients, mask) - first_col)
                       : 1;
    const bool is_tile = sums->has_rows && sums->has_cols;
    const int64_t offset =
        attni_head_offset(gradients, mask->strides, item->view.sequence.batch, head);
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
            const int64_t place = row * engine->plan->key_block + col;
            const double sum =
                is_tile ? attni_read_real((const char *)sums->table, place, engine->dtype)
                        : sums->table[sums->has_rows ? row : col];
            put(sums, (char *)(uintptr_t)mask->data,
                offset + (first_row + row) * strides[1] + (first_col + col) * strides[2],
                mask->dtype, sum);
        }
    }
}

static void put_distances(const option_sums *sums, int64_t head) {
    const attni_sdpa_problem *gradients = sums->item.view.gradients;
    const attni_mask *mask = mask_of(sums);
    const int64_t *strides = &mask->strides[gradients->batch_rank];
    for (int64_t col = 0; col < mask->num_columns; ++col) {
        put(sums, (char *)(uintptr_t)mask->data, head * strides[0] + col * strides[2], mask->dtype,
            sums->table[col]);
    }
}

static void put_sums(const option_sums *sums, int64_t head) {
    const attni_sdpa_problem *gradients = sums->item.view.gradients;
    const attni_operand *number =
        sums->option->option == ATTNI_OF_SINKS ? &gradients->sinks : &gradients->alibi_slopes;
    switch (sums->option->option) {
    case ATTNI_OF_MASK:
        put_mask(sums, head);
        break;
    case ATTNI_OF_DISTANCES:
        put_distances(sums, head);
        break;
    default:
        put(sums, number->data, head * number->strides[gradients->batch_rank], number->dtype,
            sums->table[0]);
        break;
    }
}

static size_t table_bytes(const option_sums *sums) {
    const attni_gradients_plan *plan = sums->option->engine->plan;
    const attni_sdpa_problem *gradients = &sums->option->engine->problem->gradients;
    switch (sums->option->option) {
    case ATTNI_OF_MASK:
        return (size_t)(plan->row_block * plan->key_block) * sizeof(double);
    case ATTNI_OF_DISTANCES:
        return (size_t)gradients->masks[sums->option->mask].num_columns * sizeof(double);
    default:
        return sizeof(double);
    }
}

void attni_gradients_option_item(void *data, int32_t slot, int64_t index) {
    const attni_gradients_option *option = data;
    option_sums sums = {.option = option};
    divide(&sums);
    attni_gradients_enter(option->engine, slot, &sums.item);
    sums.table = (double *)(void *)(sums.item.slot + option->engine->plan->table_offset);
    sums.col_part = index % sums.col_parts;
    sums.row_part = index / sums.col_parts % sums.row_parts;
    const int64_t matrix = index / sums.col_parts / sums.row_parts;
    const int64_t batch = matrix / sums.owners.heads;
    const int64_t first_head = matrix % sums.owners.heads * sums.owners.head_uses;
    memset(sums.table, 0, table_bytes(&sums));
    for (int64_t use = 0; use < sums.owners.batch_uses; ++use) {
        attni_gradients_go_to(&sums.item, attni_gradient_batch(&sums.owners, batch, use));
        for (int64_t own = 0; own < sums.owners.head_uses; ++own) {
            add_head(&sums, first_head + own);
        }
    }
    put_sums(&sums, first_head);
}
