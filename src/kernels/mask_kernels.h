/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask_kernels.h: looks at rows of a dense mask before anything is computed for them: which keys do
 * they hide, and which scores would they change?
 *
 * rows[r] is where the row's element of the first key is; those of the other keys follow it without
 * gaps, at any alignment. There are num_rows >= 1 rows and num_keys >= 0 keys.
 */
#ifndef ATTNI_KERNELS_MASK_KERNELS_H
#define ATTNI_KERNELS_MASK_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Keys by their number among those looked at. Every row hides those outside [begin, end), and in
 * that no row changes a score outside [changed_begin, changed_end); begin and end, and these two,
 * are 0 where there is nothing. Each is as tight as an interval can be. */
typedef struct attni_mask_sight {
    int64_t begin;
    int64_t end;
    int64_t changed_begin;
    int64_t changed_end;
} attni_mask_sight;

typedef struct attni_mask_kernels {
    /* A flag changes the score that it hides: where (flag != 0) == hidden_if. */
    attni_mask_sight (*look_at_flags)(const unsigned char *const *rows, int32_t num_rows,
                                      int64_t num_keys, bool hidden_if);

    /* A bias hides where it is -inf, and changes a score unless it is 0, which at most makes +0 of
     * -0. */
    attni_mask_sight (*look_at_biases)(const float *const *rows, int32_t num_rows,
                                       int64_t num_keys);

    /* The first of the keys that one row shows, num_keys if there is none; and what is past the
     * last of them, or 0. Elements are `stride` apart. */
    int64_t (*first_shown_flag)(const unsigned char *row, int64_t stride, int64_t num_keys,
                                bool hidden_if);
    int64_t (*past_shown_flags)(const unsigned char *row, int64_t stride, int64_t num_keys,
                                bool hidden_if);
    int64_t (*first_shown_bias)(const float *row, int64_t stride, int64_t num_keys);
    int64_t (*past_shown_biases)(const float *row, int64_t stride, int64_t num_keys);
} attni_mask_kernels;

#endif
