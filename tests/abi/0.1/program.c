/* SPDX-License-Identifier: BSD-3-Clause
 *
 * program.c: a program of release 0.1. It is compiled with that release's headers, which lie beside
 * it, and runs with today's library, so it fails where a compiled program would. Neither it nor the
 * headers are changed later. Expected numbers are derived by hand: equal scores give equal weights,
 * so attention is the mean of the values a row sees, and the lse of n zeros is log n.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { QUERIES = 3, KEYS = 3, FEATURES = 4 };

static void assert_ok(attn_status status) {
    if (status != ATTN_OK) {
        fail_msg("%s: %s", attn_status_name(status), attn_last_error());
    }
}

static void assert_near(double value, double expected) {
    if (!(fabs(value - expected) <= 1e-6 * (1 + fabs(expected)))) {
        fail_msg("expected %.9g, got %.9g", expected, value);
    }
}

static attn_tensor matrix(void *data, int64_t rows, int64_t columns) {
    attn_tensor view;
    const int64_t shape[] = {rows, columns};
    assert_ok(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 2, shape));
    return view;
}

static attn_tensor vector(void *data, int64_t length) {
    attn_tensor view;
    assert_ok(attn_tensor_init(&view, data, ATTN_DTYPE_FLOAT32, 1, &length));
    return view;
}

/* ---- what the library says of itself ---- */

static void version_is_this_release_or_later(void **state) {
    (void)state;
    assert_int_equal(ATTN_VERSION, 1000);
    assert_true(attn_version() >= ATTN_VERSION);
    assert_non_null(strstr(attn_build_info(), attn_version_string()));
}

static void statuses_have_their_names(void **state) {
    (void)state;
    assert_string_equal(attn_status_name(ATTN_OK), "ATTN_OK");
    assert_string_equal(attn_status_name(ATTN_ERROR_BLAS), "ATTN_ERROR_BLAS");
    assert_string_equal(attn_status_name(-1), "ATTN_ERROR_UNKNOWN");
    assert_string_equal(attn_status_text(ATTN_ERROR_SHAPE), "shape mismatch");
}

static void every_kernel_name_makes_a_context(void **state) {
    (void)state;
    int32_t names = 0;
    for (const char *name; (name = attn_kernels_name(names)) != NULL; ++names) {
        attn_context_config params = {.struct_size = sizeof params, .kernels = name};
        attn_context_info info = {.struct_size = sizeof info};
        attn_context *context = NULL;
        assert_ok(attn_context_create(&params, &context));
        assert_ok(attn_context_describe(context, &info));
        assert_string_equal(info.kernels, name);
        attn_context_destroy(context);
    }
    assert_true(names >= 1);
}

/* ---- contexts ---- */

/* What the library asked of this program. */
typedef struct callbacks {
    int64_t tasks;
    int64_t live_bytes;
    int64_t live_alignments; /* added up */
    int64_t allocations;
} callbacks;

static int32_t run_here(void *state, int64_t count, attn_task_fn task, void *data) {
    callbacks *counts = state;
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
    counts->tasks += count;
    return 0;
}

static void *allocate(void *state, size_t bytes, size_t alignment) {
    callbacks *counts = state;
    void *memory = NULL;
    const size_t least = alignment < sizeof(void *) ? sizeof(void *) : alignment;
    if (posix_memalign(&memory, least, bytes) != 0) {
        return NULL;
    }
    counts->allocations += 1;
    counts->live_bytes += (int64_t)bytes;
    counts->live_alignments += (int64_t)alignment;
    return memory;
}

static void deallocate(void *state, void *memory, size_t bytes, size_t alignment) {
    callbacks *counts = state;
    counts->live_bytes -= (int64_t)bytes;
    counts->live_alignments -= (int64_t)alignment;
    free(memory);
}

static attn_context *context_with_callbacks(callbacks *counts, int32_t engine, int32_t gemm) {
    const attn_context_config params = {
        .struct_size = sizeof params,
        .parallel_for_width = 2,
        .engine = engine,
        .gemm = gemm,
        .parallel_for = run_here,
        .parallel_for_state = counts,
        .allocate = allocate,
        .deallocate = deallocate,
        .allocator_state = counts,
    };
    attn_context *context = NULL;
    assert_ok(attn_context_create(&params, &context));
    assert_non_null(context);
    assert_true(counts->allocations > 0);
    return context;
}

static void context_has_the_settings_it_was_given(void **state) {
    (void)state;
    const attn_context_config params = {.struct_size = sizeof params,
                                        .num_threads = 3,
                                        .engine = ATTN_ENGINE_BLAS,
                                        .gemm = ATTN_GEMM_NATIVE};
    attn_context_info info = {.struct_size = sizeof info};
    attn_context *context = NULL;
    assert_ok(attn_context_create(&params, &context));
    assert_ok(attn_context_describe(context, &info));
    assert_int_equal(info.struct_size, sizeof info);
    assert_int_equal(info.num_threads, 3);
    assert_int_equal(info.engine, ATTN_ENGINE_BLAS);
    assert_int_equal(info.gemm, ATTN_GEMM_NATIVE);
    assert_int_equal(info.attention_gemm, ATTN_GEMM_NATIVE);
    assert_int_equal(info.projection_gemm, ATTN_GEMM_NATIVE);
    assert_non_null(info.blas);
    assert_ok(attn_context_start(context));
    attn_context_destroy(context);
}

/* ---- softmax ---- */

static void softmax_of_equal_scores_is_uniform_over_what_is_visible(void **state) {
    (void)state;
    float scores[4] = {7, 7, 7, 7}, weights[4] = {0}, lse[1] = {0};
    unsigned char hidden[4] = {0, 0, 1, 0};
    attn_tensor input = vector(scores, 4), output = vector(weights, 4), mask, sums;
    const int64_t length = 4;
    assert_ok(attn_tensor_init(&mask, hidden, ATTN_DTYPE_BOOL, 1, &length));
    assert_ok(attn_tensor_init(&sums, lse, ATTN_DTYPE_FLOAT32, 0, NULL));
    const attn_softmax_params params = {.struct_size = sizeof params,
                                        .mask_kind = ATTN_MASK_BOOL_EXCLUDE,
                                        .mask = &mask,
                                        .lse = &sums};
    size_t bytes = 1;
    assert_ok(attn_softmax_workspace_bytes(NULL, &input, &params, &output, &bytes));
    assert_int_equal(bytes, 0);
    assert_ok(attn_softmax(NULL, &input, &params, &output, NULL, 0));
    for (int j = 0; j < 4; ++j) {
        assert_near(weights[j], hidden[j] ? 0 : 1.0 / 3);
    }
    assert_near(lse[0], 7 + log(3));
}

/* ---- rotation, normalisation ---- */

static void quarter_turns_change_a_pair_for_each_other(void **state) {
    (void)state;
    const int64_t rows = 2;
    float pairs[2][2] = {{3, 4}, {3, 4}}, quarter = (float)M_PI_2;
    int64_t places[2] = {1, -1};
    attn_tensor features = matrix(pairs, 2, 2), frequencies = vector(&quarter, 1), positions;
    assert_ok(attn_tensor_init(&positions, places, ATTN_DTYPE_INT64, 1, &rows));
    const attn_rope_params params = {.struct_size = sizeof params,
                                     .rotary_dim = 2,
                                     .magnitude = 2,
                                     .interleaved = 1,
                                     .inverse = 1,
                                     .frequencies = &frequencies,
                                     .positions = &positions};
    assert_ok(attn_rope(NULL, &features, &params, &features));
    assert_near(pairs[0][0], 8);
    assert_near(pairs[0][1], -6);
    assert_near(pairs[1][0], -8);
    assert_near(pairs[1][1], 6);
}

static void tables_are_looked_up_by_length(void **state) {
    (void)state;
    float pair[2] = {3, 4}, cosines[2] = {0, 1}, sines[2] = {1, 0};
    const int64_t place = 2;
    int64_t length = 1;
    attn_tensor features = matrix(pair, 1, 2), cos_table = matrix(cosines, 2, 1),
                sin_table = matrix(sines, 2, 1), lengths;
    assert_ok(attn_tensor_init(&lengths, &length, ATTN_DTYPE_INT64, 0, NULL));
    const attn_rope_params params = {
        .struct_size = sizeof params, .cos = &cos_table, .sin = &sin_table, .lengths = &lengths};
    assert_ok(attn_rope(NULL, &features, &params, &features));
    assert_near(pair[0], -4);
    assert_near(pair[1], 3);
    length = place;
    assert_ok(attn_rope(NULL, &features, &params, &features));
    assert_near(pair[0], -4);
}

static void normalized_rows_have_a_mean_square_of_one(void **state) {
    (void)state;
    float values[4] = {1, -1, 7, 7}, less_one[2] = {0, 1};
    attn_tensor rows = matrix(values, 2, 2), weight = vector(less_one, 2);
    const attn_rms_norm_params params = {
        .struct_size = sizeof params, .weight = &weight, .epsilon = 1e-12, .weight_offset = 1};
    assert_ok(attn_rms_norm(NULL, &rows, &params, &rows));
    assert_near(values[0], 1);
    assert_near(values[1], -2);
    assert_near(values[2], 1);
    assert_near(values[3], 2);
}

/* ---- attention ---- */

/* Queries of zeros: all scores are 0. Value row j is (j, 10 j, 100 j, 1). */
typedef struct attention_call {
    float query_data[QUERIES][FEATURES], key_data[KEYS][FEATURES], value_data[KEYS][FEATURES],
        output_data[QUERIES][FEATURES], lse_data[QUERIES];
    attn_tensor query, key, value, output, lse;
} attention_call;

static void prepare(attention_call *call) {
    memset(call, 0, sizeof *call);
    for (int j = 0; j < KEYS; ++j) {
        const float row[FEATURES] = {(float)j, 10.0f * (float)j, 100.0f * (float)j, 1};
        memcpy(call->value_data[j], row, sizeof row);
        call->key_data[j][j] = 5;
    }
    call->query = matrix(call->query_data, QUERIES, FEATURES);
    call->key = matrix(call->key_data, KEYS, FEATURES);
    call->value = matrix(call->value_data, KEYS, FEATURES);
    call->output = matrix(call->output_data, QUERIES, FEATURES);
    call->lse = vector(call->lse_data, QUERIES);
}

/* The mean of value rows 0 to visible - 1, whose first column has the mean (visible - 1) / 2. */
static void assert_mean_of_first(const float *row, int visible) {
    const double mean = (visible - 1) / 2.0;
    assert_near(row[0], mean);
    assert_near(row[1], 10 * mean);
    assert_near(row[2], 100 * mean);
    assert_near(row[3], 1);
}

static void sdpa_of_zero_queries_is_the_mean_of_the_values(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    assert_ok(attn_sdpa(NULL, &call.query, &call.key, &call.value, NULL, &call.output, NULL, 0));
    for (int i = 0; i < QUERIES; ++i) {
        assert_mean_of_first(call.output_data[i], KEYS);
    }
}

/* Every engine, with a caller's threads and allocator, and a workspace of exactly the bytes asked
 * for, so that no allocation is left. */
static void sdpa_causal_in_a_workspace_is_the_mean_of_what_each_row_sees(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        callbacks counts = {0};
        attn_context *context = context_with_callbacks(&counts, engine, ATTN_GEMM_NATIVE);
        attention_call call;
        prepare(&call);
        attn_sdpa_report report = {.struct_size = sizeof report};
        const attn_sdpa_params params = {
            .struct_size = sizeof params, .is_causal = 1, .lse = &call.lse, .report = &report};
        size_t bytes = 0;
        assert_ok(attn_sdpa_workspace_bytes(context, &call.query, &call.key, &call.value, &params,
                                            &call.output, &bytes));
        char *workspace = malloc(bytes + 1);
        assert_non_null(workspace);
        counts.allocations = 0;
        if (bytes > 0) {
            assert_int_equal(attn_sdpa(context, &call.query, &call.key, &call.value, &params,
                                       &call.output, workspace, bytes - 1),
                             ATTN_ERROR_WORKSPACE);
        }
        assert_ok(attn_sdpa(context, &call.query, &call.key, &call.value, &params, &call.output,
                            workspace, bytes));
        for (int i = 0; i < QUERIES; ++i) {
            assert_mean_of_first(call.output_data[i], i + 1);
            assert_near(call.lse_data[i], log(i + 1));
        }
        assert_int_equal(report.engine, engine);
        assert_int_equal(report.workspace_bytes, bytes);
        assert_non_null(report.reason);
        assert_int_equal(counts.allocations, 0);
        free(workspace);
        attn_context_destroy(context);
        assert_int_equal(counts.live_bytes, 0);
        assert_int_equal(counts.live_alignments, 0);
    }
}

static void sdpa_large_enough_for_threads_calls_parallel_for(void **state) {
    (void)state;
    enum { ROWS = 1024, COLUMNS = 64 };
    callbacks counts = {0};
    attn_context *context = context_with_callbacks(&counts, ATTN_ENGINE_AUTO, ATTN_GEMM_AUTO);
    float *data = calloc(2 * ROWS * COLUMNS, sizeof *data);
    assert_non_null(data);
    for (int i = 0; i < ROWS * COLUMNS; ++i) {
        data[i] = 3;
    }
    attn_tensor same = matrix(data, ROWS, COLUMNS);
    attn_tensor output = matrix(data + ROWS * COLUMNS, ROWS, COLUMNS);
    assert_ok(attn_sdpa(context, &same, &same, &same, NULL, &output, NULL, 0));
    for (int i = 0; i < ROWS * COLUMNS; ++i) {
        assert_near(data[ROWS * COLUMNS + i], 3);
    }
    assert_true(counts.tasks > 0);
    free(data);
    attn_context_destroy(context);
    assert_int_equal(counts.live_bytes, 0);
    assert_int_equal(counts.live_alignments, 0);
}

/* Values from the last row to the first, and what the call would run, without running it. */
static void sdpa_explains_a_strided_call(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    const int64_t shape[] = {KEYS, FEATURES};
    const int64_t strides[] = {-FEATURES, 1};
    attn_tensor backwards;
    assert_ok(attn_tensor_init_strided(&backwards, call.value_data[KEYS - 1], ATTN_DTYPE_FLOAT32, 2,
                                       shape, strides));
    attn_sdpa_report report = {.struct_size = sizeof report};
    assert_ok(
        attn_sdpa_explain(NULL, &call.query, &call.key, &backwards, NULL, &call.output, &report));
    assert_non_null(report.reason);
    assert_ok(attn_sdpa(NULL, &call.query, &call.key, &backwards, NULL, &call.output, NULL, 0));
    assert_mean_of_first(call.output_data[0], KEYS);
}

static void sdpa_describes_its_outputs(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    assert_ok(attn_sdpa_describe_outputs(&call.query, &call.key, &call.value, NULL, &outputs));
    assert_memory_equal(outputs.output.shape, call.output.shape, 2 * sizeof(int64_t));
    assert_int_equal(outputs.output.dtype, ATTN_DTYPE_FLOAT32);
    assert_int_equal(outputs.output.strides[0], FEATURES);
    assert_null(outputs.output.data);
    assert_int_equal(outputs.lse.rank, 1);
    assert_int_equal(outputs.weights.shape[1], KEYS);
}

/* A bias of -inf hides, one that is the same for all changes nothing; the last query stands at the
 * last key. */
static void sdpa_takes_a_bias_and_aligns_the_ends(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    float bias_data[KEYS] = {2, 2, -INFINITY};
    const attn_tensor bias = vector(bias_data, KEYS);
    attn_sdpa_params params = {.struct_size = sizeof params, .bias = &bias};
    assert_ok(attn_sdpa(NULL, &call.query, &call.key, &call.value, &params, &call.output, NULL, 0));
    assert_mean_of_first(call.output_data[QUERIES - 1], KEYS - 1);
    params = (attn_sdpa_params){.struct_size = sizeof params, .is_causal = 1, .align_end = 1};
    call.query.shape[0] = 1;
    call.output.shape[0] = 1;
    assert_ok(attn_sdpa(NULL, &call.query, &call.key, &call.value, &params, &call.output, NULL, 0));
    assert_mean_of_first(call.output_data[0], KEYS);
}

/* Values over the keys in two parts: of equal scores each weighs as many keys as it has. */
static void sdpa_merges_two_parts_of_the_keys(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    float part_data[2][QUERIES * FEATURES], lse_data[3][QUERIES];
    attn_tensor outputs[2], lses[2];
    for (int part = 0; part < 2; ++part) {
        attn_tensor key, value;
        const int64_t first = part == 0 ? 0 : 1, length = part == 0 ? 1 : KEYS - 1;
        assert_ok(attn_tensor_slice(&call.key, 0, first, length, 1, &key));
        assert_ok(attn_tensor_slice(&call.value, 0, first, length, 1, &value));
        outputs[part] = matrix(part_data[part], QUERIES, FEATURES);
        lses[part] = vector(lse_data[part], QUERIES);
        const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &lses[part]};
        assert_ok(attn_sdpa(NULL, &call.query, &key, &value, &params, &outputs[part], NULL, 0));
    }
    const attn_tensor lse = vector(lse_data[2], QUERIES);
    const attn_merge_params params = {.struct_size = sizeof params};
    assert_ok(attn_sdpa_merge(NULL, 2, outputs, lses, &params, &call.output, &lse));
    assert_mean_of_first(call.output_data[QUERIES - 1], KEYS);
    assert_near((double)lse_data[2][0], log(KEYS));
}

/* Of the first column of output alone: equal weights of 1/3 for values 0, 1 and 2 around their mean,
 * keys of 5 on their own axes, a scale of 1/2. Twice, the second time added to the first. */
static void sdpa_backward_of_zero_queries_is_the_distance_from_the_mean(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    float given_data[QUERIES][FEATURES] = {{1}, {1}, {1}};
    float query_data[QUERIES][FEATURES], value_data[KEYS][FEATURES];
    char workspace[1 << 18];
    size_t bytes;
    const attn_tensor given = matrix(given_data, QUERIES, FEATURES);
    const attn_tensor of_query = matrix(query_data, QUERIES, FEATURES);
    const attn_tensor of_value = matrix(value_data, KEYS, FEATURES);
    const attn_sdpa_params params = {.struct_size = sizeof params, .lse = &call.lse};
    assert_ok(attn_sdpa(NULL, &call.query, &call.key, &call.value, &params, &call.output, NULL, 0));
    attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients, .output = &given, .query = &of_query, .value = &of_value};
    attn_sdpa_backward_report report = {.struct_size = sizeof report};
    assert_ok(attn_sdpa_backward_workspace_bytes(NULL, &call.query, &call.key, &call.value, &params,
                                                 &call.output, &gradients, &bytes));
    assert_ok(attn_sdpa_backward_explain(NULL, &call.query, &call.key, &call.value, &params,
                                         &call.output, &gradients, &report));
    assert_int_equal(report.workspace_bytes, bytes);
    assert_true(report.num_items > 0 && report.kernels[0] != '\0' && report.reason[0] != '\0');
    assert_in_range(bytes, 0, sizeof workspace);
    for (int times = 1; times <= 2; ++times) {
        gradients.accumulate = times - 1;
        assert_ok(attn_sdpa_backward(NULL, &call.query, &call.key, &call.value, &params,
                                     &call.output, &gradients, workspace, sizeof workspace));
        for (int i = 0; i < QUERIES; ++i) {
            for (int j = 0; j < FEATURES; ++j) {
                assert_near(query_data[i][j], j < KEYS ? times * (j - 1) * 5 / 6.0 : 0);
                assert_near(value_data[i][j], j == 0 ? times : 0);
            }
        }
    }
}

/* Two sequences behind one another: two query rows of keys 0 and 1, and one of key 2; then the same
 * keys in pages of one row, from the last to the first. */
static void sdpa_of_ragged_sequences_is_the_mean_of_the_values_of_each(void **state) {
    (void)state;
    int64_t start_data[] = {0, 2, 3};
    int32_t page_data[] = {2, 1, 0};
    const int64_t count = 3, last = 2, ragged[] = {1, QUERIES, FEATURES};
    const int64_t paged[] = {KEYS, 1, 1, FEATURES};
    for (int in_pages = 0; in_pages < 2; ++in_pages) {
        attention_call call;
        prepare(&call);
        attn_tensor query, key, value, output, starts, pages;
        assert_ok(attn_tensor_init(&query, call.query_data, ATTN_DTYPE_FLOAT32, 3, ragged));
        assert_ok(attn_tensor_init(&output, call.output_data, ATTN_DTYPE_FLOAT32, 3, ragged));
        assert_ok(attn_tensor_init(&starts, start_data, ATTN_DTYPE_INT64, 1, &count));
        assert_ok(attn_tensor_init(&pages, page_data, ATTN_DTYPE_INT32, 1, &count));
        assert_ok(attn_tensor_init(&key, call.key_data, ATTN_DTYPE_FLOAT32, 3 + in_pages,
                                   in_pages ? paged : ragged));
        assert_ok(attn_tensor_init(&value, call.value_data, ATTN_DTYPE_FLOAT32, 3 + in_pages,
                                   in_pages ? paged : ragged));
        const attn_kv kv = {.struct_size = sizeof kv,
                            .key = &key,
                            .value = &value,
                            .page_table = in_pages ? &pages : NULL,
                            .page_starts = in_pages ? &starts : NULL,
                            .starts = in_pages ? NULL : &starts};
        const attn_sdpa_params params = {
            .struct_size = sizeof params, .kv = &kv, .query_starts = &starts};
        assert_ok(attn_sdpa(NULL, &query, NULL, NULL, &params, &output, NULL, 0));
        /* Means of values 0 and 1, or 2 and 1; then value 2, or 0. */
        assert_near(call.output_data[0][0], in_pages ? 1.5 : 0.5);
        assert_near(call.output_data[1][1], in_pages ? 15 : 5);
        assert_near(call.output_data[last][0], in_pages ? 0 : 2);
    }
}

static void count_checks(void *state, const char *check, attn_status status, const char *detail) {
    int *num_checks = state;
    assert_ok(status);
    assert_non_null(check);
    assert_string_equal(detail, "");
    *num_checks += 1;
}

static void selftest_tells_of_its_checks(void **state) {
    (void)state;
    int num_checks = 0;
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = count_checks, .visit_state = &num_checks};
    assert_ok(attn_selftest(NULL, &params));
    assert_true(num_checks > 0);
}

/* ---- multi-head ---- */

static void load(attn_mha *layer, const char *name, attn_tensor values) {
    assert_ok(attn_mha_load_parameter(NULL, layer, name, &values, NULL));
}

/* Projections of query and key are 0, those of value and output the identity, out_proj.bias is 0.5:
 * the layer returns the mean of the values, plus 0.5. */
static attn_mha *layer_of_means(void) {
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = FEATURES, .num_heads = 2, .batch_first = 1};
    float in_weight[3 * FEATURES][FEATURES] = {{0}}, in_bias[3 * FEATURES] = {0};
    float out_weight[FEATURES][FEATURES] = {{0}}, out_bias[FEATURES];
    for (int i = 0; i < FEATURES; ++i) {
        in_weight[2 * FEATURES + i][i] = 1;
        out_weight[i][i] = 1;
        out_bias[i] = 0.5f;
    }
    attn_mha *layer = NULL;
    assert_ok(attn_mha_create(NULL, &config, &layer));
    load(layer, "in_proj_weight", matrix(in_weight, 3 * FEATURES, FEATURES));
    load(layer, "in_proj_bias", vector(in_bias, 3 * FEATURES));
    load(layer, "out_proj.weight", matrix(out_weight, FEATURES, FEATURES));
    load(layer, "out_proj.bias", vector(out_bias, FEATURES));
    return layer;
}

static void mha_of_zero_queries_is_the_mean_of_the_values_and_the_bias(void **state) {
    (void)state;
    attn_mha *layer = layer_of_means();
    attention_call call;
    prepare(&call);
    float weight_data[QUERIES][KEYS] = {{0}};
    attn_tensor weights = matrix(weight_data, QUERIES, KEYS);
    const attn_sdpa_params attention = {
        .struct_size = sizeof attention, .is_causal = 1, .weights = &weights};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    attn_mha_report report = {.struct_size = sizeof report};
    size_t bytes = 0;
    assert_ok(attn_mha_explain(NULL, layer, &call.query, &call.key, &call.value, &params,
                               &call.output, &report));
    assert_ok(attn_mha_workspace_bytes(NULL, layer, &call.query, &call.key, &call.value, &params,
                                       &call.output, &bytes));
    assert_int_equal(report.workspace_bytes, bytes);
    assert_non_null(report.kernels);
    char *workspace = malloc(bytes + 1);
    assert_non_null(workspace);
    assert_ok(attn_mha_forward(NULL, layer, &call.query, &call.key, &call.value, &params,
                               &call.output, workspace, bytes));
    for (int i = 0; i < QUERIES; ++i) {
        for (int j = 0; j < KEYS; ++j) {
            assert_near(weight_data[i][j], j <= i ? 1.0 / (i + 1) : 0);
        }
        for (int j = 0; j < FEATURES; ++j) {
            call.output_data[i][j] -= 0.5f;
        }
        assert_mean_of_first(call.output_data[i], i + 1);
    }
    free(workspace);
    attn_mha_destroy(layer);
}

static void mha_parameters_are_listed_and_read_back(void **state) {
    (void)state;
    static const char *const names[] = {"in_proj_weight", "in_proj_bias", "out_proj.weight",
                                        "out_proj.bias"};
    attn_mha *layer = layer_of_means();
    int64_t count = 0;
    assert_ok(attn_mha_parameter_count(layer, &count));
    assert_int_equal(count, 4);
    for (int64_t index = 0; index < count; ++index) {
        const char *name = NULL;
        attn_tensor shape;
        assert_ok(attn_mha_parameter_describe(layer, index, &name, &shape));
        assert_string_equal(name, names[index]);
        assert_int_equal(shape.shape[0], index < 2 ? 3 * FEATURES : FEATURES);
        assert_int_equal(shape.rank, index % 2 == 0 ? 2 : 1);
    }
    float bias[FEATURES] = {0};
    const attn_tensor view = vector(bias, FEATURES);
    assert_ok(attn_mha_read_parameter(NULL, layer, "out_proj.bias", &view));
    assert_true(bias[FEATURES - 1] == 0.5f);
    attn_mha_destroy(layer);
}

static void mha_parameters_may_be_drawn_and_bound(void **state) {
    (void)state;
    attn_mha *layer = layer_of_means();
    float drawn[FEATURES][FEATURES] = {{0}}, bound[FEATURES][FEATURES] = {{0}};
    const attn_tensor view = matrix(drawn, FEATURES, FEATURES);
    const attn_tensor weight = matrix(bound, FEATURES, FEATURES);
    const attn_mha_init_params params = {.struct_size = sizeof params, .seed = 1};
    assert_ok(attn_mha_init_parameters(NULL, layer, &params));
    assert_ok(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &view));
    assert_true(drawn[0][0] != 0 && fabs(drawn[0][0]) <= 1);
    bound[2][3] = 7;
    assert_ok(attn_mha_bind_parameter(layer, "out_proj.weight", &weight));
    assert_ok(attn_mha_read_parameter(NULL, layer, "out_proj.weight", &view));
    assert_true(drawn[2][3] == 7 && drawn[0][0] == 0);
    attn_mha_destroy(layer);
}

static void mha_describes_itself_and_its_outputs(void **state) {
    (void)state;
    attn_mha *layer = layer_of_means();
    attn_mha_config config = {.struct_size = sizeof config};
    assert_ok(attn_mha_describe(layer, &config));
    assert_int_equal(config.embed_dim, FEATURES);
    assert_int_equal(config.head_dim, FEATURES / 2);
    assert_int_equal(config.batch_first, 1);
    attention_call call;
    prepare(&call);
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    assert_ok(
        attn_mha_describe_outputs(layer, &call.query, &call.key, &call.value, NULL, &outputs));
    assert_int_equal(outputs.output.rank, 2);
    assert_int_equal(outputs.output.shape[0], QUERIES);
    assert_int_equal(outputs.output.shape[1], FEATURES);
    assert_int_equal(outputs.weights.rank, 3);
    assert_int_equal(outputs.averaged_weights.rank, 2);
    assert_int_equal(outputs.averaged_weights.shape[1], KEYS);
    assert_int_equal(outputs.lse.shape[1], QUERIES);
    attn_mha_destroy(layer);
}

/* ---- views and errors ---- */

static void views_split_and_merge_heads(void **state) {
    (void)state;
    float data[6] = {0};
    const attn_tensor features = matrix(data, 1, 6);
    attn_tensor heads, turned, merged, head;
    int64_t count = 0;
    assert_ok(attn_tensor_split_heads(&features, 3, &heads));
    assert_int_equal(heads.rank, 3);
    assert_int_equal(heads.shape[0], 3);
    assert_int_equal(heads.shape[2], 2);
    assert_ok(attn_tensor_select(&heads, -3, 2, &head));
    assert_int_equal(head.rank, 2);
    assert_true((float *)head.data == data + 4);
    assert_ok(attn_tensor_merge_heads(&heads, &merged));
    assert_memory_equal(merged.shape, features.shape, 2 * sizeof(int64_t));
    assert_ok(attn_tensor_transpose(&features, 0, 1, &turned));
    assert_ok(attn_tensor_slice(&turned, 0, 4, 2, -2, &turned));
    assert_true((float *)turned.data == data + 4);
    assert_ok(attn_tensor_count(&turned, &count));
    assert_int_equal(count, 2);
    assert_int_equal(attn_tensor_is_contiguous(&turned), 0);
    assert_int_equal(attn_dtype_size_bytes(ATTN_DTYPE_INT64), 8);
    assert_int_equal(attn_dtype_values(ATTN_DTYPE_INT4X2), 2);
}

static void errors_name_the_argument_and_leave_the_output(void **state) {
    (void)state;
    attention_call call;
    prepare(&call);
    call.key.shape[1] = FEATURES - 1;
    call.output_data[0][0] = 42;
    assert_int_equal(
        attn_sdpa(NULL, &call.query, &call.key, &call.value, NULL, &call.output, NULL, 0),
        ATTN_ERROR_SHAPE);
    assert_true(call.output_data[0][0] == 42);
    assert_memory_equal(attn_last_error(), "key: ", 5);
    char start[4];
    assert_int_equal(attn_last_error_copy(start, sizeof start), strlen(attn_last_error()) + 1);
    assert_int_equal(attn_error_set(1001, "rank 3: failed"), 1001);
    assert_string_equal(attn_last_error(), "rank 3: failed");
    assert_string_equal(start, "key");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_is_this_release_or_later),
        cmocka_unit_test(statuses_have_their_names),
        cmocka_unit_test(every_kernel_name_makes_a_context),
        cmocka_unit_test(context_has_the_settings_it_was_given),
        cmocka_unit_test(softmax_of_equal_scores_is_uniform_over_what_is_visible),
        cmocka_unit_test(quarter_turns_change_a_pair_for_each_other),
        cmocka_unit_test(tables_are_looked_up_by_length),
        cmocka_unit_test(normalized_rows_have_a_mean_square_of_one),
        cmocka_unit_test(sdpa_of_zero_queries_is_the_mean_of_the_values),
        cmocka_unit_test(sdpa_causal_in_a_workspace_is_the_mean_of_what_each_row_sees),
        cmocka_unit_test(sdpa_large_enough_for_threads_calls_parallel_for),
        cmocka_unit_test(sdpa_explains_a_strided_call),
        cmocka_unit_test(sdpa_describes_its_outputs),
        cmocka_unit_test(sdpa_takes_a_bias_and_aligns_the_ends),
        cmocka_unit_test(sdpa_merges_two_parts_of_the_keys),
        cmocka_unit_test(sdpa_backward_of_zero_queries_is_the_distance_from_the_mean),
        cmocka_unit_test(sdpa_of_ragged_sequences_is_the_mean_of_the_values_of_each),
        cmocka_unit_test(selftest_tells_of_its_checks),
        cmocka_unit_test(mha_of_zero_queries_is_the_mean_of_the_values_and_the_bias),
        cmocka_unit_test(mha_parameters_are_listed_and_read_back),
        cmocka_unit_test(mha_parameters_may_be_drawn_and_bound),
        cmocka_unit_test(mha_describes_itself_and_its_outputs),
        cmocka_unit_test(views_split_and_merge_heads),
        cmocka_unit_test(errors_name_the_argument_and_leave_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
