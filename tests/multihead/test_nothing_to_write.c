/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_nothing_to_write.c: calls that have nothing to write return at once and want no workspace,
 * however long the axes are along which their inputs repeat: 2^40 of a thing would take hours one by
 * one, and then the test is ended as one that hangs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#define HUGE_LENGTH (INT64_C(1) << 40)

/* One element of anything: 0, false, 0.0. */
static double zero;

static attn_tensor repeated(int32_t dtype, int32_t rank, const int64_t *shape) {
    static const int64_t strides[ATTN_MAX_RANK] = {0};
    attn_tensor view = {0};
    if (attn_tensor_init_strided(&view, &zero, dtype, rank, shape, strides) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return view;
}

/* Outputs are empty, and their memory is not touched: it is none. */
static attn_tensor empty(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view = repeated(dtype, rank, shape);
    bool is_empty = false;
    for (int32_t axis = 0; axis < rank; ++axis) {
        is_empty = is_empty || shape[axis] == 0;
    }
    assert_true(is_empty);
    view.data = NULL;
    return view;
}

static attn_context *context_of(int32_t engine, int32_t gemm) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .engine = engine, .gemm = gemm};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    return context;
}

static void assert_ok(const char *name, const char *step, attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s: %s", name, step, attn_last_error());
    }
}

/* ---- attention ---- */

enum { BATCH, HEADS, ROWS, KEYS, FEATURES, VALUES, NUM_SIZES };
enum weights_kind { NO_WEIGHTS, PER_HEAD, AVERAGED };

typedef struct attention_case {
    const char *name;
    int64_t sizes[NUM_SIZES];
    enum weights_kind weights;
    bool has_lse;
} attention_case;

static const attention_case attention_cases[] = {
    {"no rows, many keys", {2, 3, 0, HUGE_LENGTH, 4, 5}, PER_HEAD, true},
    {"no rows, many batches", {HUGE_LENGTH, 3, 0, 7, 4, 5}, PER_HEAD, true},
    {"no rows, many heads", {2, HUGE_LENGTH, 0, 7, 4, 5}, AVERAGED, true},
    {"no rows, many features", {2, 3, 0, 7, HUGE_LENGTH, 5}, AVERAGED, true},
    {"no rows, many value features", {2, 3, 0, 7, 4, HUGE_LENGTH}, NO_WEIGHTS, true},
    {"no batches, many rows", {0, 3, HUGE_LENGTH, 7, 4, 5}, PER_HEAD, true},
    {"no batches, many keys", {0, 3, 7, HUGE_LENGTH, 4, 5}, AVERAGED, true},
    {"no heads, many rows", {2, 0, HUGE_LENGTH, 7, 4, 5}, NO_WEIGHTS, true},
    {"no heads, no keys, many batches", {HUGE_LENGTH, 0, 7, 0, 4, 5}, AVERAGED, true},
    {"no heads, no keys, many rows", {2, 0, HUGE_LENGTH, 0, 4, 5}, AVERAGED, true},
    {"no value features, many rows", {2, 3, HUGE_LENGTH, 7, 4, 0}, NO_WEIGHTS, false},
    {"no value features, many keys", {2, 3, 7, HUGE_LENGTH, 4, 0}, NO_WEIGHTS, false},
    {"no value features, many batches", {HUGE_LENGTH, 3, 7, 8, 4, 0}, NO_WEIGHTS, false},
    {"weights of no keys, many batches", {HUGE_LENGTH, 3, 7, 0, 4, 0}, PER_HEAD, false},
    {"averages of no keys, many batches", {HUGE_LENGTH, 3, 7, 0, 4, 0}, AVERAGED, false},
    {"averages of no keys, many heads", {2, HUGE_LENGTH, 7, 0, 4, 0}, AVERAGED, false},
    {"averages of no keys, many rows", {2, 3, HUGE_LENGTH, 0, 4, 0}, AVERAGED, false},
};
enum { NUM_ATTENTION_CASES = sizeof attention_cases / sizeof attention_cases[0] };

/* With every option that is one for each batch or head. */
static void attend(const attention_case *of, int32_t dtype, attn_context *context) {
    const int64_t *n = of->sizes;
    const attn_tensor query =
        repeated(dtype, 4, (int64_t[]){n[BATCH], n[HEADS], n[ROWS], n[FEATURES]});
    const attn_tensor key =
        repeated(dtype, 4, (int64_t[]){n[BATCH], n[HEADS], n[KEYS], n[FEATURES]});
    const attn_tensor value =
        repeated(dtype, 4, (int64_t[]){n[BATCH], n[HEADS], n[KEYS], n[VALUES]});
    const attn_tensor output = empty(dtype, 4, (int64_t[]){n[BATCH], n[HEADS], n[ROWS], n[VALUES]});
    const attn_tensor mask =
        repeated(ATTN_DTYPE_BOOL, 4, (int64_t[]){n[BATCH], n[HEADS], n[ROWS], n[KEYS]});
    const attn_tensor lengths = repeated(ATTN_DTYPE_INT64, 1, &n[BATCH]);
    const attn_tensor offsets = repeated(ATTN_DTYPE_INT32, 1, &n[BATCH]);
    const attn_tensor sinks = repeated(dtype, 1, &n[HEADS]);
    attn_tensor lse;
    attn_tensor weights;
    attn_sdpa_report report = {.struct_size = sizeof report, .num_blocks = -1};
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    attn_sdpa_params params = {.struct_size = sizeof params,
                               .is_causal = 1,
                               .mask = &mask,
                               .mask_kind = ATTN_MASK_BOOL_INCLUDE,
                               .key_lengths = &lengths,
                               .query_offset = &offsets,
                               .sinks = &sinks,
                               .alibi_slopes = &sinks,
                               .report = &report};
    if (of->has_lse) {
        lse = empty(dtype, 3, (int64_t[]){n[BATCH], n[HEADS], n[ROWS]});
        params.lse = &lse;
    }
    if (of->weights == PER_HEAD) {
        weights = empty(dtype, 4, (int64_t[]){n[BATCH], n[HEADS], n[ROWS], n[KEYS]});
        params.weights = &weights;
    } else if (of->weights == AVERAGED) {
        weights = empty(dtype, 3, (int64_t[]){n[BATCH], n[ROWS], n[KEYS]});
        params.weights = &weights;
    }
    size_t bytes = 1;
    assert_ok(of->name, "workspace",
              attn_sdpa_workspace_bytes(context, &query, &key, &value, &params, &output, &bytes));
    assert_int_equal(bytes, 0);
    assert_ok(of->name, "call",
              attn_sdpa(context, &query, &key, &value, &params, &output, NULL, 0));
    assert_int_equal(report.num_blocks, 0);
    report.num_blocks = -1;
    assert_ok(of->name, "explain",
              attn_sdpa_explain(context, &query, &key, &value, &params, &output, &report));
    assert_int_equal(report.num_blocks, 0);
    assert_ok(of->name, "outputs",
              attn_sdpa_describe_outputs(&query, &key, &value, &params, &outputs));
}

static void attention_returns_at_once(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_AUTO; engine <= ATTN_ENGINE_FUSED; ++engine) {
        attn_context *context = context_of(engine, ATTN_GEMM_AUTO);
        for (int i = 0; i < NUM_ATTENTION_CASES; ++i) {
            attend(&attention_cases[i], ATTN_DTYPE_FLOAT32, context);
            if (engine != ATTN_ENGINE_FUSED) {
                attend(&attention_cases[i], ATTN_DTYPE_FLOAT64, context);
            }
        }
        attn_context_destroy(context);
    }
}

/* ---- softmax ---- */

static void softmax_returns_at_once(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {
        {HUGE_LENGTH, 2, 0}, {2, HUGE_LENGTH, 0}, {0, 2, HUGE_LENGTH}, {HUGE_LENGTH, 0, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
        for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
            const attn_tensor input = repeated(dtype, 3, shapes[i]);
            const attn_tensor output = empty(dtype, 3, shapes[i]);
            const attn_tensor lengths = repeated(ATTN_DTYPE_INT32, 2, shapes[i]);
            const attn_softmax_params params = {.struct_size = sizeof params, .lengths = &lengths};
            size_t bytes = 1;
            assert_ok("softmax", "workspace",
                      attn_softmax_workspace_bytes(NULL, &input, &params, &output, &bytes));
            assert_int_equal(bytes, 0);
            assert_ok("softmax", "call", attn_softmax(NULL, &input, &params, &output, NULL, 0));
        }
    }
}

/* A length out of range is told by its first place, as if all of them had been counted. */
static void a_repeated_length_is_told_by_its_place(void **state) {
    (void)state;
    const int64_t inputs[][3] = {{HUGE_LENGTH, 3, 0}, {3, HUGE_LENGTH, 0}};
    const int64_t strides[][2] = {{0, 1}, {1, 0}};
    int64_t values[3] = {0, 0, 7};
    char expected[2][ATTN_MAX_RANK * 16];
    (void)snprintf(expected[0], sizeof expected[0],
                   "lengths: expected 0 to S=0, got 7 at element 2");
    (void)snprintf(expected[1], sizeof expected[1],
                   "lengths: expected 0 to S=0, got 7 at element %lld", 2 * (long long)HUGE_LENGTH);
    for (int i = 0; i < 2; ++i) {
        const attn_tensor input = repeated(ATTN_DTYPE_FLOAT32, 3, inputs[i]);
        const attn_tensor output = empty(ATTN_DTYPE_FLOAT32, 3, inputs[i]);
        attn_tensor lengths;
        assert_int_equal(
            attn_tensor_init_strided(&lengths, values, ATTN_DTYPE_INT64, 2, inputs[i], strides[i]),
            ATTN_OK);
        const attn_softmax_params params = {.struct_size = sizeof params, .lengths = &lengths};
        assert_int_equal(attn_softmax(NULL, &input, &params, &output, NULL, 0), ATTN_ERROR_VALUE);
        assert_string_equal(attn_last_error(), expected[i]);
    }
}

/* ---- layers ---- */

enum { EMBED = 8, LAYER_HEADS = 2 };

typedef struct layer_case {
    const char *name;
    int64_t batch, rows, keys;
} layer_case;

static const layer_case layer_cases[] = {
    {"no rows, many keys", 2, 0, HUGE_LENGTH},
    {"no rows, many batches", HUGE_LENGTH, 0, 3},
    {"no rows, many batches, no keys", HUGE_LENGTH, 0, 0},
    {"no batches, many keys", 0, 5, HUGE_LENGTH},
    {"no batches, many rows", 0, HUGE_LENGTH, 5},
};
enum { NUM_LAYER_CASES = sizeof layer_cases / sizeof layer_cases[0] };

static void forward(const layer_case *of, int32_t dtype, int32_t extra_cols, const attn_mha *layer,
                    attn_context *context) {
    const int64_t total = of->keys + extra_cols;
    const attn_tensor query = repeated(dtype, 3, (int64_t[]){of->batch, of->rows, EMBED});
    const attn_tensor key = repeated(dtype, 3, (int64_t[]){of->batch, of->keys, EMBED});
    const attn_tensor output = empty(dtype, 3, (int64_t[]){of->batch, of->rows, EMBED});
    const attn_tensor padding = repeated(ATTN_DTYPE_BOOL, 2, (int64_t[]){of->batch, of->keys});
    const attn_tensor lengths = repeated(ATTN_DTYPE_INT64, 1, &of->batch);
    const attn_tensor weights =
        empty(dtype, 4, (int64_t[]){of->batch, LAYER_HEADS, of->rows, total});
    const attn_tensor lse = empty(dtype, 3, (int64_t[]){of->batch, LAYER_HEADS, of->rows});
    attn_sdpa_report inside = {.struct_size = sizeof inside, .num_blocks = -1};
    const attn_sdpa_params attention = {.struct_size = sizeof attention,
                                        .key_lengths = &lengths,
                                        .weights = &weights,
                                        .lse = &lse,
                                        .report = &inside};
    const attn_mha_params params = {.struct_size = sizeof params,
                                    .key_padding_mask = &padding,
                                    .key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE,
                                    .attention = &attention};
    attn_mha_report report = {.struct_size = sizeof report};
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    size_t bytes = 1;
    assert_ok(
        of->name, "workspace",
        attn_mha_workspace_bytes(context, layer, &query, &key, &key, &params, &output, &bytes));
    assert_int_equal(bytes, 0);
    assert_ok(of->name, "call",
              attn_mha_forward(context, layer, &query, &key, &key, &params, &output, NULL, 0));
    assert_int_equal(inside.num_blocks, 0);
    assert_ok(of->name, "explain",
              attn_mha_explain(context, layer, &query, &key, &key, &params, &output, &report));
    assert_int_equal(report.workspace_bytes, 0);
    assert_ok(of->name, "outputs",
              attn_mha_describe_outputs(layer, &query, &key, &key, &params, &outputs));
}

static void layers_return_at_once(void **state) {
    (void)state;
    for (int32_t gemm = ATTN_GEMM_AUTO; gemm <= ATTN_GEMM_NATIVE; ++gemm) {
        const attn_context_config probe = {.struct_size = sizeof probe, .gemm = gemm};
        attn_context *context;
        if (attn_context_create(&probe, &context) == ATTN_ERROR_UNSUPPORTED) {
            print_message("%s\n", attn_last_error());
            continue;
        }
        for (int which = 0; which < 8; ++which) {
            const int32_t dtype = which < 4 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64;
            const attn_mha_config config = {.struct_size = sizeof config,
                                            .dtype = dtype,
                                            .embed_dim = EMBED,
                                            .num_heads = LAYER_HEADS,
                                            .batch_first = 1,
                                            .add_bias_kv = which & 1,
                                            .add_zero_attn = which >> 1 & 1};
            attn_mha *layer;
            assert_ok("layer", "create", attn_mha_create(context, &config, &layer));
            assert_ok("layer", "parameters", attn_mha_init_parameters(context, layer, NULL));
            for (int i = 0; i < NUM_LAYER_CASES; ++i) {
                forward(&layer_cases[i], dtype, (which & 1) + (which >> 1 & 1), layer, context);
            }
            attn_mha_destroy(layer);
        }
        attn_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_returns_at_once),
        cmocka_unit_test(softmax_returns_at_once),
        cmocka_unit_test(a_repeated_length_is_told_by_its_place),
        cmocka_unit_test(layers_return_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
