/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_poison.c: NaN and infinity in the tensors of an attn_sdpa case: in single elements, which
 * may show, and in rows of key and value that no query sees, which may not.
 */
#include <math.h>
#include <stdlib.h>

#include "hidden_rows.h"
#include "sdpa_case.h"
#include "support/oracle_sdpa.h"
#include "support/oracle_tensor.h"

/* Puts NaN or infinity into a random element; half of the time into the last key, which lengths
 * often hide. */
static void poison_element(const attn_tensor *tensor, random_state *random) {
    int64_t index[ATTN_MAX_RANK];
    if (random_index(tensor, random, index)) {
        if (tensor->rank > 1 && random_between(random, 0, 1)) {
            index[tensor->rank - 2] = tensor->shape[tensor->rank - 2] - 1;
        }
        oracle_store(tensor, index, random_between(random, 0, 3) == 0 ? INFINITY : NAN);
    }
}

/* A key or value over all batch axes of the output, with its own heads: where it is broadcast, a
 * row in memory is several rows here, some of which may be seen. */
static attn_tensor broadcast_view(const attn_tensor *given, const oracle_sdpa_shape *out) {
    attn_tensor view = *given;
    view.rank = out->rank;
    for (int32_t axis = 0; axis < out->rank; ++axis) {
        const int32_t own = axis - (out->rank - given->rank);
        const int64_t length = own < 0 ? 1 : given->shape[own];
        view.shape[axis] = axis < out->rank - 3 ? out->shape[axis] : length;
        view.strides[axis] = length == 1 ? 0 : given->strides[own];
    }
    return view;
}

void sdpa_case_poison(const factor_case *chosen, random_state *random, sdpa_call *call) {
    const attn_tensor *const targets[] = {NULL,        call->query,       call->key,
                                          call->value, call->params.mask, call->params.bias};
    const attn_tensor *target = targets[chosen->level[FACTOR_POISON]];
    const int level = chosen->level[SDPA_HIDDEN];
    const oracle_sdpa_shape out =
        oracle_sdpa_output_shape(call->query, call->key, call->value, call->given_params);
    const attn_tensor key = broadcast_view(call->key, &out);
    const attn_tensor value = broadcast_view(call->value, &out);
    if (target != NULL) {
        poison_element(target, random);
    }
    unsigned char *hidden =
        oracle_sdpa_hidden_keys(call->query, call->key, call->value, call->given_params);
    call->seen_key = fill_hidden_rows(&key, hidden, level, random);
    call->seen_value = fill_hidden_rows(&value, hidden, level, random);
    free(hidden);
}
