/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_extremes.c: numbers at the end of the range, over sizes that cross blocks, panels
 * and splits of both engines: masks at the lowest float, scores so far apart that one key has all
 * the weight, NaN and infinity that some rows see and others do not.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

/* Panels of one to three vectors, several blocks of keys, a row and a few over splits of them. */
static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, 1, 1, 1, 1, 37, 4, 3},     {ATTN_DTYPE_FLOAT32, 2, 2, 1, 5, 300, 8, 16},
    {ATTN_DTYPE_FLOAT32, 1, 2, 2, 70, 520, 16, 24}, {ATTN_DTYPE_FLOAT32, 1, 1, 1, 1, 5000, 8, 16},
    {ATTN_DTYPE_FLOAT32, 1, 4, 1, 3, 4500, 8, 5},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

typedef void (*context_check)(attn_context *context, const sdpa_sizes *sizes);

static void for_every_call(context_check check) {
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
            const attn_context_config params = {.struct_size = sizeof params,
                                                .num_threads = 2,
                                                .engine = engine,
                                                .kernels = attn_kernels_name(kernels)};
            attn_context *context;
            assert_ok(attn_context_create(&params, &context));
            for (int s = 0; s < NUM_SIZES; ++s) {
                check(context, &all_sizes[s]);
            }
            attn_context_destroy(context);
        }
    }
}

/* Weights keep a row's keys together, so both ways are of interest. */
static void create_call(sdpa_setup *setup, const sdpa_sizes *sizes, int has_weights) {
    sdpa_setup_create(setup, sizes, 307);
    setup->params.weights = has_weights ? setup->weights : NULL;
}

static float *data_of(const attn_tensor *tensor) {
    return tensor->data;
}

/* Row `row` of the flattened (batch, head, row); its batch and value head. */
static const float *values_of(const sdpa_setup *setup, int64_t row) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t head = row / s->rows;
    const int64_t batch = head / s->heads;
    const int64_t kv_head = head % s->heads / (s->heads / s->kv_heads);
    return data_of(setup->value) + (batch * s->kv_heads + kv_head) * s->keys * s->value_features;
}

/* ---- masks at the lowest float ---- */

/* Every score is lost in the rounding of the sum, so that all keys weigh the same, as in PyTorch.
 */
static void check_average(const sdpa_setup *setup, int64_t row, int64_t first, int64_t past) {
    const sdpa_sizes *s = &setup->sizes;
    const float *values = values_of(setup, row);
    const double count = (double)(past - first);
    for (int64_t c = 0; c < s->value_features; ++c) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t j = first; j < past; ++j) {
            sum += (double)values[j * s->value_features + c];
            magnitude += fabs((double)values[j * s->value_features + c]);
        }
        const double found = (double)data_of(setup->output)[row * s->value_features + c];
        const double bound = (2 * count + 16) * 0x1p-24 * magnitude / count;
        if (!(fabs(found - sum / count) <= bound)) {
            fail_msg("row %d, column %d: expected the mean %g within %g, got %g", (int)row, (int)c,
                     sum / count, bound, found);
        }
    }
    for (int64_t j = first; setup->params.weights != NULL && j < past; ++j) {
        const double weight = (double)data_of(setup->weights)[row * s->keys + j];
        assert_true(fabs(weight - 1 / count) <= (count + 8) * 0x1p-24 / count);
    }
}

static void check_lowest(attn_context *context, const sdpa_sizes *s) {
    static sdpa_setup setup;
    const int64_t shape[] = {s->rows, s->keys};
    for (int kind = 0; kind < 4; ++kind) {
        create_call(&setup, s, kind % 2);
        attn_tensor *mask =
            pool_input(&setup.pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_CONTIGUOUS);
        for (int64_t i = 0; i < s->rows * s->keys; ++i) {
            data_of(mask)[i] = -FLT_MAX;
        }
        setup.params.mask = mask;
        setup.params.mask_kind = ATTN_MASK_ADDITIVE;
        setup.params.is_causal = kind >= 2;
        int64_t offset = s->keys - s->rows;
        attn_tensor offsets;
        assert_ok(attn_tensor_init(&offsets, &offset, ATTN_DTYPE_INT64, 0, NULL));
        setup.params.query_offset = &offsets;
        sdpa_setup_run(context, &setup);
        for (int64_t row = 0; row < s->batch * s->heads * s->rows; ++row) {
            const int64_t past = kind >= 2 ? row % s->rows + offset + 1 : s->keys;
            check_average(&setup, row, 0, past > s->keys ? s->keys : past);
            assert_true(data_of(setup.lse)[row] == -FLT_MAX);
        }
        sdpa_setup_destroy(&setup);
    }
}

static void rows_masked_with_the_lowest_float_average(void **state) {
    (void)state;
    for_every_call(check_lowest);
}

/* ---- scores far apart ---- */

/* Query and key have one feature that matters, so that the score of key j is k[j]. */
static void set_scores(sdpa_setup *setup, int64_t top, float top_score, float other_score) {
    const int64_t features = setup->sizes.features;
    const int64_t query_count = oracle_count(4, setup->query->shape);
    const int64_t key_count = oracle_count(4, setup->key->shape);
    for (int64_t i = 0; i < query_count; ++i) {
        data_of(setup->query)[i] = i % features == 0 ? 1 : 0;
    }
    for (int64_t i = 0; i < key_count; ++i) {
        const int64_t j = i / features % setup->sizes.keys;
        data_of(setup->key)[i] = i % features != 0 ? 0 : j == top ? top_score : other_score;
    }
    setup->params.set |= ATTN_SDPA_SET_SCALE;
    setup->params.scale = 1;
}

static void check_one_key(attn_context *context, const sdpa_sizes *s, int64_t top, float top_score,
                          float other_score) {
    static sdpa_setup setup;
    create_call(&setup, s, top % 2 == 0);
    set_scores(&setup, top, top_score, other_score);
    sdpa_setup_run(context, &setup);
    for (int64_t row = 0; row < s->batch * s->heads * s->rows; ++row) {
        const float *expected = values_of(&setup, row) + top * s->value_features;
        const float *found = data_of(setup.output) + row * s->value_features;
        if (memcmp(expected, found, (size_t)s->value_features * sizeof(float)) != 0) {
            fail_msg("row %d of %d keys, of which %d has all the weight: expected %g, got %g",
                     (int)row, (int)s->keys, (int)top, (double)expected[0], (double)found[0]);
        }
        assert_true(data_of(setup.lse)[row] == top_score);
    }
    sdpa_setup_destroy(&setup);
}

static void check_far_apart(attn_context *context, const sdpa_sizes *s) {
    const int64_t tops[] = {0, 1, 35, 63, 64, 127, 255, 256, 299, 2047, 2048, s->keys - 1};
    for (int i = 0; i < 12; ++i) {
        if (tops[i] < s->keys) {
            check_one_key(context, s, tops[i], 1e30F, -1e30F);
            check_one_key(context, s, tops[i], 3e38F, -3e38F); /* their difference overflows */
            check_one_key(context, s, tops[i], -1e30F, -FLT_MAX);
            check_one_key(context, s, tops[i], 200, 0);
        }
    }
}

static void one_key_far_above_the_others_has_all_the_weight(void **state) {
    (void)state;
    for_every_call(check_far_apart);
}

/* ---- NaN and infinity that not every row sees ---- */

/* Whether a row sees a key by the options of check_poison_at. */
static int is_seen(const sdpa_setup *setup, int64_t row, int64_t key, int64_t length) {
    const int64_t position = row % setup->sizes.rows + setup->sizes.keys - setup->sizes.rows;
    return key < length && key <= position && key >= position - setup->params.window_left;
}

/* A special number in one key or value of every head, causality, a window and lengths: rows that
 * see it have a result that is not finite, the others one that is as good as without it. */
static void check_poison_at(attn_context *context, const sdpa_sizes *s, int64_t at, float special,
                            int in_key) {
    static sdpa_setup setup;
    int64_t lengths[2] = {s->keys, s->keys - 3};
    int64_t offset = s->keys - s->rows;
    attn_tensor length_tensor, offsets;
    create_call(&setup, s, 0);
    assert_ok(attn_tensor_init(&length_tensor, lengths, ATTN_DTYPE_INT64, 1, &s->batch));
    assert_ok(attn_tensor_init(&offsets, &offset, ATTN_DTYPE_INT64, 0, NULL));
    setup.params.set |= ATTN_SDPA_SET_WINDOW;
    setup.params.window_left = s->keys / 2;
    setup.params.window_right = -1;
    setup.params.is_causal = 1;
    setup.params.query_offset = &offsets;
    setup.params.key_lengths = &length_tensor;
    sdpa_setup_run(context, &setup);
    const attn_tensor *clean = copied(&setup.pool, setup.output);
    const attn_tensor *poisoned = in_key ? setup.key : setup.value;
    const int64_t width = in_key ? s->features : s->value_features;
    for (int64_t head = 0; head < s->batch * s->kv_heads; ++head) {
        data_of(poisoned)[(head * s->keys + at) * width + head % width] = special;
    }
    sdpa_setup_run(context, &setup);
    const int64_t columns = s->value_features;
    for (int64_t row = 0; row < s->batch * s->heads * s->rows; ++row) {
        const int sees = is_seen(&setup, row, at, lengths[row / s->rows / s->heads]);
        int num_bad = 0;
        for (int64_t c = row * columns; c < (row + 1) * columns; ++c) {
            const float found = data_of(setup.output)[c];
            num_bad += !isfinite(found);
            if (!sees && !(fabsf(found - data_of(clean)[c]) <= 1e-5F)) {
                fail_msg("row %d does not see key %d of %d but has %g for %g", (int)row, (int)at,
                         (int)s->keys, (double)found, (double)data_of(clean)[c]);
            }
        }
        assert_true(!sees || num_bad > 0 || (in_key && isinf(special)));
    }
    sdpa_setup_destroy(&setup);
}

static void check_poison(attn_context *context, const sdpa_sizes *s) {
    const int64_t places[] = {0,           s->keys / 4, s->keys / 2 - 1, s->keys / 2 + 2,
                              s->keys - 5, s->keys - 3, s->keys - 2,     s->keys - 1};
    const float specials[] = {NAN, (float)INFINITY, -(float)INFINITY};
    for (int i = 0; i < 8; ++i) {
        for (int k = 0; k < 3; ++k) {
            check_poison_at(context, s, places[i], specials[k], 0);
            check_poison_at(context, s, places[i], specials[k], 1);
        }
    }
}

static void a_number_that_is_not_finite_stays_with_the_rows_that_see_it(void **state) {
    (void)state;
    for_every_call(check_poison);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_masked_with_the_lowest_float_average),
        cmocka_unit_test(one_key_far_above_the_others_has_all_the_weight),
        cmocka_unit_test(a_number_that_is_not_finite_stays_with_the_rows_that_see_it),
    };
    return cmocka_run_group_tests_name("properties of extreme numbers", tests, NULL, NULL);
}
