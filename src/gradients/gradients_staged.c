/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_staged.c: an item is a few rows of one matrix of a gradient.
 */
#include "gradients/gradients_staged.h"

#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_owners.h"
#include "gradients/gradients_view.h"
#include "kernels/stored_rows.h"
#include "problem/source_rows.h"

enum { ROWS_OF_ITEM = 64 };

static attni_gradient_owners owners_of(const attni_gradients_staged *staged) {
    const attni_sdpa_problem *gradients = &staged->engine->problem->gradients;
    switch (staged->which) {
    case ATTNI_OF_QUERY:
        return attni_query_owners(gradients);
    case ATTNI_OF_KEY:
        return attni_key_owners(gradients);
    default:
        return attni_value_owners(gradients);
    }
}

static int64_t parts_of(const attni_gradients_staged *staged) {
    const attni_sdpa_problem *call = &staged->engine->problem->call;
    const int64_t rows = staged->which == ATTNI_OF_QUERY ? call->tgt_len : call->key_rows;
    return attni_divide_up(rows, ROWS_OF_ITEM);
}

int64_t attni_gradients_staged_items(const attni_gradients_staged *staged) {
    const attni_gradient_owners owners = owners_of(staged);
    return owners.batches * owners.heads * parts_of(staged);
}

/* A head's row of the matrix, as the gradient has it. */
static attni_source_rows row_of(const attni_gradients_item *item, int32_t which, int64_t head,
                                int64_t row) {
    const attni_sdpa_problem *gradients = item->view.gradients;
    switch (which) {
    case ATTNI_OF_QUERY:
        return attni_operand_rows(gradients, &gradients->query, item->view.sequence.batch, head,
                                  row);
    case ATTNI_OF_KEY:
        return attni_source_keys(gradients, &item->view.sequence, head, row);
    default:
        return attni_source_values(gradients, &item->view.sequence, head, row);
    }
}

/* The item's slot memory has room for two rows: the sum, and what is there already. */
static void add_uses(const attni_gradients_staged *staged, attni_gradients_item *item,
                     const attni_gradient_owners *owners, int64_t batch, int64_t head,
                     int64_t row) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = &engine->problem->call;
    const int64_t cols = staged->which == ATTNI_OF_VALUE ? call->value_dim : call->head_dim;
    char *sum = item->slot + engine->plan->line_offset;
    for (int64_t use = 0; use < owners->batch_uses; ++use) {
        if (owners->batch_uses > 1) {
            attni_gradients_go_to(item, attni_gradient_batch(owners, batch, use));
        }
        for (int64_t own = 0; own < owners->head_uses; ++own) {
            const char *from = attni_gradients_staged_row(item, staged->which,
                                                          head * owners->head_uses + own, row);
            if (use == 0 && own == 0) {
                memcpy(sum, from, (size_t)(cols * engine->element));
            } else {
                engine->kernels->add(sum, from, cols);
            }
        }
    }
    const attni_operand *const operands[] = {
        &item->view.gradients->query, &item->view.gradients->key, &item->view.gradients->value};
    const int32_t dtype = operands[staged->which]->dtype;
    const attni_source_rows to = row_of(item, staged->which, head * owners->head_uses, row);
    if (engine->problem->adds_to[staged->which]) {
        char *before = sum + cols * engine->element;
        attni_take_row(engine->set, before, to.data, dtype, to.col_stride, cols);
        engine->kernels->add(before, sum, cols);
        sum = before;
    }
    attni_put_row(engine->set, to.data, dtype, to.col_stride, sum, cols);
}

void attni_gradients_staged_item(void *data, int32_t slot, int64_t index) {
    const attni_gradients_staged *staged = data;
    const attni_gradient_owners owners = owners_of(staged);
    const int64_t parts = parts_of(staged);
    const int64_t matrix = index / parts;
    const int64_t batch = matrix / owners.heads;
    attni_gradients_item item;
    attni_gradients_enter(staged->engine, slot, &item);
    attni_gradients_go_to(&item, attni_gradient_batch(&owners, batch, 0));
    const int64_t rows =
        staged->which == ATTNI_OF_QUERY ? item.view.call->tgt_len : item.view.sequence.num_rows;
    const int64_t first = index % parts * ROWS_OF_ITEM;
    for (int64_t row = first; row < attni_min(first + ROWS_OF_ITEM, rows); ++row) {
        add_uses(staged, &item, &owners, batch, matrix % owners.heads, row);
    }
}
