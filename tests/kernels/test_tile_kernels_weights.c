/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tile_kernels_weights.c: weights of tiles one after the other, their sums and what earlier
 * sums are rescaled with, of every set of kernels, against exponentials in double.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_TILES = 4, MOST_KEYS = 20, MOST_SCORES = MOST_TILES * MOST_KEYS * ATTNI_PANEL_LANES };

/* 2 units in the last place are at most 4 roundoffs. */
#define EXP_ERROR (4 * FLOAT_UNIT)

/* Relative error of the weight of a score below max: of the difference, and of the exponential. */
static double weight_error(double score, double max) {
    return FLOAT_UNIT * fabs(score - max) + EXP_ERROR;
}

/* Scores of all tiles as (tile, key, lane), and the state in memory of its own. */
typedef struct weight_case {
    int64_t num_tiles;
    int64_t num_keys;
    float scores[MOST_SCORES];
    attni_panel_state *state;
} weight_case;

static void start_state(panel_setting *setting, weight_case *c) {
    c->state = (void *)place_own(setting, (int64_t)(sizeof *c->state / sizeof(float)));
    for (int lane = 0; lane < ATTNI_PANEL_LANES; ++lane) {
        c->state->max[lane] = -(float)INFINITY;
        c->state->sum[lane] = 0;
        c->state->rescale[lane] = 1;
    }
}

/* As the engine does: max becomes that of the tile too, the kernel does the rest. */
static void run_tile(const panel_setting *setting, weight_case *c, int64_t t, float *tile) {
    const attni_tile_kernels *tiles = setting->set->tiles;
    const size_t elements = (size_t)(c->num_keys * setting->width);
    memcpy(tile, c->scores + t * (int64_t)elements, elements * sizeof(float));
    memcpy(c->state->old_max, c->state->max, sizeof c->state->max);
    tiles->find_max(tile, setting->vectors, c->num_keys, c->state->max);
    tiles->exponentiate(tile, setting->vectors, c->num_keys, c->state);
    check_guards(setting, "exponentiate");
}

static float score_at(const panel_setting *setting, const weight_case *c, int64_t t, int64_t j,
                      int64_t lane) {
    return c->scores[(t * c->num_keys + j) * setting->width + lane];
}

static void check_weights(const panel_setting *setting, const weight_case *c, int64_t t,
                          const float *tile, int64_t lane) {
    const double max = (double)c->state->max[lane];
    for (int64_t j = 0; j < c->num_keys; ++j) {
        const double score = (double)score_at(setting, c, t, j, lane);
        const double exact = score == -(double)INFINITY ? 0 : exp(score - max);
        const double bound =
            score == -(double)INFINITY ? 0 : exact * weight_error(score, max) + (double)FLT_MIN;
        assert_within(setting, "weight", j, lane, tile[j * setting->width + lane], exact, bound);
    }
    const double old_max = (double)c->state->old_max[lane];
    const double rescale = old_max == -(double)INFINITY ? 0 : exp(old_max - max);
    const double bound = rescale == 0 ? 0 : rescale * weight_error(old_max, max) + (double)FLT_MIN;
    assert_within(setting, "rescale", t, lane, c->state->rescale[lane], rescale, bound);
}

/* The sum after tiles 0 to t; every rescaling on the way may be off like a weight. */
static void check_sum(const panel_setting *setting, const weight_case *c, int64_t t, int64_t lane) {
    const double max = (double)c->state->max[lane];
    double sum = 0;
    double bound = 0;
    for (int64_t tile = 0; tile <= t; ++tile) {
        for (int64_t j = 0; j < c->num_keys; ++j) {
            const double score = (double)score_at(setting, c, tile, j, lane);
            const double weight = score == -(double)INFINITY ? 0 : exp(score - max);
            if (weight > 0) {
                sum += weight;
                bound += weight * (FLOAT_UNIT * fabs(score - max) + EXP_ERROR * (double)(t + 2));
            }
        }
    }
    const int64_t terms = (t + 1) * (c->num_keys + 2);
    assert_within(setting, "sum", t, lane, c->state->sum[lane], sum,
                  bound + (sum == 0 ? 0 : sum_bound(terms, sum)));
}

/* Each lane has a size of its own, so that maxima move a little, a lot, or not at all; some scores
 * are hidden, and some lanes see nothing in a tile or at all. */
static void fill_scores(panel_setting *setting, weight_case *c) {
    static const double sizes[] = {0.01, 1, 10, 60, 300, 1e30};
    for (int64_t t = 0; t < c->num_tiles; ++t) {
        for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
            const int64_t lane = i % setting->width;
            const double size = sizes[lane % 6];
            const bool is_hidden = lane % 7 == 3 || (lane % 5 == 1 && t % 2 == 0) ||
                                   random_between(&setting->random, 0, 5) == 0;
            c->scores[t * c->num_keys * setting->width + i] =
                is_hidden ? -(float)INFINITY : random_float(setting, -size, size);
        }
    }
}

static void check_tiles(panel_setting *setting) {
    static weight_case c;
    for (c.num_keys = 0; c.num_keys <= MOST_KEYS; c.num_keys += c.num_keys < 10 ? 1 : 5) {
        c.num_tiles = MOST_TILES;
        fill_scores(setting, &c);
        begin_call(setting);
        float *tile = place_own(setting, c.num_keys * setting->width);
        start_state(setting, &c);
        for (int64_t t = 0; t < c.num_tiles; ++t) {
            run_tile(setting, &c, t, tile);
            for (int64_t lane = 0; lane < setting->width; ++lane) {
                check_weights(setting, &c, t, tile, lane);
                check_sum(setting, &c, t, lane);
            }
        }
    }
}

static void exponentiate_keeps_weights_and_sums_over_tiles(void **state) {
    (void)state;
    for_every_panel(check_tiles);
}

/* One key's score is special in every lane, in the first or in the second tile. */
static void check_special(panel_setting *setting, float special, int64_t where) {
    static weight_case c;
    c.num_tiles = 2;
    c.num_keys = 5;
    fill_scores(setting, &c);
    begin_call(setting);
    float *tile = place_own(setting, c.num_keys * setting->width);
    start_state(setting, &c);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        c.scores[(where * c.num_keys + 2) * setting->width + lane] = special;
    }
    for (int64_t t = 0; t < c.num_tiles; ++t) {
        run_tile(setting, &c, t, tile);
        for (int64_t lane = 0; lane < setting->width; ++lane) {
            if (t == where) {
                assert_equals(setting, "special weight", 2, lane, tile[2 * setting->width + lane],
                              NAN);
            }
            if (t >= where) {
                assert_equals(setting, "special sum", t, lane, c.state->sum[lane], NAN);
            }
        }
    }
}

static void check_specials(panel_setting *setting) {
    for (int64_t where = 0; where < 2; ++where) {
        check_special(setting, NAN, where);
        check_special(setting, (float)INFINITY, where);
    }
}

static void exponentiate_of_a_nan_or_infinite_score_makes_the_sum_nan(void **state) {
    (void)state;
    for_every_panel(check_specials);
}

/* Zeroes and the smallest numbers: the sum must tell a row of zeroes from one that has any weight.
 */
static void check_magnitudes(panel_setting *setting) {
    const float choices[] = {0.0F, -0.0F, 0x1p-149F, -0x1p-149F, -1.5F, 0.75F, 1e20F, NAN};
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        begin_call(setting);
        float *tile = place_own(setting, num_keys * setting->width);
        float *sum = place_own(setting, setting->width);
        double exact[ATTNI_PANEL_LANES] = {0};
        for (int64_t i = 0; i < num_keys * setting->width; ++i) {
            const int64_t kinds = 2 + i % setting->width % 7;
            tile[i] = choices[random_between(&setting->random, 0, kinds - 1)];
        }
        for (int64_t lane = 0; lane < setting->width; ++lane) {
            sum[lane] = lane % 4 == 0 ? 2.5F : 0;
            exact[lane] = (double)sum[lane];
            for (int64_t j = 0; j < num_keys; ++j) {
                exact[lane] += fabs((double)tile[j * setting->width + lane]);
            }
        }
        setting->set->tiles->add_magnitudes(tile, setting->vectors, num_keys, sum);
        check_guards(setting, "add_magnitudes");
        for (int64_t lane = 0; lane < setting->width; ++lane) {
            const double bound = (double)num_keys * FLOAT_UNIT * exact[lane];
            assert_within(setting, "sum", num_keys, lane, sum[lane], exact[lane], bound);
            assert_int_equal(sum[lane] == 0, exact[lane] == 0);
        }
    }
}

static void add_magnitudes_is_0_only_for_zeroes(void **state) {
    (void)state;
    for_every_panel(check_magnitudes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentiate_keeps_weights_and_sums_over_tiles),
        cmocka_unit_test(exponentiate_of_a_nan_or_infinite_score_makes_the_sum_nan),
        cmocka_unit_test(add_magnitudes_is_0_only_for_zeroes),
    };
    return cmocka_run_group_tests_name("tile_kernels_weights", tests, NULL, NULL);
}
