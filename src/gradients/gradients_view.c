/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_view.c: a sequence's place in tensors and in the pass's own arrays.
 */
#include "gradients/gradients_view.h"

#include "problem/query_runs.h"
#include "problem/source_rows.h"
#include "tensor/element.h"

void attni_gradients_enter(const attni_gradients_engine *engine, int32_t slot,
                           attni_gradients_item *item) {
    item->engine = engine;
    item->slot =
        engine->scratch + engine->plan->slots_offset + (size_t)slot * engine->plan->slot_bytes;
    item->tile.weights = item->slot + engine->plan->weights_offset;
    item->tile.scores = item->slot + engine->plan->scores_offset;
    item->tile.capped = item->slot + engine->plan->capped_offset;
    item->tile.stride = engine->plan->tile_stride;
}

void attni_gradients_go_to(attni_gradients_item *item, int64_t batch) {
    const attni_gradients_problem *problem = item->engine->problem;
    attni_gradients_view *view = &item->view;
    view->call = &problem->call;
    view->gradients = &problem->gradients;
    view->batch = batch;
    view->first_row = 0;
    if (problem->call.query_starts.is_present) {
        const attni_interval rows =
            attni_rows_between(&problem->call.query_starts, batch, problem->call.tgt_len);
        view->first_row = rows.begin;
        view->cut_call = attni_run_of(&problem->call, batch, 1, rows);
        view->cut_gradients = attni_run_of(&problem->gradients, batch, 1, rows);
        view->call = &view->cut_call;
        view->gradients = &view->cut_gradients;
        batch = 0;
    }
    view->sequence = attni_batch_sequence(view->call, batch);
    item->keys.key_head = -1;
    item->keys.value_head = -1;
}

int64_t attni_gradients_row_number(const attni_gradients_item *item, int64_t head, int64_t row) {
    const attni_sdpa_problem *call = &item->engine->problem->call;
    const int64_t batch = call->query_starts.is_present ? 0 : item->view.batch;
    return (batch * call->num_heads + head) * call->tgt_len + item->view.first_row + row;
}

double *attni_gradients_means(const attni_gradients_item *item, int64_t head, int64_t row) {
    double *means = (double *)(void *)(item->engine->scratch + item->engine->plan->means_offset);
    return means + attni_gradients_row_number(item, head, row);
}

/* Row `row` of a sequence's keys among all keys there are. */
static int64_t key_number(const attni_gradients_item *item, int64_t head, int64_t row) {
    const attni_sdpa_problem *call = &item->engine->problem->call;
    const int64_t batch = call->key_starts.is_present ? 0 : item->view.batch;
    return (batch * call->num_heads + head) * call->key_rows + item->view.sequence.first_row + row;
}

char *attni_gradients_staged_row(const attni_gradients_item *item, int32_t which, int64_t head,
                                 int64_t row) {
    const attni_gradients_engine *engine = item->engine;
    const attni_sdpa_problem *call = &engine->problem->call;
    const int64_t cols = which == ATTNI_OF_VALUE ? call->value_dim : call->head_dim;
    const int64_t number = which == ATTNI_OF_QUERY ? attni_gradients_row_number(item, head, row)
                                                   : key_number(item, head, row);
    return engine->scratch + engine->plan->staged_offset[which] + number * cols * engine->element;
}

void attni_gradients_take_lse(const attni_gradients_item *item, int64_t head, int64_t first,
                              int64_t count, double *lse) {
    const attni_sdpa_problem *call = item->view.call;
    const int64_t step = call->lse.strides[call->batch_rank + 1];
    const int64_t offset =
        attni_head_offset(call, call->lse.strides, item->view.sequence.batch, head) + first * step;
    for (int64_t row = 0; row < count; ++row) {
        lse[row] = attni_read_real(call->lse.data, offset + row * step, call->lse.dtype);
    }
}
