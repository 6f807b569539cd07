/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_plan.c: blocks, the schedule and scratch memory. Pure.
 */
#include "gradients/gradients_plan.h"

#include "base/checked_size.h"
#include "gemm/strips.h"
#include "gradients/gradients_owners.h"
#include "problem/block_mask.h"

/* A tile's two matrices, and the blocks of rows and keys that it is made of, stay in a second level
 * cache of 1 MiB; blocks are multiples of what products take at once. All rows are read again for
 * each block of keys; where such blocks are items, smaller ones keep threads busy to the end. */
enum { KEY_BLOCK = 256, SHARED_KEY_BLOCK = 128, KEYS_AT_ONCE = 16 };

/* So many items for each slot, and no thread waits long for the last one. */
enum { WHOLE_ITEMS_PER_SLOT = 3 };

static int64_t divisor_of_both(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Whether a gradient cannot be written by whoever has summed a head's, or a group's, rows. */
static bool is_staged(const attni_gradients_problem *problem, const attni_gradients_plan *plan,
                      const attni_operand *operand, const attni_gradient_owners *owners,
                      bool is_query) {
    if (!operand->is_present) {
        return false;
    }
    if (owners->batch_uses != 1) {
        return true;
    }
    if (is_query) { /* else it is summed where it belongs */
        return owners->head_uses != 1 || operand->dtype != problem->call.score_dtype ||
               problem->adds_to[ATTNI_OF_QUERY];
    }
    return !plan->whole_heads && owners->head_uses > 1;
}

/* Rows that some tensor has an index for; lengths and starts may leave less. */
static int64_t key_rows(const attni_sdpa_problem *call) {
    return call->pages.rows > 0 ? call->src_len : attni_max(call->src_len, call->key_rows);
}

/* The largest block that `total` is cut into evenly, 1 at least. */
static int64_t even_block(int64_t total, int64_t most, int64_t at_once) {
    const int64_t blocks = attni_max(1, attni_divide_up(total, most));
    const int64_t even = attni_max(1, attni_divide_up(total, blocks));
    return attni_min(most, attni_divide_up(even, at_once) * at_once);
}

static void set_key_block(const attni_sdpa_problem *call, attni_gradients_plan *plan,
                          int64_t most) {
    const int64_t rows = key_rows(call);
    plan->key_block = even_block(rows, most, KEYS_AT_ONCE);
    plan->key_blocks = attni_divide_up(rows, plan->key_block);
    /* A cache line more than keys, or the same key of all rows were in a few sets of a cache. */
    plan->tile_stride = plan->key_block + attni_strip_cols(call->score_dtype);
}

static void choose_schedule(const attn_context *context, const attni_gradients_problem *problem,
                            attni_gradients_plan *plan) {
    const attni_sdpa_problem *call = &problem->call;
    const int64_t by_key = attni_max(1, call->key_group);
    const int64_t by_value = attni_max(1, call->value_group);
    plan->head_group = by_key / divisor_of_both(by_key, by_value) * by_value;
    const int64_t groups = plan->num_pairs / plan->head_group;
    const double work = 5 * (double)plan->num_pairs * (double)call->tgt_len *
                        (double)call->src_len *
                        (double)attni_max(1, attni_max(call->head_dim, call->value_dim));
    const int64_t shared = plan->num_pairs * plan->key_blocks;
    plan->num_slots = work < ATTNI_SERIAL_WORK ? 1 : attni_context_slots(context, INT64_MAX);
    plan->whole_heads = plan->num_slots == 1 ||
                        groups >= (int64_t)WHOLE_ITEMS_PER_SLOT * plan->num_slots ||
                        groups >= shared;
    if (!plan->whole_heads) {
        set_key_block(call, plan, SHARED_KEY_BLOCK);
    }
    plan->num_items = plan->whole_heads ? groups : plan->num_pairs * plan->key_blocks;
}

/* One of what is summed. */
static void lay_out_sums(const attni_gradients_problem *problem, attni_gradients_plan *plan,
                         int32_t which, const attni_operand *operand, int64_t rows, int64_t cols,
                         attni_layout *layout, attni_layout *slot) {
    const attni_sdpa_problem *gradients = &problem->gradients;
    const bool is_query = which == ATTNI_OF_QUERY;
    const attni_gradient_owners owners = is_query                ? attni_query_owners(gradients)
                                         : which == ATTNI_OF_KEY ? attni_key_owners(gradients)
                                                                 : attni_value_owners(gradients);
    const size_t bytes = (size_t)cols * attn_dtype_size_bytes(gradients->score_dtype);
    const int64_t batches = owners.has_own_rows ? 1 : gradients->num_batches;
    plan->staged[which] = is_staged(problem, plan, operand, &owners, is_query);
    plan->folds[which] = operand->is_present && !is_query && plan->whole_heads &&
                         !plan->staged[which] && owners.head_uses > 1;
    int64_t count = 0;
    if (plan->staged[which]) {
        int64_t matrices;
        layout->overflow |= !attni_multiply(batches, gradients->num_heads, &matrices) ||
                            !attni_multiply(matrices, rows, &count);
    }
    plan->staged_offset[which] = attni_layout_add(layout, count, bytes);
    const int64_t keys = operand->is_present && !is_query ? plan->key_block : 0;
    plan->sums_offset[which] = attni_layout_add(slot, keys, bytes);
    plan->totals_offset[which] = attni_layout_add(slot, plan->folds[which] ? keys : 0, bytes);
}

static bool is_copied(const attni_sdpa_problem *call, const attni_operand *operand, int64_t cols) {
    return operand->dtype != call->score_dtype ||
           (operand->strides[call->batch_rank + 2] != 1 && cols > 1);
}

/* Whether a mask's gradient has an element for each row and key, which scores' gradients are added
 * to where it lies; a block mask says of some that they do not count. */
static bool is_beside(const attni_gradients_problem *problem, const attni_mask *mask) {
    const attni_sdpa_problem *gradients = &problem->gradients;
    const bool has_pass =
        gradients->query.is_present || gradients->key.is_present || gradients->value.is_present;
    return has_pass && mask->kind != ATTN_MASK_NONE && mask->columns == ATTNI_COLUMNS_ARE_KEYS &&
           mask->dtype == gradients->score_dtype && mask->strides[gradients->batch_rank + 1] != 0 &&
           mask->strides[gradients->batch_rank + 2] == 1 && !problem->accumulates &&
           !problem->call.query_starts.is_present && !attni_has_blocks(&problem->call);
}

static void find_masks_beside(const attni_gradients_problem *problem, attni_gradients_plan *plan) {
    const attni_sdpa_problem *gradients = &problem->gradients;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        const attni_mask *mask = &gradients->masks[i];
        if (i != ATTNI_POSITION_BIAS && is_beside(problem, mask)) {
            const attni_gradient_owners owners = attni_mask_owners(gradients, mask);
            plan->masks_beside[i] = true;
            plan->has_masks_beside = true;
            plan->pairs_wait |= owners.batch_uses > 1 || owners.head_uses > 1;
        }
    }
}

/* Numbers of the score type: rows of `cols`, which memory holds. */
static size_t add_rows(const attni_sdpa_problem *call, attni_layout *slot, int64_t rows,
                       int64_t cols) {
    const size_t element = attn_dtype_size_bytes(call->score_dtype);
    return attni_layout_add(slot, rows, (size_t)attni_max(1, cols) * element);
}

/* The same in whole strips. */
static size_t add_strips(const attni_sdpa_problem *call, attni_layout *slot, int64_t depth,
                         int64_t cols) {
    return add_rows(call, slot, depth, attni_strips_round_up(call->score_dtype, cols));
}

static void lay_out_blocks(const attni_sdpa_problem *call, attni_gradients_plan *plan,
                           attni_layout *slot) {
    const int64_t rows = plan->row_block;
    const int64_t keys = plan->key_block;
    const bool gathers = call->pages.rows > 0;
    const bool copies_query = is_copied(call, &call->query, call->head_dim);
    const bool copies_key = gathers || is_copied(call, &call->key, call->head_dim);
    const bool copies_value = gathers || is_copied(call, &call->value, call->value_dim);
    plan->query_offset = add_rows(call, slot, copies_query ? rows : 0, call->head_dim);
    plan->output_offset = add_rows(call, slot, rows, call->value_dim);
    plan->key_offset = add_rows(call, slot, copies_key ? keys : 0, call->head_dim);
    plan->value_offset = add_rows(call, slot, copies_value ? keys : 0, call->value_dim);
    plan->query_strips_offset = add_strips(call, slot, rows, call->head_dim);
    plan->output_strips_offset = add_strips(call, slot, rows, call->value_dim);
    plan->key_strips_offset = add_strips(call, slot, keys, call->head_dim);
    plan->key_columns_offset = add_strips(call, slot, attni_max(1, call->head_dim), keys);
    plan->value_columns_offset = add_strips(call, slot, attni_max(1, call->value_dim), keys);
    plan->weights_offset = add_rows(call, slot, rows, plan->tile_stride);
    plan->scores_offset = add_rows(call, slot, rows, plan->tile_stride);
    plan->capped_offset = add_rows(call, slot, call->softcap != 0 ? rows : 0, plan->tile_stride);
    plan->kept_offset = add_rows(call, slot, call->dropout.is_present ? 1 : 0, plan->tile_stride);
    plan->line_offset = add_rows(call, slot, 2, attni_max(call->head_dim, call->value_dim));
}

/* Sums of an option's gradient: a tile's, or one for each distance. */
static void lay_out_table(const attni_gradients_problem *problem, attni_gradients_plan *plan,
                          attni_layout *slot) {
    const attni_sdpa_problem *gradients = &problem->gradients;
    const attni_mask *masks = gradients->masks;
    int64_t count = gradients->alibi_slopes.is_present || gradients->sinks.is_present ? 1 : 0;
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (masks[i].kind != ATTN_MASK_NONE) {
            count = attni_max(count, plan->row_block * plan->key_block);
        }
    }
    if (masks[ATTNI_POSITION_BIAS].kind != ATTN_MASK_NONE) {
        count = attni_max(count, masks[ATTNI_POSITION_BIAS].num_columns);
    }
    plan->table_offset = attni_layout_add(slot, count, sizeof(double));
}

attn_status attni_gradients_make_plan(const attn_context *context,
                                      const attni_gradients_problem *problem,
                                      attni_gradients_plan *plan, attni_layout *layout) {
    const attni_sdpa_problem *call = &problem->call;
    const attni_sdpa_problem *gradients = &problem->gradients;
    *plan = (attni_gradients_plan){
        .row_block = even_block(call->tgt_len, ATTNI_GRADIENT_ROWS, ATTNI_ROWS_AT_ONCE),
        /* Fits: output's size was checked with empty axes counted as 1. */
        .num_pairs = call->num_batches * call->num_heads,
        .num_slots = 1,
    };
    set_key_block(call, plan, KEY_BLOCK);
    plan->row_blocks = attni_divide_up(call->tgt_len, plan->row_block);
    if (problem->is_zero) {
        return ATTN_OK;
    }
    choose_schedule(context, problem, plan);
    find_masks_beside(problem, plan);
    attni_layout slot = {0};
    lay_out_sums(problem, plan, ATTNI_OF_QUERY, &gradients->query, call->tgt_len, call->head_dim,
                 layout, &slot);
    lay_out_sums(problem, plan, ATTNI_OF_KEY, &gradients->key, call->key_rows, call->head_dim,
                 layout, &slot);
    lay_out_sums(problem, plan, ATTNI_OF_VALUE, &gradients->value, call->key_rows, call->value_dim,
                 layout, &slot);
    lay_out_blocks(call, plan, &slot);
    lay_out_table(problem, plan, &slot);
    plan->slot_bytes = slot.bytes;
    layout->overflow |= slot.overflow;
    const int64_t row_batches = call->query_starts.is_present ? 1 : call->num_batches;
    plan->means_offset =
        attni_layout_add(layout, row_batches * call->num_heads * call->tgt_len, sizeof(double));
    int64_t steps = 0;
    if (!plan->whole_heads || plan->pairs_wait) {
        layout->overflow |= !attni_multiply(plan->num_pairs, plan->key_blocks, &steps);
    }
    plan->progress_offset = attni_layout_add(layout, steps, sizeof(int64_t));
    plan->slots_offset = attni_layout_add(layout, plan->num_slots, plan->slot_bytes);
    return ATTN_OK;
}
