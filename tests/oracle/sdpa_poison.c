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

attn_tensor broadcast_keys(const attn_tensor *given, const sdpa_call *call) {
    const attn_tensor *out = &call->seen.output;
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
    const attn_tensor key = broadcast_keys(call->key, call);
    const attn_tensor value = broadcast_keys(call->value, call);
    if (target != NULL) {
        poison_element(target, random);
    }
    seen_call *seen = &call->seen;
    unsigned char *hidden =
        oracle_sdpa_hidden_keys(&seen->query, call->key, call->value, seen->given_params);
    seen->key = fill_hidden_rows(&key, hidden, level, random);
    seen->value = fill_hidden_rows(&value, hidden, level, random);
    free(hidden);
}
