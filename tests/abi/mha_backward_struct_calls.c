/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_backward_struct_calls.c: one valid call, whose gradient of query is known from before, and what
 * each struct of it is replaced with.
 */
#include "mha_backward_struct_calls.h"

#include <stdlib.h>
#include <string.h>

#include "errors/mha_fixture.h"

enum { SAVED_BYTES = 1 << 14, ELEMENTS = MHA_N * MHA_L * MHA_E };

static mha_layer layer;
static mha_fixture fixture;
static _Alignas(64) unsigned char saved[SAVED_BYTES];
static float given[ELEMENTS], of_query[ELEMENTS], expected[ELEMENTS];
static attn_tensor views[2]; /* of given and of_query */

const attn_mha_gradients valid_layer_gradients = {
    .struct_size = sizeof valid_layer_gradients, .output = &views[0], .query = &views[1]};

const attn_sdpa_gradients valid_layer_attention_gradients = {
    .struct_size = sizeof valid_layer_attention_gradients};

static attn_status run(const attn_mha_gradients *gradients) {
    memset(of_query, 0, sizeof of_query);
    return attn_mha_backward(NULL, layer.layer, fixture.arguments[MHA_QUERY],
                             fixture.arguments[MHA_KEY], fixture.arguments[MHA_VALUE],
                             fixture.params, gradients, NULL, 0);
}

static attn_status run_and_compare(const attn_mha_gradients *gradients) {
    const attn_status status = run(gradients);
    if (status == ATTN_OK) {
        assert_memory_equal(of_query, expected, sizeof expected);
    }
    return status;
}

void mha_backward_struct_calls_create(void) {
    mha_layer_create(&layer, NULL);
    mha_fixture_prepare(&fixture, NULL, &layer);
    fixture.options.saved = saved;
    fixture.options.saved_bytes = sizeof saved;
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    for (int i = 0; i < ELEMENTS; ++i) {
        given[i] = (float)(i % 5) - 2;
    }
    for (int i = 0; i < 2; ++i) {
        views[i] = fixture.views[MHA_OUTPUT];
        views[i].data = i == 0 ? given : of_query;
    }
    refusal_assert_ok("attn_mha_backward", run(&valid_layer_gradients));
    memcpy(expected, of_query, sizeof expected);
}

void mha_backward_struct_calls_destroy(void) {
    attn_mha_destroy(layer.layer);
}

attn_status call_mha_backward_gradients(void *gradients) {
    return run_and_compare(gradients);
}

attn_status call_mha_backward_workspace_bytes_gradients(void *gradients) {
    size_t bytes;
    return attn_mha_backward_workspace_bytes(
        NULL, layer.layer, fixture.arguments[MHA_QUERY], fixture.arguments[MHA_KEY],
        fixture.arguments[MHA_VALUE], fixture.params, gradients, &bytes);
}

attn_status call_mha_backward_attention(void *attention) {
    attn_mha_gradients gradients = valid_layer_gradients;
    gradients.attention = attention;
    return run_and_compare(&gradients);
}
