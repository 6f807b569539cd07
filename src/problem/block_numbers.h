/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_numbers.h: scales and zeros that come with a quantised tensor: which shapes they may have,
 * and where the number of a value is.
 */
#ifndef ATTNI_PROBLEM_BLOCK_NUMBERS_H
#define ATTNI_PROBLEM_BLOCK_NUMBERS_H

#include "problem/sdpa_problem.h"

/* The view whose last axis counts values, while its stride stays that of elements. */
attn_status attni_count_values(const char *name, const attn_tensor *tensor, attn_tensor *view);

/* Scales or zeros, or NULL, of the tensor `of_name`, whose view is counted in values. */
attn_status attni_check_block_numbers(const char *name, const attn_tensor *numbers,
                                      const char *of_name, const attn_tensor *of,
                                      attni_data_rule data_rule);

/* Where they are, of a tensor of pages or of one whose batch axes stand before the last three. */
void attni_place_block_numbers(const attn_tensor *numbers, const attn_tensor *of,
                               int32_t batch_rank, bool is_in_pages, attni_block_numbers *placed);

/* Elements that lie apart by an axis of stride 0 are one: so are they with their numbers only where
 * those do not change along it. */
static inline bool attni_numbers_repeat(const attni_quantization *quantization, int32_t axis) {
    return quantization->scale.strides[axis] == 0 && quantization->zero.strides[axis] == 0;
}

#endif
