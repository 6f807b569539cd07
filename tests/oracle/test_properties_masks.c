/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_masks.c: several ways to say the same: positions (causal, window, lengths, ALiBi)
 * or a dense mask; one mask kind or another.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

static const sdpa_sizes float_sizes = {ATTN_DTYPE_FLOAT32, 2, 3, 3, 21, 34, 11, 9};
static const sdpa_sizes double_sizes = {ATTN_DTYPE_FLOAT64, 2, 4, 2, 34, 21, 8, 8};

enum { NO_WINDOW = -2 };

typedef struct positions {
    const char *name;
    int causal;
    int64_t left, right; /* NO_WINDOW: the option is not set */
    int64_t offset;      /* of batch 0; one less for every further batch */
    int64_t hidden_keys; /* key_lengths is S less these, and one less for every further batch */
    double slope;        /* of head 0; half of it for every further head */
} positions;

static const positions position_cases[] = {
    {"causal", 1, NO_WINDOW, NO_WINDOW, 0, 0, 0},
    {"causal with offset", 1, NO_WINDOW, NO_WINDOW, 5, 0, 0},
    {"causal with rows before all keys", 1, NO_WINDOW, NO_WINDOW, -4, 0, 0},
    {"window", 0, 3, 2, 0, 0, 0},
    {"left window with offset", 0, 4, -1, 2, 0, 0},
    {"right window beyond the keys", 0, -1, 0, 40, 0, 0},
    {"window of the diagonal", 0, 0, 0, 1, 0, 0},
    {"key lengths", 0, NO_WINDOW, NO_WINDOW, 0, 7, 0},
    {"ALiBi", 0, NO_WINDOW, NO_WINDOW, 3, 0, 0.25},
    {"ALiBi before the keys", 0, NO_WINDOW, NO_WINDOW, -9, 0, -0.125},
    {"all of them", 1, 6, 4, 2, 5, 0.5},
};

/* What the positions add to the score of (b, h, i, j): -inf where they hide the key. */
static double position_bias(const positions *p, const sdpa_sizes *sizes, const int64_t *index) {
    const int64_t b = index[0], h = index[1], j = index[3], position = index[2] + p->offset - b;
    int is_hidden = (p->causal && j > position) || j >= sizes->keys - p->hidden_keys - b;
    if (p->left != NO_WINDOW) {
        is_hidden |= p->left >= 0 && j < position - p->left;
        is_hidden |= p->right >= 0 && j > position + p->right;
    }
    return is_hidden ? -INFINITY
                     : -p->slope / (double)(INT64_C(1) << h) * fabs((double)(position - j));
}

static void set_positions(const positions *p, sdpa_setup *setup) {
    attn_tensor *offset =
        pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &setup->sizes.batch, LAYOUT_CONTIGUOUS);
    attn_tensor *lengths =
        pool_input(&setup->pool, ATTN_DTYPE_INT64, 1, &setup->sizes.batch, LAYOUT_CONTIGUOUS);
    attn_tensor *slopes =
        pool_input(&setup->pool, setup->sizes.dtype, 1, &setup->sizes.heads, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < setup->sizes.batch; ++b) {
        oracle_store_integer(offset, &b, p->offset - b);
        oracle_store_integer(lengths, &b, setup->sizes.keys - p->hidden_keys - b);
    }
    for (int64_t h = 0; h < setup->sizes.heads; ++h) {
        oracle_store(slopes, &h, p->slope / (double)(INT64_C(1) << h));
    }
    setup->params.is_causal = p->causal;
    setup->params.query_offset = offset;
    setup->params.key_lengths = lengths;
    setup->params.alibi_slopes = p->slope != 0 ? slopes : NULL;
    if (p->left != NO_WINDOW) {
        setup->params.set |= ATTN_SDPA_SET_WINDOW;
        setup->params.window_left = p->left;
        setup->params.window_right = p->right;
    }
}

/* The positions as a mask of a kind over all axes; a bool kind cannot express slopes. */
static void set_dense_mask(const positions *p, int32_t kind, sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, s->heads, s->rows, s->keys};
    const int32_t dtype = kind == ATTN_MASK_ADDITIVE ? s->dtype : ATTN_DTYPE_BOOL;
    attn_tensor *mask = pool_input(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    int64_t index[4] = {0};
    do {
        const double bias = position_bias(p, s, index);
        const int is_hidden = bias == -INFINITY;
        oracle_store(mask, index,
                     kind == ATTN_MASK_ADDITIVE ? bias
                                                : is_hidden == (kind == ATTN_MASK_BOOL_EXCLUDE));
    } while (oracle_next_index(4, shape, index));
    setup->params.mask = mask;
    setup->params.mask_kind = kind;
}

/* The same data with the positions as options and as a mask of each kind: one result. */
static void check_positions(const sdpa_sizes *sizes, const positions *p) {
    sdpa_setup with_options, with_mask;
    sdpa_setup_create(&with_options, sizes, 7);
    set_positions(p, &with_options);
    sdpa_setup_run(NULL, &with_options);
    oracle_result expected = sdpa_setup_expect(&with_options);
    assert_sdpa_equals(&with_options, &expected);
    for (int32_t kind = ATTN_MASK_ADDITIVE; kind <= ATTN_MASK_BOOL_EXCLUDE; ++kind) {
        if (kind != ATTN_MASK_ADDITIVE && p->slope != 0) {
            continue;
        }
        sdpa_setup_create(&with_mask, sizes, 7);
        set_dense_mask(p, kind, &with_mask);
        sdpa_setup_run(NULL, &with_mask);
        assert_sdpa_equals(&with_mask, &expected);
        sdpa_setup_destroy(&with_mask);
    }
    oracle_result_destroy(&expected);
    sdpa_setup_destroy(&with_options);
}

static void sdpa_positions_equal_the_same_dense_mask(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof position_cases / sizeof *position_cases; ++i) {
        print_message("positions: %s\n", position_cases[i].name);
        check_positions(&float_sizes, &position_cases[i]);
        check_positions(&double_sizes, &position_cases[i]);
    }
}

/* Additive 0 or -inf, true where a key takes part, true where it does not: not one bit of
 * difference. */
static void sdpa_mask_kinds_that_say_the_same_have_the_same_bits(void **state) {
    (void)state;
    const int32_t normalizers[] = {ATTN_NORMALIZER_SOFTMAX, ATTN_NORMALIZER_SIGMOID,
                                   ATTN_NORMALIZER_LINEAR};
    attn_context *context = native_context(1);
    for (int n = 0; n < 3; ++n) {
        sdpa_setup setups[3];
        for (int k = 0; k < 3; ++k) {
            sdpa_setup_create(&setups[k], &float_sizes, 11);
            set_dense_mask(&position_cases[1], ATTN_MASK_ADDITIVE + k, &setups[k]);
            setups[k].params.normalizer = normalizers[n];
            setups[k].params.lse = n == 0 ? setups[k].lse : NULL;
            sdpa_setup_run(context, &setups[k]);
            assert_same_bits("output", setups[k].output, setups[0].output);
            assert_same_bits("weights", setups[k].weights, setups[0].weights);
            assert_same_bits("lse", setups[k].lse, setups[0].lse);
        }
        for (int k = 0; k < 3; ++k) {
            sdpa_setup_destroy(&setups[k]);
        }
    }
    attn_context_destroy(context);
}

/* A bias (H, L, S), random with keys hidden by -inf among it. */
static attn_tensor *random_bias(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->heads, s->rows, s->keys};
    attn_tensor *bias = pool_input(&setup->pool, s->dtype, 3, shape, LAYOUT_CONTIGUOUS);
    int64_t index[3] = {0};
    do {
        const int is_hidden = random_between(&setup->random, 0, 3) == 0;
        oracle_store(bias, index, is_hidden ? -INFINITY : random_real(&setup->random, -2, 2));
    } while (oracle_next_index(3, shape, index));
    return bias;
}

/* A bias is the additive mask of a call that has no other, and beside a bool mask the additive mask
 * that is -inf where the bool one hides. */
static void sdpa_bias_is_an_additive_mask(void **state) {
    (void)state;
    const sdpa_sizes *all_sizes[] = {&float_sizes, &double_sizes};
    attn_context *context = native_context(1);
    for (int way = 0; way < 4; ++way) {
        sdpa_setup with_bias, with_mask;
        sdpa_setup_create(&with_bias, all_sizes[way % 2], 41);
        sdpa_setup_create(&with_mask, all_sizes[way % 2], 41);
        const sdpa_sizes *s = &with_bias.sizes;
        with_bias.params.bias = random_bias(&with_bias);
        with_mask.params.mask = random_bias(&with_mask);
        with_mask.params.mask_kind = ATTN_MASK_ADDITIVE;
        if (way >= 2) {
            const int64_t shape[] = {s->rows, s->keys};
            attn_tensor *shown =
                pool_input(&with_bias.pool, ATTN_DTYPE_BOOL, 2, shape, LAYOUT_CONTIGUOUS);
            random_fill_bool(shown, &with_bias.random, 0.3);
            with_bias.params.mask = shown;
            with_bias.params.mask_kind = ATTN_MASK_BOOL_INCLUDE;
            int64_t index[3] = {0};
            do {
                if (oracle_element(shown, index + 1) == 0) {
                    oracle_store(with_mask.params.mask, index, -INFINITY);
                }
            } while (oracle_next_index(3, with_mask.params.mask->shape, index));
        }
        sdpa_setup_run(context, &with_bias);
        sdpa_setup_run(context, &with_mask);
        assert_same_bits("output", with_bias.output, with_mask.output);
        assert_same_bits("weights", with_bias.weights, with_mask.weights);
        assert_same_bits("lse", with_bias.lse, with_mask.lse);
        sdpa_setup_destroy(&with_bias);
        sdpa_setup_destroy(&with_mask);
    }
    attn_context_destroy(context);
}

/* Offset by itself, a window without limits and lengths of S hide nothing and change nothing. */
static void sdpa_options_that_hide_nothing_change_no_bit(void **state) {
    (void)state;
    const positions nothing = {"nothing", 0, -1, -1, 12, 0, 0};
    attn_context *context = native_context(1);
    sdpa_setup plain, with_options;
    sdpa_sizes sizes = float_sizes;
    sizes.batch = 1;
    sdpa_setup_create(&plain, &sizes, 13);
    sdpa_setup_create(&with_options, &sizes, 13);
    set_positions(&nothing, &with_options);
    sdpa_setup_run(context, &plain);
    sdpa_setup_run(context, &with_options);
    assert_same_bits("output", with_options.output, plain.output);
    assert_same_bits("weights", with_options.weights, plain.weights);
    assert_same_bits("lse", with_options.lse, plain.lse);
    sdpa_setup_destroy(&plain);
    sdpa_setup_destroy(&with_options);
    attn_context_destroy(context);
}

/* A constant added to every score of a row moves its lse and nothing else. */
static void sdpa_constant_mask_moves_only_the_lse(void **state) {
    (void)state;
    const double constants[] = {3, -40, 1000};
    for (int c = 0; c < 3; ++c) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &float_sizes, 17);
        oracle_result expected = sdpa_setup_expect(&setup);
        for (int64_t i = 0; i < expected.lse.count; ++i) {
            expected.lse.value[i] += constants[c];
        }
        attn_tensor *mask =
            pool_input(&setup.pool, ATTN_DTYPE_FLOAT32, 1, (const int64_t[]){1}, LAYOUT_CONTIGUOUS);
        oracle_store(mask, (const int64_t[]){0}, constants[c]);
        setup.params.mask = mask;
        setup.params.mask_kind = ATTN_MASK_ADDITIVE;
        sdpa_setup_run(NULL, &setup);
        assert_sdpa_equals(&setup, &expected);
        oracle_result_destroy(&expected);
        sdpa_setup_destroy(&setup);
    }
}

/* Finite values never hide: next to -1e30 every score is rounded away, and all keys weigh the same.
 */
static void sdpa_row_of_huge_negative_mask_is_the_mean_of_values(void **state) {
    (void)state;
    const double values[] = {-1e30, -FLT_MAX};
    for (int m = 0; m < 2; ++m) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &float_sizes, 19);
        attn_tensor *mask =
            pool_input(&setup.pool, ATTN_DTYPE_FLOAT32, 1, &float_sizes.keys, LAYOUT_CONTIGUOUS);
        random_fill(mask, &setup.random, values[m], values[m], 0);
        setup.params.mask = mask;
        setup.params.mask_kind = ATTN_MASK_ADDITIVE;
        sdpa_setup_run(NULL, &setup);

        setup.params.set |= ATTN_SDPA_SET_SCALE;
        setup.params.scale = 0;
        setup.params.mask = NULL;
        setup.params.mask_kind = ATTN_MASK_NONE;
        oracle_result mean = sdpa_setup_expect(&setup);
        assert_close("output", setup.output, &mean.output);
        assert_close("weights", setup.weights, &mean.weights);
        oracle_result_destroy(&mean);
        sdpa_setup_destroy(&setup);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdpa_positions_equal_the_same_dense_mask),
        cmocka_unit_test(sdpa_mask_kinds_that_say_the_same_have_the_same_bits),
        cmocka_unit_test(sdpa_bias_is_an_additive_mask),
        cmocka_unit_test(sdpa_options_that_hide_nothing_change_no_bit),
        cmocka_unit_test(sdpa_constant_mask_moves_only_the_lse),
        cmocka_unit_test(sdpa_row_of_huge_negative_mask_is_the_mean_of_values),
    };
    return cmocka_run_group_tests_name("properties of masks", tests, NULL, NULL);
}
