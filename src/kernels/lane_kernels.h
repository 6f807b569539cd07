/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lane_kernels.h: what carries numbers between rows in memory and the lanes of panels and tiles
 * (see tile_kernels.h): masks and positions onto scores, weights out. Float32 only.
 *
 * rows[lane] is where the row in a lane begins; lanes without a row may repeat another's. Rows may
 * have any alignment.
 */
#ifndef ATTNI_KERNELS_LANE_KERNELS_H
#define ATTNI_KERNELS_LANE_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/dropout_stream.h"

typedef struct attni_lane_kernels {
    /* tile[j][lane] = excluded but for begin[lane] <= j < end[lane]. */
    void (*clip)(float *tile, int32_t vectors, int64_t num_keys, const int32_t *begin,
                 const int32_t *end, float excluded);

    /* tile[j][lane] -= slopes[lane] * |distances[lane] - (first + j)| */
    void (*alibi)(float *tile, int32_t vectors, int64_t first, int64_t num_keys,
                  const float *slopes, const float *distances);

    /* tile[j][lane] += rows[lane][j], sums of finite numbers staying finite, or = excluded where
     * rows[lane][j] is -inf; without is_added only the latter. */
    void (*add_bias)(float *tile, int32_t vectors, int64_t num_keys, const float *const *rows,
                     bool is_added, float excluded);

    /* tile[j][lane] = excluded where (rows[lane][j] != 0) == hidden_if. */
    void (*hide)(float *tile, int32_t vectors, int64_t num_keys, const unsigned char *const *rows,
                 bool hidden_if, float excluded);

    /* tile[j][lane] *= scale where column `first` + j of row numbers[lane] and the counter's word
     * heads[lane] is kept, else 0, which leaves a NaN. */
    void (*drop)(float *tile, int32_t vectors, int64_t first, int64_t num_keys,
                 const uint32_t *numbers, const uint32_t *heads,
                 const attni_dropout_stream *stream);

    /* The two above for a mask that is the same for all rows; its keys are stride elements apart.
     */
    void (*add_key_bias)(float *tile, int32_t vectors, int64_t num_keys, const float *bias,
                         int64_t stride, bool is_added, float excluded);
    void (*hide_keys)(float *tile, int32_t vectors, int64_t num_keys, const unsigned char *flags,
                      int64_t stride, bool hidden_if, float excluded);

    /* rows[lane][j] = factor[lane] * tile[j][lane] in lanes below num_rows; with is_added it is
     * added, lane after lane, so that rows may be the same. */
    void (*store_weights)(float *const *rows, const float *tile, int32_t vectors, int32_t num_rows,
                          int64_t num_keys, const float *factor, bool is_added);
} attni_lane_kernels;

#endif
