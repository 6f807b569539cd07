/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_explain.c: what attn_sdpa_backward_explain says of calls whose schedule follows from
 * their sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { FEATURES = 64, NUM_THREADS = 4 };

/* What is asked about, and the answer. */
typedef struct explained_call {
    const char *name;
    int64_t heads, key_heads, rows, keys;
    int32_t query_gradient, key_gradient; /* dtypes; 0: not wanted */
    bool accumulates;
    bool whole_heads;
    int32_t staged;
    int64_t num_items;
} explained_call;

static const int32_t single = ATTN_DTYPE_FLOAT32;

static const explained_call calls[] = {
    {"many heads", 16, 16, 256, 256, 1, 1, false, true, 0, 16},
    {"heads that share keys", 32, 16, 256, 256, 1, 1, false, true, 0, 16},
    {"few heads, many keys", 2, 2, 1024, 1024, 1, 1, false, false, 0, 16},
    {"few heads that share keys", 2, 1, 1024, 1024, 1, 1, false, false, 1, 16},
    {"too little to share", 2, 2, 8, 8, 1, 1, false, true, 0, 2},
    {"rows of query added to what is there", 16, 16, 256, 256, 1, 1, true, true, 1, 16},
    {"rows of query rounded", 16, 16, 256, 256, ATTN_DTYPE_BFLOAT16, 1, false, true, 1, 16},
    {"nothing wanted", 16, 16, 256, 256, 0, 0, false, true, 0, 0},
    {"no rows", 16, 16, 0, 256, 1, 1, false, true, 0, 0},
};

static attn_tensor view_of(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, NULL, dtype, rank, shape), ATTN_OK);
    return view;
}

static void explain(attn_context *context, const explained_call *call, const char *kernels) {
    const int64_t query_shape[] = {call->heads, call->rows, FEATURES};
    const int64_t key_shape[] = {call->key_heads, call->keys, FEATURES};
    const bool is_half = call->query_gradient == ATTN_DTYPE_BFLOAT16;
    const attn_tensor query = view_of(is_half ? ATTN_DTYPE_BFLOAT16 : single, 3, query_shape);
    const attn_tensor key = view_of(single, 3, key_shape);
    const attn_tensor lse = view_of(single, 2, query_shape);
    const attn_tensor of_query =
        view_of(call->query_gradient != 0 ? call->query_gradient : single, 3, query_shape);
    const attn_sdpa_params params = {
        .struct_size = sizeof params, .lse = &lse, .enable_gqa = call->key_heads != call->heads};
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients,
        .accumulate = call->accumulates,
        .output = &query,
        .query = call->query_gradient != 0 ? &of_query : NULL,
        .key = call->key_gradient != 0 ? &key : NULL,
    };
    attn_sdpa_backward_report report = {.struct_size = sizeof report};
    size_t bytes;
    assert_int_equal(attn_sdpa_backward_explain(context, &query, &key, &key, &params, &query,
                                                &gradients, &report),
                     ATTN_OK);
    assert_int_equal(attn_sdpa_backward_workspace_bytes(context, &query, &key, &key, &params,
                                                        &query, &gradients, &bytes),
                     ATTN_OK);
    if (report.whole_heads != call->whole_heads || report.staged != call->staged ||
        report.num_items != call->num_items) {
        fail_msg("%s: whole_heads %d, staged %d, num_items %lld", call->name, report.whole_heads,
                 report.staged, (long long)report.num_items);
    }
    assert_int_equal(report.workspace_bytes, bytes);
    assert_true(report.row_block >= 1 && report.key_block >= 1);
    assert_string_equal(report.kernels, kernels);
    assert_true(strlen(report.reason) > 10);
}

static void schedules_follow_from_sizes(void **state) {
    (void)state;
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = NUM_THREADS};
    attn_context *context;
    attn_context_info info = {.struct_size = sizeof info};
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    assert_int_equal(attn_context_describe(context, &info), ATTN_OK);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        explain(context, &calls[i], info.kernels);
    }
    attn_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_follow_from_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
