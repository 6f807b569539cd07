/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_pair_kernels_scores.c: queries packed in pairs of features, bit by bit, and scores of pairs
 * and their largest against sums in double, by every set of kernels that multiplies pairs.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "pair_setting.h"

enum { MOST_KEYS = 40 };

static int64_t pairs_of(int64_t elements) {
    return (elements + 1) / 2;
}

/* ---- pack_rows ---- */

/* Rows of any bits at some distance from one another; some lanes share a row. */
static void place_lanes(panel_setting *setting, int64_t cols, int64_t col_stride,
                        const void *rows[ATTNI_PANEL_LANES]) {
    const int64_t pitch = cols * (col_stride < 0 ? -col_stride : col_stride) + 3;
    char *first = place_stored(setting, setting->width, pitch, cols, col_stride);
    for (int64_t row = 0; row < setting->width; ++row) {
        for (int64_t e = 0; e < cols; ++e) {
            set_half(first, row * pitch + e * col_stride, (uint16_t)random_word(setting));
        }
    }
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const int64_t row = random_between(&setting->random, 0, setting->width - 1);
        rows[lane] = first + row * pitch * (int64_t)sizeof(uint16_t);
    }
}

static void check_packed_rows(panel_setting *setting, int64_t head_dim, int64_t stride) {
    const void *rows[ATTNI_PANEL_LANES] = {0};
    begin_call(setting);
    uint32_t *panel = place_own_pairs(setting, pairs_of(head_dim) * setting->width);
    place_lanes(setting, head_dim, stride, rows);
    setting->set->pairs->pack_rows(panel, setting->vectors, rows, stride, head_dim);
    check_guards(setting, "pack_rows");
    for (int64_t i = 0; i < pairs_of(head_dim) * setting->width; ++i) {
        const int64_t lane = i % setting->width;
        const int64_t e = i / setting->width * 2;
        const uint16_t second =
            e + 1 < head_dim ? get_half(rows[lane], (e + 1) * stride) : (uint16_t)0;
        assert_same_pair(setting, "query", e / 2, lane, panel[i],
                         pair_of_halves(get_half(rows[lane], e * stride), second));
    }
}

static void check_pack_rows(panel_setting *setting) {
    static const int64_t longer[] = {95, 96, 97, 127, 128, 131, 300};
    for (int64_t head_dim = 0; head_dim <= 70; ++head_dim) {
        check_packed_rows(setting, head_dim, 1);
        check_packed_rows(setting, head_dim, 2 - head_dim % 3 * 2); /* 2, 0, -2 */
    }
    for (size_t i = 0; i < sizeof longer / sizeof longer[0]; ++i) {
        check_packed_rows(setting, longer[i], 1);
    }
}

static void pack_rows_moves_any_bits_and_fills_an_odd_pair_with_0(void **state) {
    (void)state;
    for_every_pair_panel(check_pack_rows);
}

/* ---- score ---- */

static const int64_t head_dims[] = {0, 1, 2, 3, 5, 7, 13, 16, 31, 64, 67, 300};
enum { NUM_HEAD_DIMS = sizeof head_dims / sizeof head_dims[0] };

typedef struct score_case {
    int64_t head_dim;
    int64_t num_keys;
    int64_t key_stride;
    bool is_whole; /* scores need no rounding */
    float scale;
    float *tile;
    uint32_t *panel;
    void *keys; /* of an even number of elements, the last of which may be 0 */
    float *max;
    float max_before[ATTNI_PANEL_LANES];
} score_case;

/* Maxima that the scores exceed, that exceed the scores, and of rows that have seen nothing. */
static void fill_max(panel_setting *setting, score_case *c) {
    const float choices[] = {-(float)INFINITY, 0, -1e9F, 1e9F};
    for (int32_t lane = 0; lane < setting->width; ++lane) {
        c->max_before[lane] = choices[random_between(&setting->random, 0, 3)];
        c->max[lane] = c->max_before[lane];
    }
}

/* A pair of features; what lies past head_dim is 0. */
static uint32_t random_features(panel_setting *setting, const score_case *c, int64_t p) {
    const uint32_t pair = random_pair(setting, c->is_whole);
    return 2 * p + 1 < c->head_dim ? pair : pair & 0xffffU;
}

static void fill_keys(panel_setting *setting, score_case *c) {
    const int64_t num_pairs = pairs_of(c->head_dim);
    c->keys = place_stored(setting, c->num_keys, c->key_stride, 2 * num_pairs, 1);
    for (int64_t i = 0; i < c->num_keys * num_pairs; ++i) {
        const int64_t p = i % num_pairs;
        const uint32_t pair = random_features(setting, c, p);
        const int64_t at = i / num_pairs * c->key_stride + 2 * p;
        set_half(c->keys, at, half_of_pair(pair, 0));
        set_half(c->keys, at + 1, half_of_pair(pair, 1));
    }
    if (c->num_keys * c->head_dim > 0 && random_between(&setting->random, 0, 3) == 0) {
        const int64_t j = random_between(&setting->random, 0, c->num_keys - 1);
        const double specials[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
        set_half(c->keys, j * c->key_stride + random_between(&setting->random, 0, c->head_dim - 1),
                 half_of(specials[random_between(&setting->random, 0, 2)]));
    }
}

static void fill_case(panel_setting *setting, score_case *c) {
    const int64_t num_pairs = pairs_of(c->head_dim);
    const float scales[] = {1, 0.25F, -0.5F, 0, 0.37F, -0.6F, 1e-3F};
    begin_call(setting);
    c->scale = scales[random_between(&setting->random, 0, c->is_whole ? 3 : 6)];
    c->tile = place_own(setting, c->num_keys * setting->width);
    c->panel = place_own_pairs(setting, num_pairs * setting->width);
    c->max = place_own(setting, setting->width);
    for (int64_t i = 0; i < num_pairs * setting->width; ++i) {
        c->panel[i] = random_features(setting, c, i / setting->width);
    }
    fill_keys(setting, c);
    fill_max(setting, c);
}

static void check_score(const panel_setting *setting, const score_case *c, int64_t j,
                        int64_t lane) {
    double sum = 0;
    double magnitude = 0;
    for (int64_t e = 0; e < c->head_dim; ++e) {
        const uint32_t key = get_half(c->keys, j * c->key_stride + e);
        const uint32_t query = c->panel[e / 2 * setting->width + lane];
        const double term = number_of_pair(key, 0) * number_of_pair(query, e % 2);
        sum += term;
        magnitude += fabs(term);
    }
    const double scale = (double)c->scale;
    const double bound =
        c->is_whole ? 0 : pair_sum_bound(pairs_of(c->head_dim), fabs(scale) * magnitude);
    assert_within(setting, "score", j, lane, c->tile[j * setting->width + lane], scale * sum,
                  bound);
}

/* NaN aside. */
static float largest(const panel_setting *setting, const score_case *c, int64_t lane) {
    float max = c->max_before[lane];
    for (int64_t j = 0; j < c->num_keys; ++j) {
        const float x = c->tile[j * setting->width + lane];
        max = x > max ? x : max;
    }
    return max;
}

static void call_score(panel_setting *setting, score_case *c, attni_ahead *ahead) {
    setting->set->pairs->score(c->tile, setting->vectors, c->panel, pairs_of(c->head_dim), c->scale,
                               c->keys, c->key_stride, c->num_keys, c->max, ahead);
    check_guards(setting, "score");
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        for (int64_t j = 0; j < c->num_keys; ++j) {
            check_score(setting, c, j, lane);
        }
        assert_equals(setting, "max", c->num_keys, lane, c->max[lane], largest(setting, c, lane));
    }
}

/* Long sums with a few numbers of keys only: they add nothing to short ones but time. */
static void check_scores(panel_setting *setting) {
    for (int d = 0; d < NUM_HEAD_DIMS; ++d) {
        const int64_t step = head_dims[d] > 16 ? 13 : 1;
        for (int64_t num_keys = d % 2; num_keys <= MOST_KEYS; num_keys += step) {
            const int64_t length = 2 * pairs_of(head_dims[d]);
            const int64_t strides[] = {length, length + 3, -length - 1, 0};
            score_case c = {.head_dim = head_dims[d],
                            .num_keys = num_keys,
                            .key_stride = random_of(setting, strides, 4),
                            .is_whole = num_keys % 3 == 0};
            fill_case(setting, &c);
            call_score(setting, &c, &(attni_ahead){.rows_at_once = 2});
        }
    }
}

static void score_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_pair_panel(check_scores);
}

/* Rows to ask for may lie anywhere: nothing is read from them. */
static void check_ahead(panel_setting *setting) {
    score_case c = {.head_dim = 8, .num_keys = MOST_KEYS, .key_stride = 8};
    const char *row = (const char *)setting->blocks[0].pages.bytes - 4096;
    for (int64_t num_rows = 0; num_rows < 30; num_rows += 7) {
        attni_ahead also = {row, 64, 64, num_rows, 1, NULL};
        attni_ahead ahead = {row, -256, 200, num_rows, 3, &also};
        fill_case(setting, &c);
        call_score(setting, &c, &ahead);
        assert_true(ahead.num_rows >= 0 && ahead.num_rows <= num_rows);
        assert_ptr_equal(ahead.row, row - 256 * (num_rows - ahead.num_rows));
        assert_true(also.num_rows >= ahead.num_rows && also.num_rows <= num_rows);
        assert_ptr_equal(also.row, row + 64 * (num_rows - also.num_rows));
    }
}

static void rows_ahead_are_asked_for_but_not_read(void **state) {
    (void)state;
    for_every_pair_panel(check_ahead);
}

/* One feature of a key is subnormal, and meets a query's so large that their product would show. */
static void check_subnormal(panel_setting *setting) {
    begin_call(setting);
    float *tile = place_own(setting, setting->width);
    uint32_t *panel = place_own_pairs(setting, setting->width);
    float *max = place_own(setting, setting->width);
    const uint32_t key = pair_of_halves(half_of(0x1p-130), half_of(1));
    for (int32_t lane = 0; lane < setting->width; ++lane) {
        panel[lane] = pair_of_halves(half_of(0x1p120), half_of(1));
        max[lane] = -(float)INFINITY;
    }
    setting->set->pairs->score(tile, setting->vectors, panel, 1, 1, &key, 2, 1, max, NULL);
    check_guards(setting, "score");
    for (int32_t lane = 0; lane < setting->width; ++lane) {
        const bool counts = !drops_subnormals(setting) && tile[lane] != 1;
        assert_equals(setting, "score", 0, lane, tile[lane], counts ? 1 + 0x1p-10F : 1);
    }
}

static void a_subnormal_feature_counts_as_0(void **state) {
    (void)state;
    for_every_pair_panel(check_subnormal);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pack_rows_moves_any_bits_and_fills_an_odd_pair_with_0),
        cmocka_unit_test(score_of_any_size_is_within_the_bound_of_a_sum),
        cmocka_unit_test(rows_ahead_are_asked_for_but_not_read),
        cmocka_unit_test(a_subnormal_feature_counts_as_0),
    };
    return cmocka_run_group_tests_name("pair_kernels_scores", tests, NULL, NULL);
}
