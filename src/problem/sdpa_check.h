/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sdpa_check.h: from a call as it comes to its canonical form.
 */
#ifndef ATTNI_PROBLEM_SDPA_CHECK_H
#define ATTNI_PROBLEM_SDPA_CHECK_H

#include "problem/sdpa_problem.h"
#include "problem/sdpa_request.h"

/* Every argument error of the call but overlap. */
attn_status attni_sdpa_check(const attni_sdpa_request *request, attni_sdpa_problem *problem);

/* Columns S that options and outputs have for the keys where sequences have room for any number of
 * keys each: it is the caller who knows how many the longest needs. `otherwise` where no option
 * says; weights and scores have extra_cols more. */
int64_t attni_choose_columns(const attn_sdpa_params *params, const attn_tensor *with_columns,
                             int64_t extra_cols, int64_t otherwise);

/* The output that belongs to a request without one: contiguous, without data. Fails with the errors
 * of query, key and value, and with ATTN_ERROR_OVERFLOW. */
attn_status attni_sdpa_describe_output(const attni_sdpa_request *request, attn_tensor *output);

/* A tensor aligned at the end of the canonical axes: strides of 0 where its length is 1 or the axis
 * is missing, and all of them where it is empty, since its data may be NULL and NULL has no
 * neighbours. */
attni_operand attni_operand_of(const attn_tensor *tensor, int32_t canonical_rank);

#endif
