/* SPDX-License-Identifier: BSD-3-Clause
 *
 * flat.c: puts layouts, data and options together and calls the library.
 */
#include "flat.h"

/* The arguments that FLAT_DATA declares, in its order. */
#define FLAT_ARGUMENTS                                                                          \
    query, key, value, output, mask, key_padding_mask, query_offset, key_lengths, alibi_slopes, \
        sinks, lse, weights

static void join(attn_tensor *tensors, const attn_tensor *layouts, flat_data *const *data) {
    for (int i = 0; i < FLAT_TENSORS; ++i) {
        tensors[i] = layouts[i];
        tensors[i].data = data[i];
    }
}

static const attn_tensor *present(const attn_tensor *tensors, enum flat_tensor index) {
    return tensors[index].dtype == ATTN_DTYPE_INVALID ? NULL : &tensors[index];
}

static attn_status attend(const flat_call *call, const attn_tensor *tensors,
                          attn_sdpa_params *params) {
    params->mask = present(tensors, FLAT_MASK);
    params->weights = present(tensors, FLAT_WEIGHTS);
    return attn_sdpa(call->context, present(tensors, FLAT_QUERY), present(tensors, FLAT_KEY),
                     present(tensors, FLAT_VALUE), params, present(tensors, FLAT_OUTPUT), NULL, 0);
}

static attn_status forward(const flat_call *call, const attn_tensor *tensors,
                           const attn_sdpa_params *attention) {
    attn_mha_params params = call->forward;
    params.attention = attention;
    params.attn_mask = present(tensors, FLAT_MASK);
    params.key_padding_mask = present(tensors, FLAT_KEY_PADDING_MASK);
    params.attn_weights = present(tensors, FLAT_WEIGHTS);
    return attn_mha_forward(call->context, call->layer, present(tensors, FLAT_QUERY),
                            present(tensors, FLAT_KEY), present(tensors, FLAT_VALUE), &params,
                            present(tensors, FLAT_OUTPUT), NULL, 0);
}

attn_status flat_attend(const flat_call *call, const attn_tensor *layouts, FLAT_DATA) {
    attn_tensor tensors[FLAT_TENSORS];
    join(tensors, layouts, (flat_data *const[]){FLAT_ARGUMENTS});
    attn_sdpa_params attention = call->attention;
    attention.query_offset = present(tensors, FLAT_QUERY_OFFSET);
    attention.key_lengths = present(tensors, FLAT_KEY_LENGTHS);
    attention.alibi_slopes = present(tensors, FLAT_ALIBI_SLOPES);
    attention.sinks = present(tensors, FLAT_SINKS);
    attention.lse = present(tensors, FLAT_LSE);
    return call->layer == NULL ? attend(call, tensors, &attention)
                               : forward(call, tensors, &attention);
}

attn_status flat_mha_load_parameter(attn_mha *layer, const char *name, const attn_tensor *layout,
                                    flat_data *data) {
    attn_tensor values = *layout;
    values.data = data;
    return attn_mha_load_parameter(layer, name, present(&values, 0));
}
