/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_sizes.c: layers and tensors so large that what a call would need cannot be
 * counted. No memory is behind them: the query for a call's workspace refuses them as the call
 * would.
 */
#include "refusal.h"

#define POWER(exponent) (INT64_C(1) << (exponent))
#define NO_WORKSPACE "workspace: the call would need more than 9223372036854775807 bytes"

typedef struct size_refusal {
    const char *name;
    attn_mha_config config; /* struct_size 0: today's */
    int64_t query[3];
    int64_t key[2];   /* the axes before the features */
    int64_t mask[3];  /* attn_mask, if mask[0] > 0 */
    const char *bind; /* a parameter that is bound, not loaded */
    int64_t bound[2];
    attn_status status;
    const char *line;
} size_refusal;

static const size_refusal refused[] = {
    {.name = "mask_of_more_heads_than_int64_is_refused",
     .config = {.embed_dim = 1, .num_heads = 8, .head_dim = 1, .batch_first = 1},
     .query = {POWER(60), 1, 1},
     .key = {POWER(60), 1},
     .mask = {8, 1, 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "attn_mask: N=1152921504606846976 times H=8 exceeds 2^63"},
    {.name = "workspace_beyond_int64_batch_first_is_refused",
     .config = {.embed_dim = 1, .num_heads = 1, .head_dim = 1024, .batch_first = 1},
     .query = {1, POWER(58), 1},
     .key = {1, 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = NO_WORKSPACE},
    {.name = "workspace_beyond_int64_batch_second_is_refused",
     .config = {.embed_dim = 1, .num_heads = 1, .head_dim = 1024},
     .query = {1, POWER(58), 1},
     .key = {1, POWER(58)},
     .status = ATTN_ERROR_OVERFLOW,
     .line = NO_WORKSPACE},
    {.name = "rows_beyond_int64_of_no_batch_are_refused",
     .config = {.embed_dim = 1, .num_heads = 1, .head_dim = 1024, .batch_first = 1},
     .query = {0, POWER(58), 1},
     .key = {0, 1},
     .status = ATTN_ERROR_OVERFLOW,
     .line = "query: shape (0, 1, 288230376151711744, 1024) with its strides exceeds 2^63 bytes"},
    {.name = "strips_of_a_bound_weight_beyond_int64_are_refused",
     .config =
         {.embed_dim = 1, .num_heads = 1, .head_dim = 255, .kdim = POWER(53), .batch_first = 1},
     .query = {1, 1, 1},
     .key = {1, 200},
     .bind = "k_proj_weight",
     .bound = {255, POWER(53)},
     .status = ATTN_ERROR_OVERFLOW,
     .line = NO_WORKSPACE},
};

static float anything[1];

static attn_tensor view_of(void *data, int32_t rank, const int64_t *shape) {
    return refusal_view(data, ATTN_DTYPE_FLOAT32, rank, shape);
}

static attn_mha *layer_of(const attn_mha_config *given) {
    attn_mha_config config = *given;
    config.struct_size = sizeof config;
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    return layer;
}

static int64_t or_default(int64_t size, int64_t preset) {
    return size != 0 ? size : preset;
}

static void test_call(void **state) {
    const size_refusal *entry = *state;
    const attn_mha_config *config = &entry->config;
    attn_mha *layer = layer_of(config);
    if (entry->bind != NULL) {
        const attn_tensor weight = view_of(anything, 2, entry->bound);
        refusal_assert_ok("attn_mha_bind_parameter",
                          attn_mha_bind_parameter(layer, entry->bind, &weight));
    }
    const int64_t key_shape[] = {entry->key[0], entry->key[1],
                                 or_default(config->kdim, config->embed_dim)};
    const int64_t value_shape[] = {entry->key[0], entry->key[1], config->embed_dim};
    const attn_tensor query = view_of(NULL, 3, entry->query);
    const attn_tensor key = view_of(NULL, 3, key_shape);
    const attn_tensor value = view_of(NULL, 3, value_shape);
    const attn_tensor mask = view_of(NULL, 3, entry->mask);
    const attn_mha_params params = {.struct_size = sizeof params,
                                    .attn_mask = entry->mask[0] > 0 ? &mask : NULL,
                                    .attn_mask_kind =
                                        entry->mask[0] > 0 ? ATTN_MASK_ADDITIVE : ATTN_MASK_NONE};
    size_t bytes = 77;
    refusal_assert(
        "attn_mha_workspace_bytes",
        attn_mha_workspace_bytes(NULL, layer, &query, &key, &value, &params, &query, &bytes),
        entry->status, entry->line);
    assert_int_equal(bytes, 77);
    attn_mha_destroy(layer);
}

/* A copied weight takes whole strips: 16 rows where it has one. */
static void weight_whose_strips_exceed_int64_is_not_loaded(void **state) {
    (void)state;
    static const int64_t sizes[] = {POWER(60), POWER(58)}; /* of elements, of bytes */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        const attn_mha_config config = {.embed_dim = 1, .num_heads = 1, .kdim = sizes[i]};
        attn_mha *layer = layer_of(&config);
        const int64_t shape[] = {1, sizes[i]};
        const attn_tensor values = view_of(anything, 2, shape);
        refusal_assert("attn_mha_load_parameter",
                       attn_mha_load_parameter(layer, "k_proj_weight", &values), ATTN_ERROR_MEMORY,
                       "k_proj_weight: allocation of 0 bytes failed");
        attn_mha_destroy(layer);
    }
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_call, &refused[i]);
    }
    refusal_suite_add(&suite, "weight_whose_strips_exceed_int64_is_not_loaded",
                      weight_whose_strips_exceed_int64_is_not_loaded, NULL);
    return refusal_suite_run(&suite, "errors of layers beyond all size");
}
