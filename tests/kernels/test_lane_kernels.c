/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_lane_kernels.c: rows into lanes and back, and positions onto scores, of every set of
 * kernels, against plain loops.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"
#include "support/oracle_dropout.h"

enum { MOST_KEYS = 40, MOST_SCORES = MOST_KEYS * ATTNI_PANEL_LANES };

/* ---- positions ---- */

/* A tile of random scores, and a copy of them. */
static float *fill_tile(panel_setting *setting, int64_t num_keys, float *before) {
    float *tile = place_own(setting, num_keys * setting->width);
    for (int64_t i = 0; i < num_keys * setting->width; ++i) {
        before[i] =
            random_between(&setting->random, 0, 20) == 0 ? NAN : random_float(setting, -5, 5);
        tile[i] = before[i];
    }
    return tile;
}

static void check_clip_of(panel_setting *setting, int64_t num_keys, float excluded) {
    static float before[MOST_SCORES];
    begin_call(setting);
    float *tile = fill_tile(setting, num_keys, before);
    int32_t *begin = (void *)place_own(setting, setting->width);
    int32_t *end = (void *)place_own(setting, setting->width);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        begin[lane] = (int32_t)random_between(&setting->random, 0, num_keys);
        end[lane] = (int32_t)random_between(&setting->random, 0, num_keys);
    }
    setting->set->lanes->clip(tile, setting->vectors, num_keys, begin, end, excluded);
    check_guards(setting, "clip");
    for (int64_t i = 0; i < num_keys * setting->width; ++i) {
        const int64_t j = i / setting->width;
        const int64_t lane = i % setting->width;
        const bool is_seen = begin[lane] <= j && j < end[lane];
        assert_equals(setting, "clipped", j, lane, tile[i], is_seen ? before[i] : excluded);
    }
}

static void check_clip(panel_setting *setting) {
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        check_clip_of(setting, num_keys, -(float)INFINITY);
        check_clip_of(setting, num_keys, 0);
    }
}

static void clip_excludes_what_lies_outside(void **state) {
    (void)state;
    for_every_panel(check_clip);
}

/* The distance is rounded to float, then the product and the difference, the two perhaps at once.
 */
static void check_alibi(panel_setting *setting) {
    static float before[MOST_SCORES];
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        begin_call(setting);
        float *tile = fill_tile(setting, num_keys, before);
        float *slopes = place_own(setting, setting->width);
        float *distances = place_own(setting, setting->width);
        for (int64_t lane = 0; lane < setting->width; ++lane) {
            const int64_t positions[] = {0, 17, -3, 100000, INT64_C(1) << 40};
            slopes[lane] = random_float(setting, -0.3, 0.7);
            distances[lane] = (float)random_of(setting, positions, 5);
        }
        const int64_t first = num_keys % 3 * 100;
        setting->set->lanes->alibi(tile, setting->vectors, first, num_keys, slopes, distances);
        check_guards(setting, "alibi");
        for (int64_t i = 0; i < num_keys * setting->width; ++i) {
            const int64_t lane = i % setting->width;
            const double key = (double)(first + i / setting->width);
            const double bias = (double)slopes[lane] * fabs((double)distances[lane] - key);
            assert_within(setting, "score", i / setting->width, lane, tile[i],
                          (double)before[i] - bias,
                          3 * FLOAT_UNIT * (fabs((double)before[i]) + fabs(bias)));
        }
    }
}

static void alibi_subtracts_slope_times_distance(void **state) {
    (void)state;
    for_every_panel(check_alibi);
}

/* ---- dropout ---- */

enum { DROP_KEYS = 65 };

/* The place of a lane's row: rows and heads differ from lane to lane. */
static attn_dropout place_of(const attn_dropout *dropout, int64_t lane) {
    attn_dropout place = *dropout;
    place.row += 3 * lane;
    place.head += lane % 5;
    return place;
}

static void check_drop_of(panel_setting *setting, int64_t num_keys, const attn_dropout *dropout) {
    static float before[DROP_KEYS * ATTNI_PANEL_LANES];
    const uint64_t batch = (uint64_t)dropout->batch;
    const attni_dropout_stream stream = {
        .key = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)},
        .threshold = (uint32_t)(dropout->probability * 0x1p32),
        .batch = (uint32_t)(batch >> 16),
        .scale = 1 / (1 - dropout->probability),
    };
    begin_call(setting);
    float *tile = fill_tile(setting, num_keys, before);
    uint32_t *numbers = (void *)place_own(setting, setting->width);
    uint32_t *heads = (void *)place_own(setting, setting->width);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const attn_dropout place = place_of(dropout, lane);
        numbers[lane] = (uint32_t)place.row;
        heads[lane] = (uint32_t)place.head | (uint32_t)(batch << 16);
    }
    setting->set->lanes->drop(tile, setting->vectors, dropout->column, num_keys, numbers, heads,
                              &stream);
    check_guards(setting, "drop");
    for (int64_t i = 0; i < num_keys * setting->width; ++i) {
        const int64_t j = i / setting->width;
        const int64_t lane = i % setting->width;
        const attn_dropout place = place_of(dropout, lane);
        const bool is_kept = oracle_dropout_factor(&place, 0, 0, 0, j) != 0;
        assert_equals(setting, "kept", j, lane, tile[i],
                      before[i] * (is_kept ? (float)stream.scale : 0));
    }
}

static void check_drop(panel_setting *setting) {
    static const int64_t sizes[] = {0, 1, 3, 4, 5, 13, 63, 64, DROP_KEYS};
    static const int64_t columns[] = {0, 1, 2, 3, 4, 5, 6, 7, (INT64_C(1) << 34) - DROP_KEYS};
    attn_dropout dropout = {.struct_size = sizeof dropout,
                            .probability = 0.375,
                            .seed = 0xfedcba9876543210U,
                            .batch = INT64_C(0x765432109876),
                            .head = 0xfed8,
                            .row = INT64_C(0xffffff00)};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; ++i) {
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; ++k) {
            dropout.column = columns[i];
            check_drop_of(setting, sizes[k], &dropout);
        }
    }
}

static void drop_keeps_what_the_definition_says(void **state) {
    (void)state;
    for_every_panel(check_drop);
}

/* ---- store_weights ---- */

typedef struct store_case {
    int64_t num_rows, num_keys;
    bool is_added, repeats;
} store_case;

/* What row `lane` must hold at j, and how far off it may be: every lane that writes to the same row
 * adds to it. */
static double expected_weight(const panel_setting *setting, const store_case *c, float *const *rows,
                              const float *tile, const float *factor, int64_t lane, int64_t j,
                              float before, double *bound) {
    double sum = c->is_added ? (double)before : 0;
    double magnitude = fabs(sum);
    for (int64_t other = 0; other < c->num_rows; ++other) {
        const double weight = (double)factor[other] * (double)tile[j * setting->width + other];
        if (rows[other] == rows[lane]) {
            sum += weight;
            magnitude += fabs(weight);
        }
    }
    *bound = c->is_added ? sum_bound(setting->width, magnitude) : FLOAT_UNIT * magnitude;
    return sum;
}

static void check_store(panel_setting *setting, store_case c) {
    static float before[MOST_KEYS];
    float *rows[ATTNI_PANEL_LANES];
    begin_call(setting);
    float *tile = place_own(setting, c.num_keys * setting->width);
    float *factor = place_own(setting, setting->width);
    place_rows(setting, c.num_rows, c.num_keys, 1, c.repeats, rows);
    for (int64_t i = 0; i < c.num_keys * setting->width; ++i) {
        tile[i] = random_float(setting, 0, 1);
    }
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        factor[lane] = random_float(setting, 0, 1);
    }
    for (int64_t j = 0; c.is_added && j < c.num_keys; ++j) {
        before[j] = random_float(setting, 0, 2);
        for (int64_t lane = 0; lane < c.num_rows; ++lane) {
            set_float(rows[lane], j, before[j]);
        }
    }
    setting->set->lanes->store_weights(rows, tile, setting->vectors, (int32_t)c.num_rows,
                                       c.num_keys, factor, c.is_added);
    check_guards(setting, "store_weights");
    for (int64_t lane = 0; lane < c.num_rows; ++lane) {
        for (int64_t j = 0; j < c.num_keys; ++j) {
            double bound;
            const double expected =
                expected_weight(setting, &c, rows, tile, factor, lane, j, before[j], &bound);
            assert_within(setting, "stored", lane, j, get_float(rows[lane], j), expected, bound);
        }
    }
    check_row_gaps(setting, c.num_rows, rows, c.num_keys);
}

static void check_stores(panel_setting *setting) {
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        const int64_t num_rows = random_between(&setting->random, 1, setting->width);
        check_store(setting, (store_case){setting->width, num_keys, false, false});
        check_store(setting, (store_case){num_rows, num_keys, false, false});
        check_store(setting, (store_case){num_rows, num_keys, true, false});
        check_store(setting, (store_case){setting->width, num_keys, true, true});
    }
}

static void store_weights_stores_or_adds_rows_that_may_be_the_same(void **state) {
    (void)state;
    for_every_panel(check_stores);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_excludes_what_lies_outside),
        cmocka_unit_test(alibi_subtracts_slope_times_distance),
        cmocka_unit_test(drop_keeps_what_the_definition_says),
        cmocka_unit_test(store_weights_stores_or_adds_rows_that_may_be_the_same),
    };
    return cmocka_run_group_tests_name("lane_kernels", tests, NULL, NULL);
}
