/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_masks.c: rows of the gradients of scores, added to where a mask has its own.
 */
#include "gradients/gradients_masks.h"

#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_owners.h"
#include "problem/source_rows.h"

/* Element (row, key) of the gradient of a mask. */
static char *mask_at(const attni_gradients_item *item, const attni_mask *mask, int64_t head,
                     int64_t row, int64_t key) {
    const attni_sdpa_problem *gradients = item->view.gradients;
    const int64_t *strides = mask->strides;
    const int64_t offset = attni_head_offset(gradients, strides, item->view.sequence.batch, head) +
                           row * strides[gradients->batch_rank + 1] +
                           key * strides[gradients->batch_rank + 2];
    return attni_advance((char *)(uintptr_t)mask->data, offset * item->engine->element);
}

static int64_t count_items(const attni_gradients_engine *engine, int32_t mask) {
    const attni_sdpa_problem *gradients = &engine->problem->gradients;
    if (!engine->plan->masks_beside[mask]) {
        return 0;
    }
    const attni_gradient_owners owners = attni_mask_owners(gradients, &gradients->masks[mask]);
    return owners.batches * owners.heads * engine->plan->row_blocks;
}

int64_t attni_gradients_mask_clear_items(const attni_gradients_engine *engine) {
    int64_t count = 0;
    for (int32_t mask = 0; mask < ATTNI_MAX_MASKS; ++mask) {
        count += count_items(engine, mask);
    }
    return count;
}

void attni_gradients_mask_clear_item(void *data, int32_t slot, int64_t index) {
    const attni_gradients_engine *engine = data;
    const attni_sdpa_problem *gradients = &engine->problem->gradients;
    int32_t which = 0;
    for (; index >= count_items(engine, which); ++which) {
        index -= count_items(engine, which);
    }
    const attni_mask *mask = &gradients->masks[which];
    const attni_gradient_owners owners = attni_mask_owners(gradients, mask);
    const int64_t size = engine->plan->row_block;
    const int64_t first = index % engine->plan->row_blocks * size;
    const int64_t matrix = index / engine->plan->row_blocks;
    const attni_gradients_item item = {
        .engine = engine,
        .view = {.gradients = gradients,
                 .sequence = {.batch = attni_gradient_batch(&owners, matrix / owners.heads, 0)}},
    };
    (void)slot;
    for (int64_t row = first; row < attni_min(first + size, gradients->tgt_len); ++row) {
        memset(mask_at(&item, mask, matrix % owners.heads * owners.head_uses, row, 0), 0,
               (size_t)(gradients->src_len * engine->element));
    }
}

void attni_gradients_add_to_masks(const attni_gradients_item *item, int64_t index,
                                  const char *gradient) {
    const attni_gradients_engine *engine = item->engine;
    const attni_interval seen = item->tile.seen[index];
    const int64_t key = item->keys.keys.begin + seen.begin;
    for (int32_t mask = 0; mask < ATTNI_MAX_MASKS; ++mask) {
        if (engine->plan->masks_beside[mask]) {
            engine->kernels->add(mask_at(item, &item->view.gradients->masks[mask], item->rows.head,
                                         item->rows.first + index, key),
                                 gradient, seen.end - seen.begin);
        }
    }
}
