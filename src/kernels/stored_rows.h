/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stored_rows.h: rows between a caller's memory, of any float type, stride and alignment, and
 * consecutive elements of the score type, float64 for float64 and float32 for the others.
 */
#ifndef ATTNI_KERNELS_STORED_ROWS_H
#define ATTNI_KERNELS_STORED_ROWS_H

#include <stdint.h>

#include "kernels/kernel_select.h"

/* to[j] = from[j * stride] for j < n, exactly; `dtype` is from's. */
void attni_take_row(const attni_kernel_set *set, void *to, const void *from, int32_t dtype,
                    int64_t stride, int64_t n);

/* to[j * stride] = from[j] for j < n, rounded to `dtype`, which is to's. */
void attni_put_row(const attni_kernel_set *set, void *to, int32_t dtype, int64_t stride,
                   const void *from, int64_t n);

/* to[j] = (value j of from - its zero) * its scale for j < n, which are whole elements, `stride` of
 * them apart; `dtype` is from's, a quantised one. */
void attni_take_quantized_row(const attni_kernel_set *set, float *to, const void *from,
                              int32_t dtype, int64_t stride, int64_t n,
                              attni_value_numbers numbers);

#endif
