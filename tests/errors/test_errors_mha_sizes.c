/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_sizes.c: layers and tensors so large that what a call would need cannot be
 * counted. No memory is behind them: the query for a call's workspace refuses them as the call
 * would.
 */
#include <string.h>

#include "counting_allocator.h"
#include "refusal.h"

#define POWER(exponent) (INT64_C(1) << (exponent))
#define NO_WORKSPACE "workspace: the call would need more than 9223372036854775807 bytes"

typedef struct size_refusal {
    const char *name;
    attn_mha_config config; /* struct_size 0: today's */
    int64_t query[3];
    int64_t key[2];   /* the axes before the features */
    int64_t mask[3];  /* attention.mask, if mask[0] > 0 */
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
     .line = "attention.mask: N=1152921504606846976 times H=8 exceeds 2^63"},
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
    const attn_sdpa_params attention = {.struct_size = sizeof attention,
                                        .mask = entry->mask[0] > 0 ? &mask : NULL,
                                        .mask_kind = entry->mask[0] > 0 ? ATTN_MASK_ADDITIVE
                                                                        : ATTN_MASK_NONE};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    size_t bytes = 77;
    refusal_assert(
        "attn_mha_workspace_bytes",
        attn_mha_workspace_bytes(NULL, layer, &query, &key, &value, &params, &query, &bytes),
        entry->status, entry->line);
    assert_int_equal(bytes, 77);
    attn_mha_destroy(layer);
}

/* A weight whose own bytes fit, but not those of whole strips: 16 rows (8 of float64) where it has
 * fewer. */
typedef struct strips_refusal {
    attn_mha_config config;
    const char *parameter;
    const char *line;
} strips_refusal;

#define TOO_MANY(rows) "expected at most 2^63 - 1 bytes in strips of " rows " rows, got "

static const strips_refusal refused_strips[] = {
    /* More elements than int64 counts. */
    {{.embed_dim = 1, .num_heads = 1, .kdim = POWER(60)},
     "k_proj_weight",
     "k_proj_weight: " TOO_MANY("16") "16 rows of 1152921504606846976 float32"},
    /* More bytes, by one. */
    {{.embed_dim = 1, .num_heads = 1, .kdim = POWER(57)},
     "k_proj_weight",
     "k_proj_weight: " TOO_MANY("16") "16 rows of 144115188075855872 float32"},
    {{.embed_dim = 1, .num_heads = 1, .vdim = POWER(57), .dtype = ATTN_DTYPE_FLOAT64},
     "v_proj_weight",
     "v_proj_weight: " TOO_MANY("8") "8 rows of 144115188075855872 float64"},
    {{.embed_dim = POWER(58), .num_heads = 1, .head_dim = 1},
     "in_proj_weight",
     "in_proj_weight: " TOO_MANY("16") "16 rows of 288230376151711744 float32"},
};

/* The caller's tensor for a parameter, but for its memory, which must not be looked at. */
static attn_tensor values_of(const attn_mha *layer, const char *parameter) {
    attn_tensor values = {0};
    const char *name = "";
    for (int64_t i = 0; strcmp(name, parameter) != 0; ++i) {
        refusal_assert_ok("attn_mha_parameter_describe",
                          attn_mha_parameter_describe(layer, i, &name, &values));
    }
    values.data = anything;
    return values;
}

static attn_mha *counting_layer_of(counting_allocator *allocator, const attn_mha_config *given) {
    attn_context_config settings = {.struct_size = sizeof settings};
    counting_allocator_use(allocator, &settings);
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&settings, &context));
    attn_mha_config config = *given;
    config.struct_size = sizeof config;
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(context, &config, &layer));
    attn_context_destroy(context);
    return layer;
}

static void weight_whose_strips_exceed_int64_is_not_loaded(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused_strips / sizeof refused_strips[0]; ++i) {
        const strips_refusal *entry = &refused_strips[i];
        counting_allocator allocator;
        counting_allocator_init(&allocator);
        attn_mha *layer = counting_layer_of(&allocator, &entry->config);
        const attn_tensor values = values_of(layer, entry->parameter);
        const int64_t requests = allocator.requests;
        refusal_assert("attn_mha_load_parameter",
                       attn_mha_load_parameter(NULL, layer, entry->parameter, &values, NULL),
                       ATTN_ERROR_OVERFLOW, entry->line);
        assert_int_equal(allocator.requests, requests);
        refusal_assert("attn_mha_init_parameters", attn_mha_init_parameters(NULL, layer, NULL),
                       ATTN_ERROR_OVERFLOW, entry->line);
        attn_mha_destroy(layer);
        assert_int_equal(allocator.live_blocks, 0);
        assert_int_equal(allocator.mistakes, 0);
    }
}

/* The longest row whose strip's bytes fit: the allocator is asked, and what fails is memory. */
static void weight_whose_strips_just_fit_int64_is_asked_for(void **state) {
    (void)state;
    const attn_mha_config config = {.embed_dim = 1, .num_heads = 1, .kdim = POWER(57) - 1};
    counting_allocator allocator;
    counting_allocator_init(&allocator);
    attn_mha *layer = counting_layer_of(&allocator, &config);
    const attn_tensor values = values_of(layer, "k_proj_weight");
    counting_allocator_fail(&allocator, 1, true);
    refusal_assert("attn_mha_load_parameter",
                   attn_mha_load_parameter(NULL, layer, "k_proj_weight", &values, NULL),
                   ATTN_ERROR_MEMORY,
                   "k_proj_weight: allocation of 9223372036854775744 bytes failed");
    assert_int_equal(allocator.failures, 1);
    attn_mha_destroy(layer);
    assert_int_equal(allocator.live_blocks, 0);
}

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_call, &refused[i]);
    }
    refusal_suite_add(&suite, "weight_whose_strips_exceed_int64_is_not_loaded",
                      weight_whose_strips_exceed_int64_is_not_loaded, NULL);
    refusal_suite_add(&suite, "weight_whose_strips_just_fit_int64_is_asked_for",
                      weight_whose_strips_just_fit_int64_is_asked_for, NULL);
    return refusal_suite_run(&suite, "errors of layers beyond all size");
}
