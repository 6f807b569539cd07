/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_poison.c: NaN and infinity in the tensors of an attn_mha_forward case: in single elements,
 * which may show, and in rows of key and value that no query sees, which may not.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hidden_rows.h"
#include "mha_case.h"
#include "support/oracle_tensor.h"

/* What becomes of an infinite pair is left open by a rotation. */
static void poison_element(const attn_tensor *tensor, int may_be_infinite, random_state *random) {
    int64_t index[ATTN_MAX_RANK];
    if (random_index(tensor, random, index)) {
        const int is_infinite = random_between(random, 0, 3) == 0 && may_be_infinite;
        oracle_store(tensor, index, is_infinite ? INFINITY : NAN);
    }
}

static int32_t key_axis(const mha_call *call, const attn_tensor *given) {
    return given->rank == 3 && call->config.batch_first ? 1 : 0;
}

/* A key or value of any form as (N, 1, S, features). */
static attn_tensor heads_view(const mha_call *call, const attn_tensor *given) {
    const int32_t keys = key_axis(call, given), features = given->rank - 1;
    attn_tensor view = {.data = given->data,
                        .dtype = given->dtype,
                        .rank = 4,
                        .shape = {1, 1, given->shape[keys], given->shape[features]},
                        .strides = {0, 0, given->strides[keys], given->strides[features]}};
    if (given->rank == 3) {
        view.shape[0] = given->shape[1 - keys];
        view.strides[0] = given->strides[1 - keys];
    }
    return view;
}

/* (N, 1, S, features) in the form that a key or value was given in. */
static attn_tensor given_view(const mha_call *call, const attn_tensor *given,
                              const attn_tensor *heads) {
    const int32_t keys = key_axis(call, given);
    attn_tensor view = *heads;
    view.rank = given->rank;
    memcpy(view.shape, given->shape, sizeof view.shape);
    view.strides[given->rank - 1] = heads->strides[3];
    view.strides[keys] = heads->strides[2];
    if (given->rank == 3) {
        view.strides[1 - keys] = heads->strides[0];
    }
    return view;
}

static attn_tensor hide_rows(const mha_call *call, const attn_tensor *given,
                             const unsigned char *hidden, int level, random_state *random) {
    const attn_tensor heads = heads_view(call, given);
    const attn_tensor seen = fill_hidden_rows(&heads, hidden, level, random);
    return given_view(call, given, &seen);
}

void mha_case_poison(const factor_case *chosen, random_state *random, mha_call *call) {
    const attn_tensor *const targets[] = {NULL,        call->query,          call->key,
                                          call->value, call->attention.mask, call->attention.bias};
    const attn_tensor *target = targets[chosen->level[FACTOR_POISON]];
    const int level = chosen->level[MHA_HIDDEN];
    if (target != NULL) {
        poison_element(target, call->params.rope == NULL, random);
    }
    unsigned char *hidden =
        oracle_mha_hidden_keys(&call->config, call->query, call->key, call->given_params);
    call->seen_key = hide_rows(call, call->key, hidden, level, random);
    call->seen_value = hide_rows(call, call->value, hidden, level, random);
    free(hidden);
}
