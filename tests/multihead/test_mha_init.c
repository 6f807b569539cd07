/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_init.c: fresh parameters: the distribution of each, one seed one set of values, and what
 * becomes of the old ones.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layer_tools.h"

/* All values of one parameter, however many. */
struct sample {
    int64_t count;
    double *values;
};

static struct sample sample_of(const attn_mha *layer, const char *name) {
    struct sample sample = {0};
    const char *listed;
    attn_tensor view;
    for (int64_t index = 0; attn_mha_parameter_describe(layer, index, &listed, &view) == ATTN_OK;
         ++index) {
        if (strcmp(listed, name) == 0) {
            sample.count = layer_count(&view);
            sample.values = malloc((size_t)sample.count * sizeof *sample.values);
            view.data = sample.values;
            assert_non_null(sample.values);
            assert_int_equal(attn_mha_read_parameter(NULL, layer, name, &view), ATTN_OK);
            /* From the last on, because narrow values share memory with the wide ones before them.
             */
            for (int64_t i = sample.count - 1; i >= 0; --i) {
                sample.values[i] = layer_get(&view, i);
            }
            return sample;
        }
    }
    fail_msg("no parameter %s", name);
    return sample;
}

static attn_status init_with_seed(attn_mha *layer, uint64_t seed) {
    const attn_mha_init_params params = {.struct_size = sizeof params, .seed = seed};
    return attn_mha_init_parameters(NULL, layer, &params);
}

static attn_mha *fresh_layer(counting_allocator *counting, const attn_mha_config *config,
                             uint64_t seed) {
    attn_mha *layer = layer_make(counting, config);
    assert_int_equal(init_with_seed(layer, seed), ATTN_OK);
    return layer;
}

/* ---- distributions ---- */

/* |mean| and the variance within 4 standard errors of what they should be; `kurtosis` is that of
 * the distribution. */
static void assert_moments(const char *name, const struct sample *sample, double variance,
                           double kurtosis) {
    const double n = (double)sample->count;
    double mean = 0;
    double square = 0;
    for (int64_t i = 0; i < sample->count; ++i) {
        mean += sample->values[i] / n;
        square += sample->values[i] * sample->values[i] / n;
    }
    const double mean_z = mean / sqrt(variance / n);
    const double square_z = (square - variance) / (variance * sqrt((kurtosis - 1) / n));
    print_message("%s: %lld values, z of the mean %.2f, of the variance %.2f\n", name,
                  (long long)sample->count, mean_z, square_z);
    assert_true(fabs(mean_z) < 4 && fabs(square_z) < 4);
}

/* Neighbours, and values a row apart, must not be alike. */
static void assert_uncorrelated(const struct sample *sample, int64_t lag, double variance) {
    const int64_t n = sample->count - lag;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += sample->values[i] * sample->values[i + lag];
    }
    assert_true(fabs(sum / variance / sqrt((double)n)) < 4);
}

/* Within (-limit, limit), close to both ends, and spread evenly. */
static void assert_uniform(const attn_mha *layer, const char *name, double limit) {
    const struct sample sample = sample_of(layer, name);
    double lowest = 0;
    double highest = 0;
    for (int64_t i = 0; i < sample.count; ++i) {
        lowest = fmin(lowest, sample.values[i]);
        highest = fmax(highest, sample.values[i]);
    }
    assert_true(lowest >= -limit && highest <= limit);
    assert_true(lowest < -0.99 * limit && highest > 0.99 * limit);
    assert_moments(name, &sample, limit * limit / 3, 9.0 / 5);
    assert_uncorrelated(&sample, 1, limit * limit / 3);
    assert_uncorrelated(&sample, 60, limit * limit / 3);
    free(sample.values);
}

static void assert_normal(const attn_mha *layer, const char *name, double deviation) {
    const struct sample sample = sample_of(layer, name);
    const double n = (double)sample.count;
    double within_one = 0;
    double within_two = 0;
    for (int64_t i = 0; i < sample.count; ++i) {
        within_one += fabs(sample.values[i]) < deviation;
        within_two += fabs(sample.values[i]) < 2 * deviation;
    }
    assert_moments(name, &sample, deviation * deviation, 3);
    assert_true(fabs(within_one / n - 0.682689) < 4 * sqrt(0.682689 * 0.317311 / n));
    assert_true(fabs(within_two / n - 0.954500) < 4 * sqrt(0.954500 * 0.045500 / n));
    assert_uncorrelated(&sample, 1, deviation * deviation);
    free(sample.values);
}

static void assert_zero(const attn_mha *layer, const char *name) {
    const struct sample sample = sample_of(layer, name);
    for (int64_t i = 0; i < sample.count; ++i) {
        assert_true(sample.values[i] == 0);
    }
    free(sample.values);
}

/* in_proj_weight counts as one matrix, as in PyTorch. */
static void init_packed_layer_is_drawn_as_pytorch_does(void **state) {
    (void)state;
    counting_allocator counting;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = 60,
                                    .num_heads = 3,
                                    .num_kv_heads = 1,
                                    .value_head_dim = 40,
                                    .dtype = ATTN_DTYPE_FLOAT64};
    attn_mha *layer = fresh_layer(&counting, &config, 7);
    assert_uniform(layer, "in_proj_weight", sqrt(6.0 / (60 + 20 + 40 + 60)));
    assert_uniform(layer, "out_proj.weight", 1 / sqrt(120.0));
    assert_zero(layer, "in_proj_bias");
    assert_zero(layer, "out_proj.bias");
    layer_end(layer, &counting);
}

static void init_separate_layer_is_drawn_as_pytorch_does(void **state) {
    (void)state;
    counting_allocator counting;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = 60,
                                    .num_heads = 2,
                                    .kdim = 90,
                                    .vdim = 45,
                                    .num_kv_heads = 1,
                                    .head_dim = 50,
                                    .value_head_dim = 70,
                                    .dtype = ATTN_DTYPE_FLOAT64};
    attn_mha *layer = fresh_layer(&counting, &config, 8);
    assert_uniform(layer, "q_proj_weight", sqrt(6.0 / (100 + 60)));
    assert_uniform(layer, "k_proj_weight", sqrt(6.0 / (50 + 90)));
    assert_uniform(layer, "v_proj_weight", sqrt(6.0 / (70 + 45)));
    assert_uniform(layer, "out_proj.weight", 1 / sqrt(140.0));
    layer_end(layer, &counting);
}

/* Few weights, many features of the extra key and value. */
static void init_extra_key_and_value_are_normal(void **state) {
    (void)state;
    counting_allocator counting;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = 2,
                                    .num_heads = 1,
                                    .head_dim = 20000,
                                    .value_head_dim = 30000,
                                    .add_bias_kv = 1,
                                    .dtype = ATTN_DTYPE_FLOAT64};
    attn_mha *layer = fresh_layer(&counting, &config, 9);
    assert_normal(layer, "bias_k", sqrt(1.0 / 20000));
    assert_normal(layer, "bias_v", sqrt(1.0 / 30000));
    layer_end(layer, &counting);
}

/* ---- seeds ---- */

/* Parameters of equal shape that hold equal values at equal places. */
static int64_t count_equal(const attn_mha *a, const char *name_a, const attn_mha *b,
                           const char *name_b) {
    const struct sample first = sample_of(a, name_a);
    const struct sample second = sample_of(b, name_b);
    int64_t count = 0;
    assert_int_equal(first.count, second.count);
    for (int64_t i = 0; i < first.count; ++i) {
        count += first.values[i] == second.values[i];
    }
    free(first.values);
    free(second.values);
    return count;
}

static void init_same_seed_is_same_values_others_others(void **state) {
    (void)state;
    static const uint64_t seeds[] = {0, 1, 2, UINT64_MAX, UINT64_C(0x9E3779B97F4A7C15)};
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = 20,
                                    .num_heads = 2,
                                    .kdim = 10,
                                    .add_bias_kv = 1,
                                    .dtype = ATTN_DTYPE_FLOAT64};
    counting_allocator counting[2];
    for (int i = 0; i < 5; ++i) {
        for (int j = 0; j < 5; ++j) {
            attn_mha *a = fresh_layer(&counting[0], &config, seeds[i]);
            attn_mha *b = fresh_layer(&counting[1], &config, seeds[j]);
            assert_int_equal(count_equal(a, "q_proj_weight", b, "q_proj_weight"), i == j ? 400 : 0);
            assert_int_equal(count_equal(a, "k_proj_weight", b, "k_proj_weight"), i == j ? 200 : 0);
            assert_int_equal(count_equal(a, "bias_v", b, "bias_v"), i == j ? 20 : 0);
            assert_int_equal(count_equal(a, "out_proj.weight", b, "out_proj.weight"),
                             i == j ? 400 : 0);
            layer_end(a, &counting[0]);
            layer_end(b, &counting[1]);
        }
    }
}

/* Equal shapes and bounds: were they one stream, they would be equal or shifted copies. */
static void init_parameters_of_a_layer_differ_from_each_other(void **state) {
    (void)state;
    const attn_mha_config config = {.struct_size = sizeof config,
                                    .embed_dim = 20,
                                    .num_heads = 2,
                                    .kdim = 10,
                                    .qdim = 10,
                                    .vdim = 10,
                                    .add_bias_kv = 1,
                                    .dtype = ATTN_DTYPE_FLOAT64};
    counting_allocator counting;
    attn_mha *layer = fresh_layer(&counting, &config, 3);
    assert_int_equal(count_equal(layer, "q_proj_weight", layer, "k_proj_weight"), 0);
    assert_int_equal(count_equal(layer, "k_proj_weight", layer, "v_proj_weight"), 0);
    assert_int_equal(count_equal(layer, "q_proj_weight", layer, "v_proj_weight"), 0);
    assert_int_equal(count_equal(layer, "bias_k", layer, "bias_v"), 0);
    layer_end(layer, &counting);
}

struct pinned {
    const char *name;
    int64_t first; /* position in the parameter */
    double values[3];
};

/* Computed apart from this code, from the description of SplitMix64 and its streams: a change would
 * break saved seeds. */
static void init_values_of_a_seed_never_change(void **state) {
    (void)state;
    static const struct pinned pinned[] = {
        {"in_proj_weight", 0, {0x1.f2646f28686aap-2, -0x1.87dbeac6a540cp-3, 0x1.ba563d5522880p-8}},
        {"in_proj_weight", 36, {0x1.9057035e6876cp-3, -0x1.2098ed7f8ed90p-5, 0x1.f6bbcc6c8c0f0p-5}},
        {"out_proj.weight",
         0,
         {-0x1.4fd800e79bde2p-2, -0x1.004fb7d140b2fp-2, 0x1.e93da7f31a962p-4}},
    };
    for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
        const attn_mha_config config = {
            .struct_size = sizeof config, .embed_dim = 6, .num_heads = 2, .dtype = dtype};
        counting_allocator counting;
        attn_mha *layer = fresh_layer(&counting, &config, 42);
        for (size_t i = 0; i < sizeof pinned / sizeof pinned[0]; ++i) {
            const struct sample sample = sample_of(layer, pinned[i].name);
            for (int j = 0; j < 3; ++j) {
                const double value = pinned[i].values[j];
                assert_true(sample.values[pinned[i].first + j] ==
                            (dtype == ATTN_DTYPE_FLOAT32 ? (double)(float)value : value));
            }
            free(sample.values);
        }
        layer_end(layer, &counting);
    }
}

/* ---- the old parameters ---- */

static void init_replaces_bound_parameters_without_writing_them(void **state) {
    (void)state;
    static float memory[108];
    counting_allocator counting;
    const attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 6, .num_heads = 2};
    attn_mha *layer = layer_make(&counting, &config);
    const attn_tensor view = {.data = memory,
                              .dtype = ATTN_DTYPE_FLOAT32,
                              .rank = 2,
                              .shape = {18, 6},
                              .strides = {6, 1}};
    assert_int_equal(attn_mha_bind_parameter(layer, "in_proj_weight", &view), ATTN_OK);
    layer_load_counting(layer, ATTN_DTYPE_FLOAT32, "out_proj.weight", 6, 6, 3);
    assert_int_equal(init_with_seed(layer, 5), ATTN_OK);
    memory[0] = 1000;
    const parameter_values values = layer_read(layer, ATTN_DTYPE_FLOAT32, "in_proj_weight", 18, 6);
    const parameter_values loaded = layer_read(layer, ATTN_DTYPE_FLOAT32, "out_proj.weight", 6, 6);
    for (int i = 0; i < 108; ++i) {
        assert_true(memory[i] == (i == 0 ? 1000.0f : 0.0f));
        assert_true(values.values[i] != 0 && fabs(values.values[i]) < 1);
    }
    assert_true(fabs(loaded.values[0]) < 1);
    layer_end(layer, &counting);
}

/* However many blocks are granted before one is refused, the layer stays as it was. */
static void init_without_memory_keeps_the_old_parameters(void **state) {
    (void)state;
    counting_allocator counting;
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = 6, .num_heads = 2, .add_bias_kv = 1};
    attn_mha *layer = layer_make(&counting, &config);
    layer_load_counting(layer, ATTN_DTYPE_FLOAT32, "in_proj_weight", 18, 6, 11);
    const int64_t num_live = counting.live_blocks;
    int64_t num_refused = 0;
    attn_status status = ATTN_ERROR_MEMORY;
    while (status != ATTN_OK && num_refused < 100) {
        counting_allocator_fail(&counting, num_refused + 1, false);
        status = init_with_seed(layer, 5);
        if (status != ATTN_OK) {
            assert_int_equal(status, ATTN_ERROR_MEMORY);
            assert_int_equal(counting.live_blocks, num_live);
            const parameter_values values =
                layer_read(layer, ATTN_DTYPE_FLOAT32, "in_proj_weight", 18, 6);
            layer_assert_counting(&values, 0, 108, 11);
            ++num_refused;
        }
    }
    assert_int_equal(status, ATTN_OK);
    assert_true(num_refused >= 1);
    layer_end(layer, &counting);
}

static void init_null_layer_is_refused(void **state) {
    (void)state;
    assert_int_equal(init_with_seed(NULL, 1), ATTN_ERROR_NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_packed_layer_is_drawn_as_pytorch_does),
        cmocka_unit_test(init_separate_layer_is_drawn_as_pytorch_does),
        cmocka_unit_test(init_extra_key_and_value_are_normal),
        cmocka_unit_test(init_same_seed_is_same_values_others_others),
        cmocka_unit_test(init_parameters_of_a_layer_differ_from_each_other),
        cmocka_unit_test(init_values_of_a_seed_never_change),
        cmocka_unit_test(init_replaces_bound_parameters_without_writing_them),
        cmocka_unit_test(init_without_memory_keeps_the_old_parameters),
        cmocka_unit_test(init_null_layer_is_refused),
    };
    return cmocka_run_group_tests_name("mha_init", tests, NULL, NULL);
}
