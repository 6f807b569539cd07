/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mask_kernels.c: what rows of a mask show and change, of every set of kernels, against plain
 * loops. Masks have structure: each row shows a stretch of keys, with or without holes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_KEYS = 300, ROUNDS = 400, NUM_STRIDES = 5 };

static const int64_t strides[NUM_STRIDES] = {1, 1, 2, -1, -3};

/* What a mask does at (row, key). */
typedef struct mask_plan {
    int64_t num_rows;
    int64_t num_keys;
    bool is_shown[ATTNI_PANEL_LANES][MOST_KEYS];
    bool is_changed[ATTNI_PANEL_LANES][MOST_KEYS]; /* where it is hidden, too */
} mask_plan;

static bool one_in(panel_setting *setting, int64_t n) {
    return n > 0 && random_between(&setting->random, 0, n - 1) == 0;
}

/* A stretch of keys, often all or none of them. */
static void random_stretch(panel_setting *setting, int64_t num_keys, int64_t *begin, int64_t *end) {
    *begin = one_in(setting, 3) ? 0 : random_between(&setting->random, 0, num_keys);
    *end = one_in(setting, 3) ? num_keys : random_between(&setting->random, *begin, num_keys);
}

/* Rows show the same stretch but for a few keys; one key in `holes` is hidden, one in `shifts` is
 * changed without being hidden, 0: none. */
static void make_plan(panel_setting *setting, mask_plan *plan, bool may_shift) {
    static const int64_t rarities[] = {0, 0, 2, 5, 100};
    const int64_t holes = random_of(setting, rarities, 5);
    const int64_t shifts = may_shift ? random_of(setting, rarities, 5) : 0;
    int64_t begin, end;
    plan->num_rows = random_between(&setting->random, 1, setting->width);
    plan->num_keys = random_between(&setting->random, 0, MOST_KEYS);
    random_stretch(setting, plan->num_keys, &begin, &end);
    for (int64_t r = 0; r < plan->num_rows; ++r) {
        const int64_t slant = one_in(setting, 2) ? r : 0;
        for (int64_t j = 0; j < plan->num_keys; ++j) {
            const bool is_inside = j >= begin && j < end - slant;
            plan->is_shown[r][j] = is_inside && !one_in(setting, holes);
            plan->is_changed[r][j] = !plan->is_shown[r][j] || one_in(setting, shifts);
        }
    }
}

static attni_mask_sight expected_sight(const mask_plan *plan) {
    bool is_shown[MOST_KEYS] = {false};
    bool is_changed[MOST_KEYS] = {false};
    attni_mask_sight sight = {0};
    for (int64_t j = 0; j < plan->num_keys; ++j) {
        for (int64_t r = 0; r < plan->num_rows; ++r) {
            is_shown[j] |= plan->is_shown[r][j];
            is_changed[j] |= plan->is_changed[r][j];
        }
        if (is_shown[j]) {
            sight.begin = sight.end == 0 ? j : sight.begin;
            sight.end = j + 1;
        }
    }
    for (int64_t j = sight.begin; j < sight.end; ++j) {
        if (is_changed[j]) {
            sight.changed_begin = sight.changed_end == 0 ? j : sight.changed_begin;
            sight.changed_end = j + 1;
        }
    }
    return sight;
}

static void assert_sight(const panel_setting *setting, const mask_plan *plan,
                         attni_mask_sight actual) {
    const attni_mask_sight expected = expected_sight(plan);
    if (memcmp(&actual, &expected, sizeof actual) != 0) {
        fail_msg("%s, %lld rows, %lld keys: expected [%lld, %lld) changed in [%lld, %lld), got "
                 "[%lld, %lld) and [%lld, %lld)",
                 setting->set->name, (long long)plan->num_rows, (long long)plan->num_keys,
                 (long long)expected.begin, (long long)expected.end,
                 (long long)expected.changed_begin, (long long)expected.changed_end,
                 (long long)actual.begin, (long long)actual.end, (long long)actual.changed_begin,
                 (long long)actual.changed_end);
    }
}

/* ---- several rows ---- */

static unsigned char flag_for(panel_setting *setting, bool is_set) {
    static const unsigned char set[] = {1, 2, 0x80, 0xFF};
    return is_set ? set[random_between(&setting->random, 0, 3)] : 0;
}

static float bias_for(panel_setting *setting, bool is_shown, bool is_changed) {
    static const float shifts[] = {1, -1, NAN, INFINITY, -1e30F, 1e-40F};
    const float zero = one_in(setting, 2) ? 0.0F : -0.0F;
    return !is_shown    ? -INFINITY
           : is_changed ? shifts[random_between(&setting->random, 0, 5)]
                        : zero;
}

static void check_flags(panel_setting *setting) {
    static mask_plan plan;
    for (int round = 0; round < ROUNDS; ++round) {
        const unsigned char *rows[ATTNI_PANEL_LANES];
        const bool hidden_if = one_in(setting, 2);
        begin_call(setting);
        make_plan(setting, &plan, false);
        unsigned char *flags = place_bytes(setting, plan.num_rows * plan.num_keys);
        for (int64_t r = 0; r < plan.num_rows; ++r) {
            rows[r] = flags + r * plan.num_keys;
            for (int64_t j = 0; j < plan.num_keys; ++j) {
                flags[r * plan.num_keys + j] = flag_for(setting, plan.is_shown[r][j] != hidden_if);
            }
        }
        assert_sight(setting, &plan,
                     setting->set->masks->look_at_flags(rows, (int32_t)plan.num_rows, plan.num_keys,
                                                        hidden_if));
        check_guards(setting, "look_at_flags");
    }
}

static void flags_show_and_change_what_they_say(void **state) {
    (void)state;
    for_every_panel(check_flags);
}

static void check_biases(panel_setting *setting) {
    static mask_plan plan;
    for (int round = 0; round < ROUNDS; ++round) {
        float *rows[ATTNI_PANEL_LANES];
        begin_call(setting);
        make_plan(setting, &plan, true);
        place_rows(setting, plan.num_rows, plan.num_keys, 1, false, rows);
        for (int64_t r = 0; r < plan.num_rows; ++r) {
            for (int64_t j = 0; j < plan.num_keys; ++j) {
                set_float(rows[r], j,
                          bias_for(setting, plan.is_shown[r][j], plan.is_changed[r][j]));
            }
        }
        assert_sight(setting, &plan,
                     setting->set->masks->look_at_biases((const float *const *)rows,
                                                         (int32_t)plan.num_rows, plan.num_keys));
        check_guards(setting, "look_at_biases");
    }
}

static void biases_show_and_change_what_they_say(void **state) {
    (void)state;
    for_every_panel(check_biases);
}

/* ---- one row ---- */

static void assert_ends(const panel_setting *setting, const mask_plan *plan, int64_t first,
                        int64_t past) {
    int64_t expected_first = 0;
    int64_t expected_past = plan->num_keys;
    while (expected_first < plan->num_keys && !plan->is_shown[0][expected_first]) {
        ++expected_first;
    }
    while (expected_past > 0 && !plan->is_shown[0][expected_past - 1]) {
        --expected_past;
    }
    if (first != expected_first || past != expected_past) {
        fail_msg("%s, %lld keys: expected the first %lld and %lld past the last, got %lld and %lld",
                 setting->set->name, (long long)plan->num_keys, (long long)expected_first,
                 (long long)expected_past, (long long)first, (long long)past);
    }
}

static void check_ends_of_flags(panel_setting *setting) {
    static mask_plan plan;
    const attni_mask_kernels *masks = setting->set->masks;
    for (int round = 0; round < ROUNDS; ++round) {
        const bool hidden_if = one_in(setting, 2);
        const int64_t stride = random_of(setting, strides, NUM_STRIDES);
        begin_call(setting);
        make_plan(setting, &plan, false);
        const int64_t reach = plan.num_keys > 0 ? (plan.num_keys - 1) * stride : 0;
        const int64_t span = plan.num_keys > 0 ? (reach < 0 ? -reach : reach) + 1 : 0;
        unsigned char *row = place_bytes(setting, span) - (reach < 0 ? reach : 0);
        for (int64_t j = 0; j < plan.num_keys; ++j) {
            row[j * stride] = flag_for(setting, plan.is_shown[0][j] != hidden_if);
        }
        assert_ends(setting, &plan, masks->first_shown_flag(row, stride, plan.num_keys, hidden_if),
                    masks->past_shown_flags(row, stride, plan.num_keys, hidden_if));
        check_guards(setting, "first_shown_flag and past_shown_flags");
    }
}

static void ends_of_flags_are_found(void **state) {
    (void)state;
    for_every_panel(check_ends_of_flags);
}

static void check_ends_of_biases(panel_setting *setting) {
    static mask_plan plan;
    const attni_mask_kernels *masks = setting->set->masks;
    for (int round = 0; round < ROUNDS; ++round) {
        const int64_t stride = random_of(setting, strides, NUM_STRIDES);
        begin_call(setting);
        make_plan(setting, &plan, true);
        float *row = place_matrix(setting, 1, 1, plan.num_keys, stride);
        for (int64_t j = 0; j < plan.num_keys; ++j) {
            set_float(row, j * stride,
                      bias_for(setting, plan.is_shown[0][j], plan.is_changed[0][j]));
        }
        assert_ends(setting, &plan, masks->first_shown_bias(row, stride, plan.num_keys),
                    masks->past_shown_biases(row, stride, plan.num_keys));
        check_guards(setting, "first_shown_bias and past_shown_biases");
    }
}

static void ends_of_biases_are_found(void **state) {
    (void)state;
    for_every_panel(check_ends_of_biases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_show_and_change_what_they_say),
        cmocka_unit_test(biases_show_and_change_what_they_say),
        cmocka_unit_test(ends_of_flags_are_found),
        cmocka_unit_test(ends_of_biases_are_found),
    };
    return cmocka_run_group_tests_name("mask_kernels", tests, NULL, NULL);
}
