/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_pair_kernels_values.c: weights rounded to pairs of keys, values packed in such pairs, bit by
 * bit, and values weighed in pairs against sums in double, by every set of kernels that multiplies
 * pairs.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "pair_setting.h"

enum { MOST_COLS = 70, MOST_KEYS = 23, MOST_PAIRS = 23 };

static int64_t pairs_of(int64_t num_keys, int32_t parity) {
    return (num_keys + parity + 1) / 2;
}

static int64_t chunks_of(int64_t columns, int64_t value_dim) {
    return (value_dim + columns - 1) / columns;
}

/* ---- pair_weights ---- */

/* Weights, ties between two bfloat16 and what lies beside them, and any other number. */
static float random_weight(panel_setting *setting) {
    const int64_t kind = random_between(&setting->random, 0, 3);
    const uint32_t word = random_word(setting);
    const uint32_t beside_tie =
        ((word & 0xffff0000U) | 0x7fffU) + (uint32_t)random_between(&setting->random, 0, 2);
    const uint32_t bits = kind == 1 ? beside_tie : word;
    float weight;
    memcpy(&weight, &bits, sizeof weight);
    return kind <= 1 ? weight : random_float(setting, 0, 1);
}

/* Half of the pair of `key`; what is subnormal may be 0 already. */
static void check_weight(const panel_setting *setting, int64_t key, int64_t lane, float weight,
                         double actual) {
    const double nearest = number_of_pair(half_of((double)weight), 0);
    const bool may_be_0 = fabsf(weight) < FLT_MIN && actual == 0;
    assert_equals(setting, "weight", key, lane, (float)actual, may_be_0 ? 0 : (float)nearest);
}

static void check_pairs_of_weights(panel_setting *setting, int64_t num_keys, int32_t parity) {
    begin_call(setting);
    float *tile = place_own(setting, num_keys * setting->width);
    uint32_t *pairs = place_own_pairs(setting, pairs_of(num_keys, parity) * setting->width);
    for (int64_t i = 0; i < num_keys * setting->width; ++i) {
        tile[i] = random_weight(setting);
    }
    setting->set->pairs->pair_weights(pairs, tile, setting->vectors, num_keys, parity);
    check_guards(setting, "pair_weights");
    for (int64_t i = 0; i < 2 * pairs_of(num_keys, parity) * setting->width; ++i) {
        const int64_t lane = i / 2 % setting->width;
        const int64_t p = i / 2 / setting->width;
        const int64_t key = 2 * p - parity + i % 2;
        const bool is_key = key >= 0 && key < num_keys;
        check_weight(setting, key, lane, is_key ? tile[key * setting->width + lane] : 0,
                     number_of_pair(pairs[i / 2], i % 2));
    }
}

static void check_pair_weights(panel_setting *setting) {
    for (int64_t num_keys = 0; num_keys <= 4 * MOST_KEYS; ++num_keys) {
        check_pairs_of_weights(setting, num_keys, 0);
        check_pairs_of_weights(setting, num_keys, 1);
    }
}

static void pair_weights_rounds_to_the_nearest_even(void **state) {
    (void)state;
    for_every_pair_panel(check_pair_weights);
}

/* ---- pack_values ---- */

typedef struct pack_case {
    int64_t chunk_stride, columns;
    int64_t key_stride, col_stride;
    int64_t num_keys, value_dim;
    int32_t parity;
    void *values;
    uint32_t *packed;
} pack_case;

static uint16_t value_at(const pack_case *c, int64_t key, int64_t col) {
    const bool is_value = key >= 0 && key < c->num_keys && col < c->value_dim;
    return is_value ? get_half(c->values, key * c->key_stride + col * c->col_stride) : 0;
}

static void check_packed(const panel_setting *setting, const pack_case *c) {
    const int64_t num_pairs = pairs_of(c->num_keys, c->parity);
    for (int64_t i = 0; i < chunks_of(c->columns, c->value_dim) * c->chunk_stride; ++i) {
        const int64_t p = i % c->chunk_stride / c->columns;
        const int64_t col = i / c->chunk_stride * c->columns + i % c->chunk_stride % c->columns;
        const int64_t key = 2 * p - c->parity;
        const uint32_t expected =
            p < num_pairs ? pair_of_halves(value_at(c, key, col), value_at(c, key + 1, col))
                          : UINT32_MAX; /* between chunks nothing is written */
        assert_same_pair(setting, "packed value", p, col, c->packed[i], expected);
    }
}

static void fill_pack_case(panel_setting *setting, pack_case *c) {
    const int64_t gap = random_between(&setting->random, 0, 2);
    begin_call(setting);
    c->chunk_stride = (pairs_of(c->num_keys, c->parity) + gap) * c->columns;
    c->packed = place_own_pairs(setting, chunks_of(c->columns, c->value_dim) * c->chunk_stride);
    c->values = place_stored(setting, c->num_keys, c->key_stride, c->value_dim, c->col_stride);
    for (int64_t i = 0; i < c->num_keys * c->value_dim; ++i) {
        set_half(c->values, i / c->value_dim * c->key_stride + i % c->value_dim * c->col_stride,
                 (uint16_t)random_word(setting));
    }
}

static void check_pack(panel_setting *setting) {
    const int64_t lanes = setting->set->tiles->lanes;
    for (int64_t i = 0; setting->vectors == 1 && i <= 4 * MOST_COLS + 3; ++i) {
        const int64_t value_dim = i / 4;
        const int64_t columns[] = {setting->set->tiles->value_columns, lanes, 3 * lanes};
        const int64_t col_strides[] = {1, 1, 2, -1, 0};
        const int64_t key_strides[] = {value_dim, 2 * value_dim + 3, -2 * value_dim - 1, 0, 1};
        pack_case c = {.columns = random_of(setting, columns, 3),
                       .key_stride = random_of(setting, key_strides, 5),
                       .col_stride = random_of(setting, col_strides, 5),
                       .num_keys = random_between(&setting->random, 0, MOST_KEYS),
                       .value_dim = value_dim,
                       .parity = (int32_t)(i % 2)};
        fill_pack_case(setting, &c);
        setting->set->pairs->pack_values(c.packed, c.chunk_stride, c.columns, c.values,
                                         c.key_stride, c.col_stride, c.num_keys, c.parity,
                                         c.value_dim);
        check_guards(setting, "pack_values");
        check_packed(setting, &c);
    }
}

static void pack_values_moves_any_bits_and_fills_with_0(void **state) {
    (void)state;
    for_every_pair_panel(check_pack);
}

/* ---- weigh_values ---- */

typedef struct value_case {
    attni_value_tile tile;
    int64_t num_pairs;
    bool is_whole;  /* results need no rounding */
    bool is_packed; /* chunk by chunk, else pair by pair */
    uint32_t *weights;
    uint32_t *values;
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    float rescale[ATTNI_PANEL_LANES];
    float factor[ATTNI_PANEL_LANES];
    float *outputs[ATTNI_PANEL_LANES];
    float old_sums[ATTNI_PANEL_LANES][2 * MOST_COLS];
} value_case;

/* Bounds as causality, windows and lengths make them, in part empty or turned round. */
static void fill_bounds(panel_setting *setting, value_case *c) {
    const int64_t kind = random_between(&setting->random, 0, 4);
    const int64_t first = random_between(&setting->random, -setting->width, c->num_pairs);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const int64_t past = first + lane;
        const int64_t begin = kind == 0 || kind == 1 ? 0 : past - (kind == 4 ? 0 : 5);
        const int64_t end = kind == 0 || kind == 2 ? c->num_pairs : kind == 4 ? past - 4 : past;
        c->begin[lane] = (int32_t)(begin < 0 ? 0 : begin > c->num_pairs ? c->num_pairs : begin);
        c->end[lane] = (int32_t)(end < 0 ? 0 : end > c->num_pairs ? c->num_pairs : end);
    }
}

static bool is_seen(const value_case *c, int64_t lane, int64_t p) {
    return c->begin[lane] <= p && p < c->end[lane];
}

/* Of the first and last pair of a lane, one key may be hidden. */
static void fill_weights(panel_setting *setting, value_case *c) {
    c->weights = place_own_pairs(setting, c->num_pairs * setting->width);
    for (int64_t i = 0; i < c->num_pairs * setting->width; ++i) {
        const int64_t lane = i % setting->width;
        const int64_t p = i / setting->width;
        uint32_t pair = is_seen(c, lane, p) ? random_pair(setting, c->is_whole) : 0;
        pair &= p == c->begin[lane] && lane % 2 == 0 ? 0xffff0000U : UINT32_MAX;
        pair &= p == c->end[lane] - 1 && lane % 3 == 0 ? 0xffffU : UINT32_MAX;
        c->weights[i] = pair;
    }
}

static uint32_t *value_pair_at(const panel_setting *setting, const value_case *c, int64_t p,
                               int64_t col) {
    const int64_t columns = setting->set->tiles->value_columns;
    return c->values + col / columns * c->tile.chunk_stride + p * c->tile.key_stride +
           col % columns;
}

/* Pairs that no lane needs, and columns past value_dim, are NaN. */
static void fill_values(panel_setting *setting, value_case *c) {
    const int64_t columns = setting->set->tiles->value_columns;
    const int64_t num_chunks = chunks_of(columns, c->tile.value_dim);
    c->tile.key_stride = c->is_packed ? columns : num_chunks * columns;
    c->tile.chunk_stride = c->is_packed ? c->num_pairs * columns : columns;
    c->values = place_own_pairs(setting, num_chunks * c->num_pairs * columns);
    for (int64_t p = c->begin[0]; p < c->end[setting->width - 1]; ++p) {
        for (int64_t col = 0; col < c->tile.value_dim; ++col) {
            *value_pair_at(setting, c, p, col) = random_pair(setting, c->is_whole);
        }
    }
}

/* A factor of 1 or of less; powers of 2 if results are to need no rounding. */
static float random_factor(panel_setting *setting, const value_case *c) {
    const float powers[] = {1, 0.5F, 0.25F, 0};
    const int64_t choice = random_between(&setting->random, 0, 3);
    return c->is_whole || choice == 0 ? powers[choice] : random_float(setting, 0, 1);
}

static void fill_sums(panel_setting *setting, value_case *c) {
    const int64_t columns = setting->set->tiles->value_columns;
    c->tile.sum_stride = chunks_of(columns, c->tile.value_dim) * columns;
    c->tile.sums = place_own(setting, setting->width * c->tile.sum_stride);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        c->rescale[lane] = random_factor(setting, c);
        c->factor[lane] = random_factor(setting, c);
        for (int64_t col = 0; c->tile.is_added && col < c->tile.sum_stride; ++col) {
            const float old = random_float(setting, -3, 3);
            c->old_sums[lane][col] = c->is_whole ? rintf(old) : old;
            c->tile.sums[lane * c->tile.sum_stride + col] = c->old_sums[lane][col];
        }
    }
}

/* Everything but the results' place. */
static void fill_case(panel_setting *setting, value_case *c) {
    begin_call(setting);
    fill_bounds(setting, c);
    fill_weights(setting, c);
    fill_values(setting, c);
    fill_sums(setting, c);
    c->tile.weights = (const float *)(const void *)c->weights;
    c->tile.values = (const float *)(const void *)c->values;
    c->tile.vectors = setting->vectors;
    c->tile.num_rows = setting->width;
    c->tile.begin = c->begin;
    c->tile.end = c->end;
    c->tile.rescale = c->rescale;
    c->tile.factor = NULL;
    c->tile.outputs = NULL;
}

static void check_element(const panel_setting *setting, const value_case *c, int64_t lane,
                          int64_t col, float actual, double factor) {
    double sum = c->tile.is_added ? (double)c->rescale[lane] * (double)c->old_sums[lane][col] : 0;
    double magnitude = fabs(sum);
    for (int64_t p = c->begin[lane]; p < c->end[lane]; ++p) {
        const uint32_t weight = c->weights[p * setting->width + lane];
        const uint32_t value = *value_pair_at(setting, c, p, col);
        for (int64_t which = 0; which < 2; ++which) {
            const double term = number_of_pair(weight, which) * number_of_pair(value, which);
            sum += term;
            magnitude += fabs(term);
        }
    }
    const bool is_exact = c->is_whole || magnitude == 0;
    assert_within(setting, "weighted values", lane, col, actual, factor * sum,
                  is_exact ? 0 : pair_sum_bound(c->num_pairs, factor * magnitude));
}

static void check_row(const panel_setting *setting, const value_case *c, const float *row,
                      int64_t lane, double factor) {
    for (int64_t col = 0; col < c->tile.value_dim; ++col) {
        check_element(setting, c, lane, col, get_float(row, col), factor);
    }
}

static void weigh(panel_setting *setting, value_case *c) {
    setting->set->pairs->weigh_values(&c->tile);
    check_guards(setting, "weigh_values");
}

static void check_sums(panel_setting *setting, value_case *c) {
    fill_case(setting, c);
    weigh(setting, c);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        check_row(setting, c, c->tile.sums + lane * c->tile.sum_stride, lane, 1);
    }
}

/* Fewer rows than lanes; the outputs end where memory does, or are the sums themselves. */
static void check_outputs(panel_setting *setting, value_case *c, bool is_in_place) {
    fill_case(setting, c);
    c->tile.num_rows = (int32_t)random_between(&setting->random, 1, setting->width);
    place_rows(setting, c->tile.num_rows, c->tile.value_dim, 1, false, c->outputs);
    for (int64_t lane = 0; is_in_place && lane < c->tile.num_rows; ++lane) {
        c->outputs[lane] = c->tile.sums + lane * c->tile.sum_stride;
    }
    c->tile.outputs = c->outputs;
    c->tile.factor = c->factor;
    weigh(setting, c);
    for (int64_t lane = 0; lane < c->tile.num_rows; ++lane) {
        check_row(setting, c, c->outputs[lane], lane, (double)c->factor[lane]);
    }
    if (!is_in_place) {
        check_row_gaps(setting, c->tile.num_rows, c->outputs, c->tile.value_dim);
    }
}

/* Around whole vectors and chunks of any width, and some primes. */
static const int64_t value_dims[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,        11,
                                     12, 13, 15, 16, 17, 19, 23, 24, 25,       31,
                                     32, 33, 47, 48, 49, 63, 64, 65, MOST_COLS};
enum { NUM_VALUE_DIMS = sizeof value_dims / sizeof value_dims[0] };

static void check_weigh(panel_setting *setting) {
    static value_case c;
    for (int i = 0; i < 8 * NUM_VALUE_DIMS; ++i) {
        const int kind = i % 8;
        c.tile.value_dim = value_dims[i / 8];
        c.tile.is_added = kind % 4 < 2;
        c.is_packed = kind % 2 == 0;
        c.is_whole = i % 3 == 0;
        c.num_pairs = random_between(&setting->random, 0, MOST_PAIRS);
        if (kind < 4) {
            check_sums(setting, &c);
        }
        check_outputs(setting, &c, kind >= 6);
    }
}

static void weigh_values_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_pair_panel(check_weigh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pair_weights_rounds_to_the_nearest_even),
        cmocka_unit_test(pack_values_moves_any_bits_and_fills_with_0),
        cmocka_unit_test(weigh_values_of_any_size_is_within_the_bound_of_a_sum),
    };
    return cmocka_run_group_tests_name("pair_kernels_values", tests, NULL, NULL);
}
