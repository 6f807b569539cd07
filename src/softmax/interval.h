/* SPDX-License-Identifier: BSD-3-Clause
 *
 * interval.h: the keys a row sees by its position alone. Causality, window and key lengths all come
 * down to one interval per row; only a dense mask ever touches memory.
 */
#ifndef ATTNI_SOFTMAX_INTERVAL_H
#define ATTNI_SOFTMAX_INTERVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/checked_size.h"

/* Keys [begin, end), begin <= end; {0, 0} when there are none. */
typedef struct attni_interval {
    int64_t begin;
    int64_t end;
} attni_interval;

/* What positions allow in one batch. Row i stands at p(i) = i + query_offset. */
typedef struct attni_visibility {
    bool is_causal;       /* j <= p(i) */
    int64_t window_left;  /* j >= p(i) - window_left, or -1: unlimited */
    int64_t window_right; /* j <= p(i) + window_right, or -1: unlimited */
    int64_t query_offset;
    int64_t key_length; /* 0 <= j < key_length */
    int64_t mask_end;   /* j < mask_end: behind a mask that is placed, or INT64_MAX */
} attni_visibility;

static inline int64_t attni_row_position(const attni_visibility *visibility, int64_t row) {
    return attni_saturating_add(row, visibility->query_offset);
}

static inline attni_interval attni_interval_between(int64_t begin, int64_t end) {
    return begin < end ? (attni_interval){begin, end} : (attni_interval){0, 0};
}

static inline int64_t attni_first_visible(const attni_visibility *visibility, int64_t row) {
    if (visibility->window_left < 0) {
        return 0;
    }
    return attni_max(
        0, attni_saturating_add(attni_row_position(visibility, row), -visibility->window_left));
}

static inline int64_t attni_past_visible(const attni_visibility *visibility, int64_t row) {
    const int64_t position = attni_row_position(visibility, row);
    int64_t end = attni_min(visibility->key_length, visibility->mask_end);
    if (visibility->is_causal) {
        end = attni_min(end, attni_saturating_add(position, 1));
    }
    if (visibility->window_right >= 0) {
        end = attni_min(
            end, attni_saturating_add(attni_saturating_add(position, visibility->window_right), 1));
    }
    return end;
}

/* The keys row `row` sees. */
static inline attni_interval attni_row_interval(const attni_visibility *visibility, int64_t row) {
    return attni_interval_between(attni_first_visible(visibility, row),
                                  attni_past_visible(visibility, row));
}

/* The keys that some row of [first, end) sees. Both ends of the interval only grow with the row, so
 * the outer rows settle it. */
static inline attni_interval attni_rows_union(const attni_visibility *visibility, int64_t first,
                                              int64_t end) {
    return attni_interval_between(attni_first_visible(visibility, first),
                                  attni_past_visible(visibility, end - 1));
}

/* The keys that every row of [first, end) sees. */
static inline attni_interval attni_rows_common(const attni_visibility *visibility, int64_t first,
                                               int64_t end) {
    return attni_interval_between(attni_first_visible(visibility, end - 1),
                                  attni_past_visible(visibility, first));
}

#endif
