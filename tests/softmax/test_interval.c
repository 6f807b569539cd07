/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_interval.c: intervals of visible keys against the definition of visibility, key by key, in
 * 128-bit arithmetic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "softmax/interval.h"

enum { MOST_ROWS = 6, MOST_KEYS = 6 };

__extension__ typedef __int128 wide;

typedef void (*visibility_check)(const attni_visibility *visibility);

/* Positions saturate at the ends of int64_t; everything else is exact. */
static bool sees(const attni_visibility *visibility, int64_t row, int64_t key) {
    wide position = (wide)row + visibility->query_offset;
    position = position > INT64_MAX ? INT64_MAX : position < INT64_MIN ? INT64_MIN : position;
    return key < visibility->key_length && key < visibility->mask_end &&
           (!visibility->is_causal || key <= position) &&
           (visibility->window_left < 0 || key >= position - visibility->window_left) &&
           (visibility->window_right < 0 || key <= position + visibility->window_right);
}

static const int64_t offsets[] = {-8,
                                  -5,
                                  -3,
                                  -2,
                                  -1,
                                  0,
                                  1,
                                  2,
                                  3,
                                  4,
                                  5,
                                  8,
                                  INT64_MIN,
                                  INT64_MIN + 1,
                                  INT64_MIN + 5,
                                  INT64_MAX - 5,
                                  INT64_MAX - 3,
                                  INT64_MAX - 1,
                                  INT64_MAX};
static const int64_t windows[] = {-1, 0, 1, 2, 3, 7, INT64_MAX - 3, INT64_MAX - 1, INT64_MAX};
/* Masks that are placed end before, between or behind the keys. */
static const int64_t mask_ends[] = {INT64_MAX, 0, 2};

enum {
    NUM_MASK_ENDS = sizeof mask_ends / sizeof mask_ends[0],
    NUM_OFFSETS = sizeof offsets / sizeof offsets[0],
    NUM_WINDOWS = sizeof windows / sizeof windows[0]
};

static void for_all(visibility_check check) {
    for (int i = 0;
         i < NUM_OFFSETS * NUM_WINDOWS * NUM_WINDOWS * (MOST_KEYS + 1) * 2 * NUM_MASK_ENDS; ++i) {
        const int which = i / NUM_MASK_ENDS;
        const attni_visibility visibility = {
            .is_causal = which % 2 == 1,
            .key_length = which / 2 % (MOST_KEYS + 1),
            .window_left = windows[which / 2 / (MOST_KEYS + 1) % NUM_WINDOWS],
            .window_right = windows[which / 2 / (MOST_KEYS + 1) / NUM_WINDOWS % NUM_WINDOWS],
            .query_offset = offsets[which / 2 / (MOST_KEYS + 1) / NUM_WINDOWS / NUM_WINDOWS],
            .mask_end = mask_ends[i % NUM_MASK_ENDS],
        };
        check(&visibility);
    }
}

static void fail_interval(const char *what, const attni_visibility *visibility, int64_t first,
                          int64_t end, attni_interval interval) {
    fail_msg("%s of rows %lld to %lld, offset %lld, causal %d, window %lld and %lld, %lld keys: "
             "got [%lld, %lld)",
             what, (long long)first, (long long)end - 1, (long long)visibility->query_offset,
             visibility->is_causal, (long long)visibility->window_left,
             (long long)visibility->window_right, (long long)visibility->key_length,
             (long long)interval.begin, (long long)interval.end);
}

/* An interval is in its one form: begin < end within the keys, or {0, 0}. */
static bool is_well_formed(attni_interval interval) {
    return (interval.begin == 0 && interval.end == 0) ||
           (interval.begin >= 0 && interval.begin < interval.end && interval.end <= MOST_KEYS);
}

static bool contains(attni_interval interval, int64_t key) {
    return key >= interval.begin && key < interval.end;
}

static void check_rows(const attni_visibility *visibility) {
    for (int64_t row = 0; row < MOST_ROWS; ++row) {
        const attni_interval interval = attni_row_interval(visibility, row);
        bool same = is_well_formed(interval);
        for (int64_t key = 0; key < MOST_KEYS; ++key) {
            same = same && contains(interval, key) == sees(visibility, row, key);
        }
        if (!same) {
            fail_interval("interval", visibility, row, row + 1, interval);
        }
    }
}

static void row_interval_is_what_the_row_sees(void **state) {
    (void)state;
    for_all(check_rows);
}

/* Rows of [first, end) that see a key. */
static int64_t count_rows(const attni_visibility *visibility, int64_t first, int64_t end,
                          int64_t key) {
    int64_t count = 0;
    for (int64_t row = first; row < end; ++row) {
        count += sees(visibility, row, key);
    }
    return count;
}

static void check_blocks(const attni_visibility *visibility) {
    for (int64_t first = 0; first < MOST_ROWS; ++first) {
        for (int64_t end = first + 1; end <= MOST_ROWS; ++end) {
            const attni_interval some = attni_rows_union(visibility, first, end);
            const attni_interval all = attni_rows_common(visibility, first, end);
            bool some_same = is_well_formed(some);
            bool all_same = is_well_formed(all);
            for (int64_t key = 0; key < MOST_KEYS; ++key) {
                const int64_t count = count_rows(visibility, first, end, key);
                some_same = some_same && contains(some, key) == (count > 0);
                all_same = all_same && contains(all, key) == (count == end - first);
            }
            if (!some_same) {
                fail_interval("union", visibility, first, end, some);
            }
            if (!all_same) {
                fail_interval("intersection", visibility, first, end, all);
            }
        }
    }
}

static void rows_union_and_common_are_what_some_and_all_rows_see(void **state) {
    (void)state;
    for_all(check_blocks);
}

static void row_position_saturates(void **state) {
    (void)state;
    const attni_visibility low = {.query_offset = INT64_MIN};
    const attni_visibility high = {.query_offset = INT64_MAX};
    const attni_visibility middle = {.query_offset = -7};
    assert_true(attni_row_position(&low, 3) == INT64_MIN + 3);
    assert_true(attni_row_position(&high, 0) == INT64_MAX);
    assert_true(attni_row_position(&high, 3) == INT64_MAX);
    assert_true(attni_row_position(&middle, 3) == -4);
}

/* Lengths no test could walk through. */
static void row_interval_of_endless_keys_is_right(void **state) {
    (void)state;
    const attni_visibility causal = {.is_causal = true,
                                     .window_left = -1,
                                     .window_right = -1,
                                     .query_offset = INT64_MAX,
                                     .key_length = INT64_MAX,
                                     .mask_end = INT64_MAX};
    const attni_interval all = attni_row_interval(&causal, 5);
    assert_true(all.begin == 0 && all.end == INT64_MAX);
    const attni_visibility window = {.window_left = 2,
                                     .window_right = 1,
                                     .query_offset = INT64_MAX - 10,
                                     .key_length = INT64_MAX,
                                     .mask_end = INT64_MAX};
    const attni_interval four = attni_row_interval(&window, 0);
    assert_true(four.begin == INT64_MAX - 12 && four.end == INT64_MAX - 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_interval_is_what_the_row_sees),
        cmocka_unit_test(rows_union_and_common_are_what_some_and_all_rows_see),
        cmocka_unit_test(row_position_saturates),
        cmocka_unit_test(row_interval_of_endless_keys_is_right),
    };
    return cmocka_run_group_tests_name("interval", tests, NULL, NULL);
}
