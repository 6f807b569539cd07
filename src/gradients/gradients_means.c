/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_means.c: the weighted mean of a row's gradients, which a softmax takes off them, is
 * rowsum(P dP) = rowsum(dO O), since O = P V.
 */
#include "gradients/gradients_means.h"

#include <math.h>
#include <string.h>

#include "base/checked_size.h"
#include "gradients/gradients_blocks.h"
#include "gradients/gradients_tile.h"
#include "gradients/gradients_view.h"
#include "kernels/stored_rows.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

/* A row as numbers of the score type: where it is, or in `memory`. */
static const char *numbers_of(const attni_gradients_item *item, const attni_operand *operand,
                              int64_t head, int64_t row, char *memory) {
    const attni_sdpa_problem *call = item->view.call;
    const attni_source_rows rows =
        attni_operand_rows(call, operand, item->view.sequence.batch, head, row);
    if (operand->dtype == item->engine->dtype && rows.col_stride == 1) {
        return rows.data;
    }
    attni_take_row(item->engine->set, memory, rows.data, operand->dtype, rows.col_stride,
                   call->value_dim);
    return memory;
}

static double dot_of_rows(const attni_gradients_item *item, int64_t head, int64_t row) {
    const attni_gradients_engine *engine = item->engine;
    const int64_t cols = item->view.call->value_dim;
    char *lines = item->slot + engine->plan->line_offset;
    return engine->kernels->dot(
        numbers_of(item, &item->view.call->output, head, row, lines),
        numbers_of(item, &item->view.gradients->output, head, row, lines + cols * engine->element),
        cols);
}

static double gradient_of_lse(const attni_gradients_item *item, int64_t head, int64_t row) {
    const attni_sdpa_problem *gradients = item->view.gradients;
    const attni_operand *lse = &gradients->lse;
    if (!lse->is_present) {
        return 0;
    }
    const int64_t offset =
        attni_head_offset(gradients, lse->strides, item->view.sequence.batch, head) +
        row * lse->strides[gradients->batch_rank + 1];
    return attni_read_real(lse->data, offset, lse->dtype);
}

/* An output of 0 has no part in it, whatever its gradient is. */
static double mean_of_row(const attni_gradients_item *item, int64_t head, int64_t row) {
    const double *before = item->engine->means_before;
    if (before != NULL) {
        return before[attni_gradients_row_number(item, head, row)];
    }
    const attni_interval seen = attni_row_interval(&item->view.sequence.visibility, row);
    const bool sees_some = seen.begin < seen.end;
    if (attni_gradients_lse(item, head, row) == -(double)INFINITY) {
        return 0;
    }
    return (sees_some ? dot_of_rows(item, head, row) : 0) - gradient_of_lse(item, head, row);
}

/* rowsum(P dP) of the gradient of returned weights, for the rows at hand and the keys at hand. */
static void add_tile(attni_gradients_item *item) {
    const attni_gradients_engine *engine = item->engine;
    if (!attni_gradients_score(item)) {
        return;
    }
    for (int64_t index = 0; index < item->rows.count; ++index) {
        const attni_interval seen = item->tile.seen[index];
        const int64_t count = seen.end - seen.begin;
        const int64_t row = item->rows.first + index;
        char *gradient = attni_gradients_at(item, item->tile.scores, index, 0);
        memset(gradient, 0, (size_t)(count * engine->element));
        attni_gradients_add_weights(item, index, gradient);
        attni_gradients_drop(item, index, gradient);
        engine->kernels->softmax(attni_gradients_at(item, item->tile.weights, index, seen.begin),
                                 gradient, count, attni_gradients_lse(item, item->rows.head, row),
                                 0, 1);
        *attni_gradients_means(item, item->rows.head, row) += engine->kernels->sum(gradient, count);
    }
}

static void add_weights(attni_gradients_item *item, int64_t head, int64_t block) {
    const int64_t blocks = attni_gradients_key_blocks(item);
    for (int64_t keys = 0; keys < blocks; ++keys) {
        attni_gradients_choose_keys(item, keys);
        const attni_interval rows = attni_gradients_seeing_rows(item, head, block);
        if (rows.begin < rows.end) {
            attni_gradients_take_keys(item, head);
            attni_gradients_take_rows(item, head, rows.begin, rows.end - rows.begin);
            add_tile(item);
        }
    }
}

/* Rows where query's gradient is summed. */
static void clear_sums(const attni_gradients_item *item, int64_t head, int64_t row) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *gradients = item->view.gradients;
    const attni_operand *query = &gradients->query;
    if (engine->plan->staged[ATTNI_OF_QUERY]) {
        memset(attni_gradients_staged_row(item, ATTNI_OF_QUERY, head, row), 0,
               (size_t)(gradients->head_dim * engine->element));
    } else if (query->is_present) {
        const attni_source_rows rows =
            attni_operand_rows(gradients, query, item->view.sequence.batch, head, row);
        for (int64_t col = 0; col < gradients->head_dim; ++col) {
            attni_write_real(rows.data, col * rows.col_stride, query->dtype, 0);
        }
    }
}

void attni_gradients_means_item(void *data, int32_t slot, int64_t index) {
    const attni_gradients_engine *engine = data;
    const attni_gradients_plan *plan = engine->plan;
    const int64_t block = index % plan->row_blocks;
    const int64_t pair = index / plan->row_blocks;
    const int64_t head = pair % engine->problem->call.num_heads;
    attni_gradients_item item;
    attni_gradients_enter(engine, slot, &item);
    attni_gradients_go_to(&item, pair / engine->problem->call.num_heads);
    const bool is_softmax = item.view.call->normalizer == ATTN_NORMALIZER_SOFTMAX;
    const int64_t end = attni_min((block + 1) * plan->row_block, item.view.call->tgt_len);
    for (int64_t row = block * plan->row_block; row < end; ++row) {
        clear_sums(&item, head, row);
        if (is_softmax) {
            *attni_gradients_means(&item, head, row) = mean_of_row(&item, head, row);
        }
    }
    if (is_softmax && item.view.gradients->weights.is_present) {
        add_weights(&item, head, block);
    }
}
