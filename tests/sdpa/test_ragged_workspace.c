/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_ragged_workspace.c: the workspace of a call whose sequences have query rows of their own
 * number is enough for whatever the numbers are: for every call of equally long sequences that its
 * rows may be cut into.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { MOST_ROWS = 700, THREADS = 5 };

/* What the workspace depends on beside the rows. */
typedef struct shape {
    int64_t heads, key_heads, keys, page, features, value_features;
    int32_t dtype;
    int has_mask, has_weights, is_averaged;
} shape;

static attn_tensor view(int32_t dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
    attn_tensor tensor;
    const int64_t lengths[] = {a, b, c, d};
    const int skipped = a < 0 ? (b < 0 ? 2 : 1) : 0;
    assert_int_equal(attn_tensor_init(&tensor, NULL, dtype, 4 - skipped, lengths + skipped),
                     ATTN_OK);
    return tensor;
}

/* `sequences` of `rows` each, or, ragged, of any number, `rows` in all. */
static size_t bytes_of(attn_context *context, const shape *s, int64_t sequences, int64_t rows,
                       int is_ragged) {
    const int64_t outer = is_ragged ? -1 : sequences;
    const int64_t starts_shape[] = {sequences + 1};
    attn_tensor query = view(s->dtype, outer, s->heads, rows, s->features);
    attn_tensor output = view(s->dtype, outer, s->heads, rows, s->value_features);
    attn_tensor weights = s->is_averaged ? view(s->dtype, -1, outer, rows, s->keys)
                                         : view(s->dtype, outer, s->heads, rows, s->keys);
    attn_tensor mask = view(ATTN_DTYPE_BOOL, -1, -1, rows, s->keys);
    attn_tensor key = view(s->dtype, s->page > 0 ? 9 : 1, s->key_heads,
                           s->page > 0 ? s->page : s->keys, s->features);
    attn_tensor value = view(s->dtype, s->page > 0 ? 9 : 1, s->key_heads,
                             s->page > 0 ? s->page : s->keys, s->value_features);
    attn_tensor table = view(ATTN_DTYPE_INT32, -1, -1, sequences, s->keys / (s->page + !s->page));
    attn_tensor starts;
    assert_int_equal(attn_tensor_init(&starts, NULL, ATTN_DTYPE_INT64, 1, starts_shape), ATTN_OK);
    const attn_kv kv = {.struct_size = sizeof kv,
                        .key = &key,
                        .value = &value,
                        .page_table = s->page > 0 ? &table : NULL};
    attn_sdpa_params params = {.struct_size = sizeof params, .enable_gqa = 1, .kv = &kv};
    params.query_starts = is_ragged ? &starts : NULL;
    params.mask = s->has_mask ? &mask : NULL;
    params.mask_kind = s->has_mask ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_NONE;
    params.weights = s->has_weights ? &weights : NULL;
    size_t bytes = 0;
    if (attn_sdpa_workspace_bytes(context, &query, NULL, NULL, &params, &output, &bytes) !=
        ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return bytes;
}

static void check_shape(attn_context *context, const shape *s) {
    for (int64_t total = 1; total <= MOST_ROWS; total += 1 + total / 3) {
        const size_t bound = bytes_of(context, s, 12, total, 1);
        for (int64_t rows = 1; rows <= total; ++rows) {
            const int64_t most = total / rows < 12 ? total / rows : 12;
            for (int64_t sequences = 1; sequences <= most; sequences += sequences < 3 ? 1 : 4) {
                const size_t bytes = bytes_of(context, s, sequences, rows, 0);
                if (bytes > bound) {
                    fail_msg("%lld rows of all: expected at least %zu bytes, as %lld sequences of "
                             "%lld rows need, got %zu",
                             (long long)total, bytes, (long long)sequences, (long long)rows, bound);
                }
            }
        }
    }
}

static void workspace_is_enough_for_all_starts(void **state) {
    static const shape shapes[] = {
        {8, 2, 300, 0, 64, 64, ATTN_DTYPE_FLOAT32, 0, 0, 0},
        {4, 1, 9000, 0, 128, 128, ATTN_DTYPE_FLOAT32, 0, 0, 0},
        {1, 1, 2500, 0, 8, 40, ATTN_DTYPE_BFLOAT16, 1, 0, 0},
        {6, 6, 4096, 16, 64, 64, ATTN_DTYPE_BFLOAT16, 0, 0, 0},
        {3, 3, 640, 128, 33, 7, ATTN_DTYPE_FLOAT32, 1, 1, 0},
        {4, 2, 170, 17, 64, 80, ATTN_DTYPE_FLOAT16, 0, 1, 1},
        {4, 1, 500, 0, 8, 1, ATTN_DTYPE_FLOAT32, 0, 1, 1},
        {2, 1, 500, 0, 16, 16, ATTN_DTYPE_FLOAT64, 1, 0, 0},
    };
    static const int32_t engines[] = {ATTN_ENGINE_AUTO, ATTN_ENGINE_BLAS};
    (void)state;
    /* With one thread there is no scratch memory of others that would hide what is missing. */
    for (int e = 0; e < 4; ++e) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
            attn_context *context = NULL;
            const attn_context_config config = {.struct_size = sizeof config,
                                                .num_threads = e < 2 ? 1 : THREADS,
                                                .engine = engines[e % 2]};
            assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
            check_shape(context, &shapes[i]);
            attn_context_destroy(context);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(workspace_is_enough_for_all_starts)};
    return cmocka_run_group_tests_name("ragged_workspace", tests, NULL, NULL);
}
