/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_inputs.c: for every block of keys
 *
 *     for every head that shares them
 *         for every block of rows that sees some
 *             weights, scores = gradients_tile.c
 *             dV += weights^T dO;  dK += scores^T Q;  dQ += scores K
 *
 * dV and dK are of the item alone. A row's dQ comes from all blocks of keys, in their order: of
 * whole heads one item has them all; else an item adds to a block of rows only once the item before
 * it, whose keys are the block before, has. Every sum is one chain of terms, in the order of rows or
 * keys (product_kernels.h), so that neither blocks nor schedule change a bit.
 */
#include "gradients/gradients_inputs.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_blocks.h"
#include "gradients/gradients_tile.h"
#include "gradients/gradients_view.h"
#include "kernels/stored_rows.h"
#include "problem/block_mask.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

typedef _Atomic int64_t progress_counter;

/* Keys or values of the block at hand, and their gradients. */
typedef struct key_sums {
    int32_t which;
    const attni_operand *operand;
    attni_source_rows (*rows_of)(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                                 int64_t head, int64_t first);
    int64_t group;
    int64_t cols;
    const char *matrix;                  /* of the tile, that rows are summed by */
    const attni_gradient_strips *strips; /* of these rows */
} key_sums;

static key_sums sums_of(const attni_gradients_item *item, int32_t which) {
    const attni_sdpa_problem *gradients = item->view.gradients;
    if (which == ATTNI_OF_KEY) {
        return (key_sums){which,
                          &gradients->key,
                          attni_source_keys,
                          gradients->key_group,
                          gradients->head_dim,
                          item->tile.scores,
                          &item->rows.query_strips};
    }
    return (key_sums){which,
                      &gradients->value,
                      attni_source_values,
                      gradients->value_group,
                      gradients->value_dim,
                      item->tile.weights,
                      &item->rows.output_strips};
}

/* ---- a tile's products ---- */

/* y = y + x w, of some rows, columns and terms of it. */
static void add_product(const attni_gradients_item *item, attni_product_block *block) {
    block->is_added = true;
    block->factor = 1;
    item->engine->products->multiply(block);
}

/* Sums over rows [first, first + rows) of the block, for keys [begin, end). */
static void add_to_keys(const attni_gradients_item *item, const key_sums *sums, int64_t first,
                        int64_t rows, attni_interval keys) {
    const attni_gradients_engine *engine = item->engine;
    const int64_t first_sum = item->keys.keys.begin - item->keys.block.begin + keys.begin;
    attni_product_block block = {
        .x = attni_gradients_at(item, (char *)(uintptr_t)sums->matrix, first, keys.begin),
        .x_row_stride = 1,
        .x_col_stride = item->tile.stride,
        .y = item->slot + engine->plan->sums_offset[sums->which] +
             first_sum * sums->cols * engine->element,
        .y_row_stride = sums->cols,
        .y_col_stride = 1,
        .strips = sums->strips->data + first * sums->strips->step * engine->element,
        .strip_stride = sums->strips->stride,
        .strip_step = sums->strips->step,
        .rows = keys.end - keys.begin,
        .cols = sums->cols,
        .depth = rows,
    };
    add_product(item, &block);
}

/* Sums over keys [begin, end) of the block, for rows [first, first + rows). */
static void add_to_rows(const attni_gradients_item *item, int64_t first, int64_t rows,
                        attni_interval keys) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *gradients = item->view.gradients;
    const int64_t row = item->rows.first + first;
    attni_source_rows to = attni_operand_rows(gradients, &gradients->query,
                                              item->view.sequence.batch, item->rows.head, row);
    if (engine->plan->staged[ATTNI_OF_QUERY]) {
        to = (attni_source_rows){
            attni_gradients_staged_row(item, ATTNI_OF_QUERY, item->rows.head, row),
            gradients->head_dim, 1, rows};
    }
    attni_product_block block = {
        .x = attni_gradients_at(item, item->tile.scores, first, keys.begin),
        .x_row_stride = item->tile.stride,
        .x_col_stride = 1,
        .y = to.data,
        .y_row_stride = to.row_stride,
        .y_col_stride = to.col_stride,
        .strips = item->slot + engine->plan->key_strips_offset +
                  keys.begin * engine->strip_cols * engine->element,
        .strip_stride = item->keys.count * engine->strip_cols,
        .strip_step = engine->strip_cols,
        .rows = rows,
        .cols = gradients->head_dim,
        .depth = keys.end - keys.begin,
    };
    add_product(item, &block);
}

static bool are_finite(const attni_gradients_item *item, const attni_gradient_lines *lines,
                       int64_t count, int64_t cols) {
    const attni_gradients_engine *engine = item->engine;
    bool is_finite = true;
    for (int64_t row = 0; row < count && is_finite; ++row) {
        const char *line = attni_advance(lines->data, row * lines->stride * engine->element);
        is_finite = engine->kernels->is_finite(line, cols);
    }
    return is_finite;
}

/* Whether 0 times what a row or key holds might be NaN where the one does not see the other. */
static bool is_exposed(const attni_gradients_item *item) {
    const attni_sdpa_problem *call = item->view.call;
    return item->tile.is_ragged &&
           !(are_finite(item, &item->rows.query, item->rows.count, call->head_dim) &&
             are_finite(item, &item->rows.output, item->rows.count, call->value_dim) &&
             are_finite(item, &item->keys.key, item->keys.count, call->head_dim));
}

/* Keys of the block that a row sees, from `begin` on, as far as they follow one another. */
static attni_interval next_seen(const attni_gradients_item *item, int64_t index, int64_t begin) {
    const int64_t row = item->rows.first + index;
    const int64_t first = item->keys.keys.begin;
    const attni_interval seen = {attni_max(begin, item->tile.seen[index].begin),
                                 item->tile.seen[index].end};
    const attni_block_rows rows = {item->view.call,
                                   item->view.sequence.batch,
                                   {item->rows.head, item->rows.head + 1},
                                   {row, row + 1}};
    if (seen.begin >= seen.end) {
        return (attni_interval){0, 0};
    }
    const attni_interval shown =
        attni_first_shown(&rows, (attni_interval){first + seen.begin, first + seen.end});
    return attni_interval_between(shown.begin - first, shown.end - first);
}

/* Each term in its order, but only where a row sees a key. */
static void add_seen(const attni_gradients_item *item, const key_sums *sums) {
    for (int64_t index = 0; index < item->rows.count; ++index) {
        attni_interval seen = next_seen(item, index, 0);
        for (; seen.begin < seen.end; seen = next_seen(item, index, seen.end)) {
            if (sums != NULL) {
                add_to_keys(item, sums, index, 1, seen);
            } else {
                add_to_rows(item, index, 1, seen);
            }
        }
    }
}

/* Terms that are added at a time, so that their strips stay in a first level cache. */
enum { TERMS_AT_ONCE = 128 };

static void add_bands_to_keys(const attni_gradients_item *item, const key_sums *sums) {
    attni_interval keys = {0, 0};
    for (; keys.begin < item->keys.count; keys.begin = keys.end) {
        keys.end =
            keys.begin + attni_gradients_band(item, keys.begin, item->keys.count, ATTNI_BAND_KEYS);
        const attni_interval rows = attni_gradients_band_rows(item, keys);
        if (rows.begin < rows.end) {
            add_to_keys(item, sums, rows.begin, rows.end - rows.begin, keys);
        }
    }
}

static void add_bands_to_rows(const attni_gradients_item *item) {
    int64_t count;
    for (int64_t first = 0; first < item->rows.count; first += count) {
        count = attni_gradients_band(item, first, item->rows.count, ATTNI_BAND_ROWS);
        attni_interval keys = attni_gradients_band_keys(item, first, count);
        const int64_t end = keys.end;
        for (; keys.begin < end; keys.begin = keys.end) {
            keys.end = attni_min(keys.begin + TERMS_AT_ONCE, end);
            add_to_rows(item, first, count, keys);
        }
    }
}

static void add_keys_of_tile(const attni_gradients_item *item, bool is_exposed) {
    for (int32_t which = ATTNI_OF_KEY; which <= ATTNI_OF_VALUE; ++which) {
        const key_sums sums = sums_of(item, which);
        if (!sums.operand->is_present) {
            continue;
        }
        if (is_exposed) {
            add_seen(item, &sums);
        } else {
            add_bands_to_keys(item, &sums);
        }
    }
}

static void add_rows_of_tile(const attni_gradients_item *item, bool is_exposed) {
    if (is_exposed) {
        add_seen(item, NULL);
    } else {
        add_bands_to_rows(item);
    }
}

/* ---- turns ---- */

static progress_counter *progress_of(const attni_gradients_item *item, int64_t pair,
                                     int64_t block) {
    char *counters = item->engine->scratch + item->engine->plan->progress_offset;
    return (progress_counter *)(void *)counters + pair * item->engine->plan->key_blocks + block;
}

/* Until the item before has done `blocks` blocks of rows. It has begun, on a thread that waits for
 * nobody but those before it. */
static void wait_for(progress_counter *before, int64_t blocks) {
    while (before != NULL && atomic_load_explicit(before, memory_order_acquire) < blocks) {
        (void)sched_yield();
    }
}

/* ---- a block of keys ---- */

static int64_t block_length(const attni_gradients_item *item) {
    return item->keys.block.end - item->keys.block.begin;
}

static void clear_sums(const attni_gradients_item *item, const key_sums *sums) {
    if (sums->operand->is_present) {
        memset(item->slot + item->engine->plan->sums_offset[sums->which], 0,
               (size_t)(block_length(item) * sums->cols * item->engine->element));
    }
}

/* A row of sums as the gradient has it, beside what is there already. */
static void put_row(const attni_gradients_item *item, const key_sums *sums,
                    const attni_source_rows *to, char *row) {
    const attni_gradients_engine *engine = item->engine;
    const attni_operand *operand = sums->operand;
    const int64_t cols = sums->cols;
    if (engine->problem->adds_to[sums->which]) {
        char *line = item->slot + engine->plan->line_offset;
        attni_take_row(engine->set, line, to->data, operand->dtype, to->col_stride, cols);
        engine->kernels->add(line, row, cols);
        row = line;
    }
    if (operand->dtype == engine->dtype && to->col_stride == 1) {
        memcpy(to->data, row, (size_t)(cols * engine->element));
    } else {
        attni_put_row(engine->set, to->data, operand->dtype, to->col_stride, row, cols);
    }
}

static void put_keys(const attni_gradients_item *item, const key_sums *sums, int64_t head,
                     char *rows) {
    const int64_t bytes = sums->cols * item->engine->element;
    for (int64_t row = 0; row < block_length(item); ++row) {
        const attni_source_rows to = sums->rows_of(item->view.gradients, &item->view.sequence, head,
                                                   item->keys.block.begin + row);
        put_row(item, sums, &to, rows + row * bytes);
    }
}

/* A head's sums are complete: they are kept, or added to those of heads with the same key, or
 * written. */
static void finish_keys(const attni_gradients_item *item, int32_t which, int64_t head) {
    const attni_gradients_engine *engine = item->engine;
    const attni_gradients_plan *plan = engine->plan;
    const key_sums sums = sums_of(item, which);
    const int64_t count = block_length(item) * sums.cols;
    char *rows = item->slot + plan->sums_offset[which];
    if (!sums.operand->is_present || block_length(item) == 0) {
        return;
    }
    if (plan->staged[which]) {
        memcpy(attni_gradients_staged_row(item, which, head, item->keys.block.begin), rows,
               (size_t)(count * engine->element));
        return;
    }
    if (plan->folds[which]) {
        char *totals = item->slot + plan->totals_offset[which];
        if (head % sums.group == 0) {
            memcpy(totals, rows, (size_t)(count * engine->element));
        } else {
            engine->kernels->add(totals, rows, count);
        }
        rows = totals;
    }
    if ((head + 1) % sums.group == 0) {
        put_keys(item, &sums, head, rows);
    }
}

/* Who waits for whom, by counters of blocks of rows that are done; NULL: for nobody. */
typedef struct head_turns {
    progress_counter *own;
    progress_counter *before;      /* of the keys before: these rows' gradients */
    progress_counter *pair_before; /* of the head before: what masks share */
} head_turns;

static head_turns turns_of(const attni_gradients_item *item, int64_t pair, int64_t block) {
    const attni_gradients_plan *plan = item->engine->plan;
    head_turns turns = {NULL, NULL, NULL};
    if (!plan->whole_heads || plan->pairs_wait) {
        turns.own = progress_of(item, pair, block);
    }
    if (!plan->whole_heads && block > 0) {
        turns.before = progress_of(item, pair, block - 1);
    }
    if (plan->pairs_wait && pair > 0) {
        turns.pair_before = progress_of(item, pair - 1, block);
    }
    return turns;
}

/* The keys at hand and the rows of a head. */
static void run_head(attni_gradients_item *item, int64_t head, head_turns turns) {
    const int64_t blocks = attni_divide_up(item->view.call->tgt_len, item->engine->plan->row_block);
    const key_sums keys = sums_of(item, ATTNI_OF_KEY);
    const key_sums values = sums_of(item, ATTNI_OF_VALUE);
    clear_sums(item, &keys);
    clear_sums(item, &values);
    for (int64_t block = 0; block < blocks && item->keys.count > 0; ++block) {
        const attni_interval rows = attni_gradients_seeing_rows(item, head, block);
        if (rows.begin >= rows.end) {
            continue;
        }
        attni_gradients_take_keys(item, head);
        attni_gradients_take_rows(item, head, rows.begin, rows.end - rows.begin);
        wait_for(turns.pair_before, block + 1);
        const bool sees_some = attni_gradients_compute(item, ATTNI_TO_PRODUCTS);
        const bool exposed = sees_some && is_exposed(item);
        if (sees_some) {
            add_keys_of_tile(item, exposed);
        }
        wait_for(turns.before, block + 1);
        if (sees_some && item->view.gradients->query.is_present) {
            add_rows_of_tile(item, exposed);
        }
        if (turns.own != NULL) {
            atomic_store_explicit(turns.own, block + 1, memory_order_release);
        }
    }
    finish_keys(item, ATTNI_OF_KEY, head);
    finish_keys(item, ATTNI_OF_VALUE, head);
    if (turns.own != NULL) {
        wait_for(turns.before, item->engine->plan->row_blocks);
        wait_for(turns.pair_before, item->engine->plan->row_blocks);
        atomic_store_explicit(turns.own, item->engine->plan->row_blocks, memory_order_release);
    }
}

/* A group of heads of a batch, and all its keys. */
static void run_whole_heads(attni_gradients_item *item, int64_t group) {
    const attni_gradients_plan *plan = item->engine->plan;
    const int64_t pair = group * plan->head_group;
    const int64_t num_heads = item->engine->problem->call.num_heads;
    attni_gradients_go_to(item, pair / num_heads);
    /* All blocks of the longest sequence where somebody may wait for them. */
    const int64_t blocks = plan->pairs_wait ? plan->key_blocks : attni_gradients_key_blocks(item);
    for (int64_t block = 0; block < blocks; ++block) {
        attni_gradients_choose_keys(item, block);
        for (int64_t own = 0; own < plan->head_group; ++own) {
            run_head(item, pair % num_heads + own, turns_of(item, pair + own, block));
        }
    }
}

void attni_gradients_inputs_item(void *data, int32_t slot, int64_t index) {
    const attni_gradients_engine *engine = data;
    attni_gradients_item item;
    attni_gradients_enter(engine, slot, &item);
    if (engine->plan->whole_heads) {
        run_whole_heads(&item, index);
        return;
    }
    const int64_t pair = index / engine->plan->key_blocks;
    const int64_t block = index % engine->plan->key_blocks;
    attni_gradients_go_to(&item, pair / engine->problem->call.num_heads);
    attni_gradients_choose_keys(&item, block);
    run_head(&item, pair % engine->problem->call.num_heads, turns_of(&item, pair, block));
}
