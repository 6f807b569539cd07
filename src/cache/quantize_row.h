/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantize_row.h: a row of numbers as the integers of a quantised cache.
 */
#ifndef ATTNI_CACHE_QUANTIZE_ROW_H
#define ATTNI_CACHE_QUANTIZE_ROW_H

#include "cache/append_problem.h"
#include "kernels/kernel_select.h"
#include "problem/quantized_rows.h"
#include "problem/source_rows.h"

/* Stores row `from` as row `to`, whose scales and zeros are those of `at`; writes these first where
 * new rows bring them. */
void attni_quantize_row(const attni_kernel_set *set, const attni_sdpa_problem *cache,
                        const attni_new_rows *part, const attni_source_rows *from,
                        const attni_source_rows *to, const attni_number_row *at);

#endif
