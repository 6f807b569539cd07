/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_lane_kernels_masks.c: masks onto a tile of scores, one for each row or one for all, of every
 * set of kernels, against plain loops.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_KEYS = 40, MOST_SCORES = MOST_KEYS * ATTNI_PANEL_LANES, FLAG_GAP = 5 };

static const int64_t strides[] = {1, 1, 2, -1, 0, -3};
enum { NUM_STRIDES = 6 };

/* A tile and what it must become. */
typedef struct mask_case {
    int64_t num_keys;
    float excluded;
    float *tile;
    float before[MOST_SCORES];
    float expected[MOST_SCORES];
} mask_case;

typedef void (*mask_check)(panel_setting *setting, mask_case *c);

static const float special_scores[] = {NAN, (float)INFINITY, -(float)INFINITY, FLT_MAX, -FLT_MAX};

static void check_mask(panel_setting *setting, mask_case *c, mask_check check, const char *kernel) {
    begin_call(setting);
    c->tile = place_own(setting, c->num_keys * setting->width);
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const bool is_special = random_between(&setting->random, 0, 7) == 0;
        c->before[i] = is_special ? special_scores[random_between(&setting->random, 0, 4)]
                                  : random_float(setting, -5, 5);
        c->tile[i] = c->before[i];
    }
    check(setting, c);
    check_guards(setting, kernel);
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        assert_equals(setting, kernel, i / setting->width, i % setting->width, c->tile[i],
                      c->expected[i]);
    }
}

static void check_masks(panel_setting *setting, mask_check check, const char *kernel) {
    static mask_case c;
    for (c.num_keys = 0; c.num_keys <= MOST_KEYS; ++c.num_keys) {
        c.excluded = -(float)INFINITY;
        check_mask(setting, &c, check, kernel);
        c.excluded = 0;
        check_mask(setting, &c, check, kernel);
    }
}

static bool random_bool(panel_setting *setting) {
    return random_between(&setting->random, 0, 1) == 1;
}

/* ---- biases ---- */

static float random_bias(panel_setting *setting) {
    static const float special_biases[] = {
        -(float)INFINITY, -(float)INFINITY, -(float)INFINITY, NAN,         (float)INFINITY,
        FLT_MAX,          -FLT_MAX,         FLT_MAX / 2,      -FLT_MAX / 2};
    const int64_t kind = random_between(&setting->random, 0, 15);
    return kind < 9 ? special_biases[kind] : random_float(setting, -3, 3);
}

/* Of two finite numbers at most the largest there is, of either sign. */
static float finite_sum(float a, float b) {
    const float sum = a + b;
    return isfinite(a) && isfinite(b) && isinf(sum) ? copysignf(FLT_MAX, sum) : sum;
}

static float biased(const mask_case *c, float before, float bias, bool is_added) {
    return bias == -(float)INFINITY ? c->excluded : is_added ? finite_sum(before, bias) : before;
}

static void bias_rows(panel_setting *setting, mask_case *c) {
    const bool is_added = random_bool(setting);
    float *rows[ATTNI_PANEL_LANES];
    place_rows(setting, setting->width, c->num_keys, 1, true, rows);
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        set_float(rows[i % setting->width], i / setting->width, random_bias(setting));
    }
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const float bias = get_float(rows[i % setting->width], i / setting->width);
        c->expected[i] = biased(c, c->before[i], bias, is_added);
    }
    setting->set->lanes->add_bias(c->tile, setting->vectors, c->num_keys,
                                  (const float *const *)rows, is_added, c->excluded);
}

static void check_add_bias(panel_setting *setting) {
    check_masks(setting, bias_rows, "add_bias");
}

static void add_bias_adds_or_only_excludes(void **state) {
    (void)state;
    for_every_panel(check_add_bias);
}

static void bias_keys(panel_setting *setting, mask_case *c) {
    const bool is_added = random_bool(setting);
    const int64_t stride = random_of(setting, strides, NUM_STRIDES);
    float *bias = place_matrix(setting, c->num_keys, stride, 1, 1);
    for (int64_t j = 0; j < c->num_keys; ++j) {
        set_float(bias, j * stride, random_bias(setting));
    }
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const float of_key = get_float(bias, i / setting->width * stride);
        c->expected[i] = biased(c, c->before[i], of_key, is_added);
    }
    setting->set->lanes->add_key_bias(c->tile, setting->vectors, c->num_keys, bias, stride,
                                      is_added, c->excluded);
}

static void check_add_key_bias(panel_setting *setting) {
    check_masks(setting, bias_keys, "add_key_bias");
}

static void add_key_bias_adds_or_only_excludes(void **state) {
    (void)state;
    for_every_panel(check_add_key_bias);
}

/* ---- flags ---- */

static unsigned char random_flag(panel_setting *setting) {
    static const unsigned char flags[] = {0, 0, 0, 1, 0xFF, 0x80};
    return flags[random_between(&setting->random, 0, 5)];
}

/* Rows of flags at some distance from one another, the last of them at the end of its memory. */
static void hide_in_rows(panel_setting *setting, mask_case *c) {
    const bool hidden_if = random_bool(setting);
    const int64_t pitch = c->num_keys + FLAG_GAP;
    const unsigned char *rows[ATTNI_PANEL_LANES];
    unsigned char *flags = place_bytes(setting, setting->width * pitch - FLAG_GAP);
    for (int64_t i = 0; i < setting->width * pitch - FLAG_GAP; ++i) {
        flags[i] = random_flag(setting);
    }
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const int64_t row = (lane + c->num_keys) % setting->width;
        rows[lane] = flags + row * pitch;
    }
    rows[0] = rows[setting->width - 1];
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const unsigned char flag = rows[i % setting->width][i / setting->width];
        c->expected[i] = (flag != 0) == hidden_if ? c->excluded : c->before[i];
    }
    setting->set->lanes->hide(c->tile, setting->vectors, c->num_keys, rows, hidden_if, c->excluded);
}

static void check_hide(panel_setting *setting) {
    check_masks(setting, hide_in_rows, "hide");
}

static void hide_replaces_what_the_flags_of_rows_say(void **state) {
    (void)state;
    for_every_panel(check_hide);
}

static void hide_by_keys(panel_setting *setting, mask_case *c) {
    const bool hidden_if = random_bool(setting);
    const int64_t stride = random_of(setting, strides, NUM_STRIDES);
    const int64_t reach = c->num_keys > 0 ? (c->num_keys - 1) * stride : 0;
    const int64_t span = c->num_keys > 0 ? (reach < 0 ? -reach : reach) + 1 : 0;
    unsigned char *flags = place_bytes(setting, span) - (reach < 0 ? reach : 0);
    for (int64_t j = 0; j < c->num_keys; ++j) {
        flags[j * stride] = random_flag(setting);
    }
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const unsigned char flag = flags[i / setting->width * stride];
        c->expected[i] = (flag != 0) == hidden_if ? c->excluded : c->before[i];
    }
    setting->set->lanes->hide_keys(c->tile, setting->vectors, c->num_keys, flags, stride, hidden_if,
                                   c->excluded);
}

static void check_hide_keys(panel_setting *setting) {
    check_masks(setting, hide_by_keys, "hide_keys");
}

static void hide_keys_replaces_what_the_flags_of_keys_say(void **state) {
    (void)state;
    for_every_panel(check_hide_keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_bias_adds_or_only_excludes),
        cmocka_unit_test(add_key_bias_adds_or_only_excludes),
        cmocka_unit_test(hide_replaces_what_the_flags_of_rows_say),
        cmocka_unit_test(hide_keys_replaces_what_the_flags_of_keys_say),
    };
    return cmocka_run_group_tests_name("lane_kernels_masks", tests, NULL, NULL);
}
