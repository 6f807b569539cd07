/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tile_kernels_scores.c: scores of a tile and their largest, of every set of kernels, against
 * sums in double.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_KEYS = 40 };

static const int64_t head_dims[] = {0, 1, 2, 3, 5, 7, 13, 16, 31, 64, 67, 300};
enum { NUM_HEAD_DIMS = sizeof head_dims / sizeof head_dims[0] };

typedef struct score_case {
    int64_t head_dim;
    int64_t num_keys;
    int64_t key_stride;
    float *tile;
    float *panel;
    float *keys;
    float *max;
    float max_before[ATTNI_PANEL_LANES];
} score_case;

/* Maxima that the scores exceed, that exceed the scores, and of rows that have seen nothing. */
static void fill_max(panel_setting *setting, float *max, float *before) {
    const float choices[] = {-(float)INFINITY, 0, -1e9F, 1e9F};
    for (int32_t lane = 0; lane < setting->width; ++lane) {
        before[lane] = choices[random_between(&setting->random, 0, 3)];
        max[lane] = before[lane];
    }
}

static void fill_case(panel_setting *setting, score_case *c) {
    begin_call(setting);
    c->tile = place_own(setting, c->num_keys * setting->width);
    c->panel = place_own(setting, c->head_dim * setting->width);
    c->max = place_own(setting, setting->width);
    c->keys = place_matrix(setting, c->num_keys, c->key_stride, c->head_dim, 1);
    for (int64_t i = 0; i < c->head_dim * setting->width; ++i) {
        c->panel[i] = random_float(setting, -2, 2);
    }
    for (int64_t j = 0; j < c->num_keys; ++j) {
        for (int64_t e = 0; e < c->head_dim; ++e) {
            set_float(c->keys, j * c->key_stride + e, random_float(setting, -2, 2));
        }
    }
    if (c->num_keys * c->head_dim > 0 && random_between(&setting->random, 0, 3) == 0) {
        const int64_t j = random_between(&setting->random, 0, c->num_keys - 1);
        const float specials[] = {NAN, (float)INFINITY, -(float)INFINITY};
        set_float(c->keys, j * c->key_stride + random_between(&setting->random, 0, c->head_dim - 1),
                  specials[random_between(&setting->random, 0, 2)]);
    }
    fill_max(setting, c->max, c->max_before);
}

static void check_score(const panel_setting *setting, const score_case *c, int64_t j,
                        int64_t lane) {
    double sum = 0;
    double magnitude = 0;
    for (int64_t e = 0; e < c->head_dim; ++e) {
        const double key = (double)get_float(c->keys, j * c->key_stride + e);
        const double query = (double)c->panel[e * setting->width + lane];
        sum += key * query;
        magnitude += fabs(key * query);
    }
    assert_within(setting, "score", j, lane, c->tile[j * setting->width + lane], sum,
                  sum_bound(c->head_dim, magnitude));
}

/* The largest of `before` and a lane's elements, NaN aside. */
static float largest(const panel_setting *setting, const float *tile, int64_t num_keys,
                     int64_t lane, float before) {
    float max = before;
    for (int64_t j = 0; j < num_keys; ++j) {
        const float x = tile[j * setting->width + lane];
        max = x > max ? x : max;
    }
    return max;
}

static void run_case(panel_setting *setting, score_case *c) {
    attni_ahead nothing = {.rows_at_once = 2};
    fill_case(setting, c);
    setting->set->tiles->score(c->tile, setting->vectors, c->panel, c->head_dim, c->keys,
                               c->key_stride, c->num_keys, c->max, &nothing);
    check_guards(setting, "score");
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        for (int64_t j = 0; j < c->num_keys; ++j) {
            check_score(setting, c, j, lane);
        }
        assert_equals(setting, "max", c->num_keys, lane, c->max[lane],
                      largest(setting, c->tile, c->num_keys, lane, c->max_before[lane]));
    }
}

/* Long sums with a few numbers of keys only: they add nothing to short ones but time. */
static void check_scores(panel_setting *setting) {
    for (int d = 0; d < NUM_HEAD_DIMS; ++d) {
        const int64_t step = head_dims[d] > 16 ? 13 : 1;
        for (int64_t num_keys = d % 2; num_keys <= MOST_KEYS; num_keys += step) {
            const int64_t head_dim = head_dims[d];
            const int64_t strides[] = {head_dim, head_dim + 3, -head_dim - 1, 0};
            score_case c = {.head_dim = head_dim,
                            .num_keys = num_keys,
                            .key_stride = random_of(setting, strides, 4)};
            run_case(setting, &c);
        }
    }
}

static void score_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_panel(check_scores);
}

/* Rows to ask for may lie anywhere: nothing is read from them. */
static void check_ahead(panel_setting *setting) {
    score_case c = {.head_dim = 8, .num_keys = MOST_KEYS, .key_stride = 8};
    const char *row = (const char *)setting->blocks[0].pages.bytes - 4096;
    for (int64_t num_rows = 0; num_rows < 30; num_rows += 7) {
        attni_ahead also = {row, 64, 64, num_rows, 1, NULL};
        attni_ahead ahead = {row, -256, 200, num_rows, 3, &also};
        fill_case(setting, &c);
        setting->set->tiles->score(c.tile, setting->vectors, c.panel, c.head_dim, c.keys,
                                   c.key_stride, c.num_keys, c.max, &ahead);
        check_guards(setting, "score");
        assert_true(ahead.num_rows >= 0 && ahead.num_rows <= num_rows);
        assert_ptr_equal(ahead.row, row - 256 * (num_rows - ahead.num_rows));
        assert_true(also.num_rows >= ahead.num_rows && also.num_rows <= num_rows);
        assert_ptr_equal(also.row, row + 64 * (num_rows - also.num_rows));
        check_score(setting, &c, MOST_KEYS - 1, setting->width - 1);
    }
}

static void rows_ahead_are_asked_for_but_not_read(void **state) {
    (void)state;
    for_every_panel(check_ahead);
}

static void check_find_max(panel_setting *setting) {
    const float specials[] = {NAN, (float)INFINITY, -(float)INFINITY, -0.0F, 0.0F};
    float before[ATTNI_PANEL_LANES];
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        begin_call(setting);
        float *tile = place_own(setting, num_keys * setting->width);
        float *max = place_own(setting, setting->width);
        for (int64_t i = 0; i < num_keys * setting->width; ++i) {
            tile[i] = random_between(&setting->random, 0, 9) == 0
                          ? specials[random_between(&setting->random, 0, 4)]
                          : random_float(setting, -1e3, 1e3);
        }
        fill_max(setting, max, before);
        setting->set->tiles->find_max(tile, setting->vectors, num_keys, max);
        check_guards(setting, "find_max");
        for (int64_t lane = 0; lane < setting->width; ++lane) {
            assert_equals(setting, "max", num_keys, lane, max[lane],
                          largest(setting, tile, num_keys, lane, before[lane]));
        }
    }
}

static void find_max_ignores_nan(void **state) {
    (void)state;
    for_every_panel(check_find_max);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(score_of_any_size_is_within_the_bound_of_a_sum),
        cmocka_unit_test(rows_ahead_are_asked_for_but_not_read),
        cmocka_unit_test(find_max_ignores_nan),
    };
    return cmocka_run_group_tests_name("tile_kernels_scores", tests, NULL, NULL);
}
