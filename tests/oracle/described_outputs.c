/* SPDX-License-Identifier: BSD-3-Clause
 *
 * described_outputs.c: compares described views with expected shapes.
 */
#include "described_outputs.h"

#include <stdio.h>
#include <string.h>

/* 1 unless the view is a contiguous one of that dtype and shape without data. */
static int differs(const char *name, const attn_tensor *view, int32_t dtype, int32_t rank,
                   const int64_t *shape, call_outcome *outcome) {
    attn_tensor expected = {.dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int32_t axis = rank - 1; axis >= 0; --axis) {
        expected.shape[axis] = shape[axis];
        expected.strides[axis] = stride;
        stride *= shape[axis] > 0 ? shape[axis] : 1;
    }
    const int is_alike = view->data == NULL && view->dtype == dtype && view->rank == rank &&
                         memcmp(view->shape, expected.shape, sizeof expected.shape) == 0 &&
                         memcmp(view->strides, expected.strides, sizeof expected.strides) == 0;
    if (!is_alike) {
        snprintf(outcome->message, sizeof outcome->message,
                 "described %s: expected rank %d and dtype %d, contiguous, got rank %d and dtype "
                 "%d, last axis %lld",
                 name, (int)rank, (int)dtype, (int)view->rank, (int)view->dtype,
                 view->rank > 0 ? (long long)view->shape[view->rank - 1] : -1);
    }
    return !is_alike;
}

static int lse_differs(const attn_tensor *lse, const described_sizes *sizes,
                       call_outcome *outcome) {
    const attn_tensor none = {0};
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, sizes->lead, sizeof shape);
    shape[sizes->lead_rank] = sizes->rows;
    if (sizes->has_lse) {
        return differs("lse", lse, sizes->score_dtype, sizes->lead_rank + 1, shape, outcome);
    }
    if (memcmp(lse, &none, sizeof none) != 0) {
        snprintf(outcome->message, sizeof outcome->message,
                 "described lse: expected zeros where the normalizer has none");
        return 1;
    }
    return 0;
}

static int weights_differ(const char *name, const attn_tensor *weights, int32_t dtype,
                          int32_t lead_rank, const described_sizes *sizes, call_outcome *outcome) {
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, sizes->lead, sizeof shape);
    shape[lead_rank] = sizes->rows;
    shape[lead_rank + 1] = sizes->columns;
    return differs(name, weights, dtype, lead_rank + 2, shape, outcome);
}

int described_wrongly(const described_outputs *described, const attn_tensor *output,
                      const described_sizes *sizes, call_outcome *outcome) {
    const int32_t heads = sizes->lead_rank, none = heads > 0 ? heads - 1 : 0;
    return differs("output", &described->output, sizes->dtype, output->rank, output->shape,
                   outcome) ||
           lse_differs(&described->lse, sizes, outcome) ||
           weights_differ("weights", &described->weights, sizes->dtype, heads, sizes, outcome) ||
           weights_differ("averaged_weights", &described->averaged_weights, sizes->dtype, none,
                          sizes, outcome) ||
           weights_differ("scores", &described->scores, sizes->score_dtype, heads, sizes, outcome);
}
