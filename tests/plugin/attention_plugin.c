/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention_plugin.c: a plugin with a copy of the static library inside, as its host sees it.
 */
#include "small_calls.h"

/* 0, or which of its calls went wrong. */
__attribute__((visibility("default"))) int plugin_compute(void);
__attribute__((visibility("default"))) int plugin_compute_with_own_context(void);
__attribute__((visibility("default"))) int plugin_fail(void);

int plugin_compute(void) {
    if (!computes_attention(NULL, ATTN_DTYPE_FLOAT32)) {
        return 1;
    }
    return computes_attention(NULL, ATTN_DTYPE_FLOAT64) ? 0 : 2;
}

/* A context of the plugin's own must be gone before its host unloads it. */
int plugin_compute_with_own_context(void) {
    const attn_context_config settings = {.struct_size = sizeof settings, .num_threads = 3};
    attn_context *context;
    if (attn_context_create(&settings, &context) != ATTN_OK) {
        return 3;
    }
    const bool computes = computes_attention(context, ATTN_DTYPE_FLOAT32);
    attn_context_destroy(context);
    return computes ? 0 : 4;
}

int plugin_fail(void) {
    return refuses_with_detail(REFUSED_DETAIL) ? 0 : 5;
}
