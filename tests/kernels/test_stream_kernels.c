/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_stream_kernels.c: the kernels for a few rows, of every set: scores, weights and weighted
 * values against plain loops in double, of keys and values of every storage type.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_KEYS = 40, MOST_COLS = 300, MOST_TILES = 3 };

/* A check for every number of rows; the setting's vectors do not matter here. */
static void for_every_number_of_rows(panel_setting *setting,
                                     void (*check)(panel_setting *setting, int32_t num_rows)) {
    for (int32_t rows = 1; setting->vectors == 1 && rows <= ATTNI_STREAM_ROWS; ++rows) {
        check(setting, rows);
    }
}

static void fill_stored(panel_setting *setting, void *first, int64_t rows, int64_t row_stride,
                        int64_t cols) {
    for (int64_t i = 0; i < rows * cols; ++i) {
        set_stored(setting, first, i / cols * row_stride + i % cols, random_float(setting, -2, 2));
    }
}

static void fill(panel_setting *setting, float *first, int64_t rows, int64_t row_stride,
                 int64_t cols) {
    for (int64_t i = 0; i < rows * cols; ++i) {
        set_float(first, i / cols * row_stride + i % cols, random_float(setting, -2, 2));
    }
}

/* A matrix of the engine's own, whose last row ends at its last column. */
static float *place_own_rows(panel_setting *setting, int64_t rows, int64_t row_stride,
                             int64_t cols) {
    return place_own(setting, cols > 0 ? (rows - 1) * row_stride + cols : 0);
}

/* The rows from `first` on, side by side or listed: both are the same. What follows in a list may be
 * asked for, and is no address. */
static attni_stream_rows given_rows(panel_setting *setting, const void *first, int64_t rows,
                                    int64_t stride) {
    static const void *list[MOST_KEYS + ATTNI_STREAM_AHEAD];
    const int64_t bytes = setting->set->storage[setting->storage]->element_bytes;
    memset(list, 0, sizeof list);
    for (int64_t row = 0; row < rows; ++row) {
        list[row] = (const char *)first + row * stride * bytes;
    }
    return random_between(&setting->random, 0, 1) == 0
               ? (attni_stream_rows){.first = first, .stride = stride}
               : (attni_stream_rows){.list = list};
}

/* ---- score ---- */

static void check_score_of(panel_setting *setting, int32_t num_rows, int64_t head_dim,
                           int64_t num_keys) {
    const int64_t strides[] = {head_dim, head_dim + 3, -head_dim - 1, 0};
    const int64_t key_stride = random_of(setting, strides, 4);
    const int64_t tile_stride = num_keys + 3;
    begin_call(setting);
    float *tile = place_own_rows(setting, num_rows, tile_stride, num_keys);
    float *queries = place_own_rows(setting, num_rows, head_dim, head_dim);
    void *keys = place_stored(setting, num_keys, key_stride, head_dim, 1);
    fill(setting, queries, num_rows, head_dim, head_dim);
    fill_stored(setting, keys, num_keys, key_stride, head_dim);
    if (num_keys * head_dim > 0 && random_between(&setting->random, 0, 3) == 0) {
        set_stored(setting, keys, random_between(&setting->random, 0, head_dim - 1), (double)NAN);
    }
    const attni_stream_rows rows = given_rows(setting, keys, num_keys, key_stride);
    setting->set->streams[setting->storage]->score(tile, tile_stride, num_rows, queries, head_dim,
                                                   &rows, num_keys);
    check_guards(setting, "score");
    for (int64_t i = 0; i < num_rows * num_keys; ++i) {
        const int64_t r = i / num_keys;
        const int64_t j = i % num_keys;
        double sum = 0;
        double magnitude = 0;
        for (int64_t e = 0; e < head_dim; ++e) {
            const double product = (double)get_float(queries, r * head_dim + e) *
                                   (double)get_stored(setting, keys, j * key_stride + e);
            sum += product;
            magnitude += fabs(product);
        }
        assert_within(setting, "score", r, j, get_float(tile, r * tile_stride + j), sum,
                      sum_bound(head_dim, magnitude));
    }
    for (int64_t r = 0; num_keys > 0 && r + 1 < num_rows; ++r) {
        assert_equals(setting, "behind a row", r, num_keys,
                      get_float(tile, r * tile_stride + num_keys), NAN);
    }
}

static void check_score_rows(panel_setting *setting, int32_t num_rows) {
    static const int64_t head_dims[] = {0, 1, 2, 3, 5, 7, 13, 16, 31, 64, 67, 300};
    for (int d = 0; d < 12; ++d) {
        for (int64_t num_keys = 0; num_keys <= MOST_KEYS; num_keys += d < 8 ? 1 : 7) {
            check_score_of(setting, num_rows, head_dims[d], num_keys);
        }
    }
}

static void check_score(panel_setting *setting) {
    for_every_number_of_rows(setting, check_score_rows);
}

static void every_storage_score(panel_setting *setting) {
    for_every_storage(setting, check_score);
}

static void score_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_panel(every_storage_score);
}

/* ---- exponentiate ---- */

/* All tiles' scores of a row, and its state after `t` of them. */
typedef struct row_history {
    int64_t count;
    float scores[MOST_TILES * MOST_KEYS];
} row_history;

static void fill_tile(panel_setting *setting, row_history *rows, int32_t num_rows, float *tile,
                      int64_t num_keys) {
    static const double sizes[] = {1, 60, 300, 1e30};
    for (int32_t r = 0; r < num_rows; ++r) {
        const bool is_hidden = random_between(&setting->random, 0, 3) == 0;
        for (int64_t j = 0; j < num_keys; ++j) {
            const bool is_out = is_hidden || random_between(&setting->random, 0, 5) == 0;
            const float x = is_out ? -(float)INFINITY : random_float(setting, -sizes[r], sizes[r]);
            set_float(tile, r * num_keys + j, x);
            rows[r].scores[rows[r].count++] = x;
        }
    }
}

/* Each of at most MOST_TILES rescalings, like each weight, is off by two units in the last place
 * and the roundings of the differences. */
static void check_history(const panel_setting *setting, const row_history *row, int32_t r,
                          const attni_panel_state *state) {
    float max = -(float)INFINITY;
    double sum = 0;
    double bound = 0;
    for (int64_t i = 0; i < row->count; ++i) {
        max = row->scores[i] > max ? row->scores[i] : max;
    }
    for (int64_t i = 0; i < row->count; ++i) {
        const double below = (double)row->scores[i] - (double)max;
        const double weight = row->scores[i] == -(float)INFINITY ? 0 : exp(below);
        if (weight > 0) {
            sum += weight;
            bound += weight * FLOAT_UNIT * (fabs(below) + 4 * (MOST_TILES + 1));
        }
    }
    assert_equals(setting, "max", r, row->count, state->max[r], max);
    assert_within(setting, "sum", r, row->count, state->sum[r], sum,
                  sum == 0 ? 0 : bound + sum_bound(row->count + 2 * MOST_TILES, sum));
}

static void check_weights(const panel_setting *setting, const row_history *row, int32_t r,
                          const float *tile, int64_t num_keys, const attni_panel_state *state) {
    for (int64_t j = 0; j < num_keys; ++j) {
        const float score = row->scores[row->count - num_keys + j];
        const double below = (double)score - (double)state->max[r];
        const double weight = score == -(float)INFINITY ? 0 : exp(below);
        const double bound =
            weight > 0 ? weight * FLOAT_UNIT * (fabs(below) + 4) + (double)FLT_MIN : 0;
        assert_within(setting, "weight", r, j, get_float(tile, r * num_keys + j), weight, bound);
    }
    const float old = state->old_max[r];
    const double below = (double)old - (double)state->max[r];
    const double rescale = old == -(float)INFINITY ? 0 : exp(below);
    assert_within(setting, "rescale", r, 0, state->rescale[r], rescale,
                  rescale > 0 ? rescale * FLOAT_UNIT * (fabs(below) + 4) + (double)FLT_MIN : 0);
}

static void check_exponentiate_rows(panel_setting *setting, int32_t num_rows) {
    static row_history rows[ATTNI_STREAM_ROWS];
    for (int64_t num_keys = 0; num_keys <= MOST_KEYS; ++num_keys) {
        begin_call(setting);
        float *tile = place_own_rows(setting, num_rows, num_keys, num_keys);
        attni_panel_state *state =
            (void *)place_own(setting, (int64_t)(sizeof *state / sizeof(float)));
        for (int32_t r = 0; r < num_rows; ++r) {
            rows[r].count = 0;
            state->max[r] = -(float)INFINITY;
            state->sum[r] = 0;
        }
        for (int t = 0; t < MOST_TILES; ++t) {
            memcpy(state->old_max, state->max, sizeof state->max);
            fill_tile(setting, rows, num_rows, tile, num_keys);
            setting->set->streams[setting->storage]->exponentiate(tile, num_keys, num_rows,
                                                                  num_keys, state);
            check_guards(setting, "exponentiate");
            for (int32_t r = 0; r < num_rows; ++r) {
                check_history(setting, &rows[r], r, state);
                check_weights(setting, &rows[r], r, tile, num_keys, state);
            }
        }
    }
}

static void check_exponentiate(panel_setting *setting) {
    for_every_number_of_rows(setting, check_exponentiate_rows);
}

static void every_storage_exponentiate(panel_setting *setting) {
    for_every_storage(setting, check_exponentiate);
}

static void exponentiate_keeps_maxima_and_sums_over_tiles(void **state) {
    (void)state;
    for_every_panel(every_storage_exponentiate);
}

/* A NaN or infinite score among others makes the row's sum NaN, and stays in it. */
static void check_special(panel_setting *setting, float special, int64_t num_keys) {
    begin_call(setting);
    float *tile = place_own_rows(setting, 1, num_keys, num_keys);
    attni_panel_state *state = (void *)place_own(setting, (int64_t)(sizeof *state / sizeof(float)));
    *state = (attni_panel_state){.max = {-(float)INFINITY}};
    for (int t = 0; t < 2; ++t) {
        memcpy(state->old_max, state->max, sizeof state->max);
        fill(setting, tile, 1, num_keys, num_keys);
        if (t == 0) {
            set_float(tile, random_between(&setting->random, 0, num_keys - 1), special);
        }
        setting->set->streams[setting->storage]->exponentiate(tile, num_keys, 1, num_keys, state);
        assert_equals(setting, "sum", t, num_keys, state->sum[0], NAN);
    }
}

static void check_specials(panel_setting *setting) {
    for (int64_t num_keys = 1; num_keys <= MOST_KEYS; ++num_keys) {
        check_special(setting, NAN, num_keys);
        check_special(setting, (float)INFINITY, num_keys);
    }
}

static void every_storage_specials(panel_setting *setting) {
    for_every_storage(setting, check_specials);
}

static void exponentiate_of_a_nan_or_infinite_score_makes_the_sum_nan(void **state) {
    (void)state;
    for_every_panel(every_storage_specials);
}

/* ---- weigh ---- */

static void check_weigh_of(panel_setting *setting, int32_t num_rows, int64_t value_dim) {
    static float before[ATTNI_STREAM_ROWS * MOST_COLS];
    const int64_t num_keys = random_between(&setting->random, 0, MOST_KEYS);
    const int64_t strides[] = {value_dim, value_dim + 3, -value_dim - 1, 0};
    const int64_t key_stride = random_of(setting, strides, 4);
    const int64_t tile_stride = num_keys + 2;
    const int64_t sum_stride = value_dim + 5;
    begin_call(setting);
    float *sums = place_own_rows(setting, num_rows, sum_stride, value_dim);
    float *tile = place_own_rows(setting, num_rows, tile_stride, num_keys);
    void *values = place_stored(setting, num_keys, key_stride, value_dim, 1);
    fill(setting, sums, num_rows, sum_stride, value_dim);
    fill(setting, tile, num_rows, tile_stride, num_keys);
    fill_stored(setting, values, num_keys, key_stride, value_dim);
    for (int64_t i = 0; i < num_rows * value_dim; ++i) {
        before[i] = get_float(sums, i / value_dim * sum_stride + i % value_dim);
    }
    float factors[ATTNI_STREAM_ROWS] = {0};
    for (int32_t r = 0; r < num_rows; ++r) {
        factors[r] = random_float(setting, 0, 1);
    }
    const attni_stream_rows rows = given_rows(setting, values, num_keys, key_stride);
    setting->set->streams[setting->storage]->weigh(sums, sum_stride, factors, tile, tile_stride,
                                                   num_rows, &rows, num_keys, value_dim);
    check_guards(setting, "weigh");
    for (int64_t i = 0; i < num_rows * value_dim; ++i) {
        const int64_t r = i / value_dim;
        const int64_t c = i % value_dim;
        double sum = (double)factors[r] * (double)before[i];
        double magnitude = fabs(sum);
        for (int64_t j = 0; j < num_keys; ++j) {
            const double term = (double)get_float(tile, r * tile_stride + j) *
                                (double)get_stored(setting, values, j * key_stride + c);
            sum += term;
            magnitude += fabs(term);
        }
        assert_within(setting, "weighted values", r, c, get_float(sums, r * sum_stride + c), sum,
                      sum_bound(num_keys + 1, magnitude));
    }
    for (int64_t r = 0; r + 1 < num_rows; ++r) {
        assert_equals(setting, "behind a row", r, value_dim,
                      get_float(sums, r * sum_stride + value_dim), NAN);
    }
}

static void check_weigh_rows(panel_setting *setting, int32_t num_rows) {
    for (int64_t value_dim = 1; value_dim < MOST_COLS; value_dim += value_dim < 70 ? 1 : 23) {
        check_weigh_of(setting, num_rows, value_dim);
        check_weigh_of(setting, num_rows, value_dim);
    }
}

static void check_weigh(panel_setting *setting) {
    for_every_number_of_rows(setting, check_weigh_rows);
}

static void every_storage_weigh(panel_setting *setting) {
    for_every_storage(setting, check_weigh);
}

static void weigh_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_panel(every_storage_weigh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(score_of_any_size_is_within_the_bound_of_a_sum),
        cmocka_unit_test(exponentiate_keeps_maxima_and_sums_over_tiles),
        cmocka_unit_test(exponentiate_of_a_nan_or_infinite_score_makes_the_sum_nan),
        cmocka_unit_test(weigh_of_any_size_is_within_the_bound_of_a_sum),
    };
    return cmocka_run_group_tests_name("stream_kernels", tests, NULL, NULL);
}
