/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sequence_check.h: the numbers that say where sequences are and how long.
 */
#ifndef ATTNI_PROBLEM_SEQUENCE_CHECK_H
#define ATTNI_PROBLEM_SEQUENCE_CHECK_H

#include "problem/batch_sequence.h"
#include "problem/key_source.h"
#include "problem/sdpa_problem.h"

/* Reads starts, the lengths of sequences that have their own number of rows, and the entries of
 * pages that some row sees a key in. The first that is out of range is ATTN_ERROR_VALUE. */
attn_status attni_check_sequences(const attni_input_views *inputs,
                                  const attni_sdpa_problem *problem);

/* Starts ascend, from 0 or more to `total` or less. */
attn_status attni_check_starts(const char *name, const attni_operand *starts, int64_t sequences,
                               int64_t total);

/* The entry of a sequence's pages at `place` is a page. */
attn_status attni_check_page(const attni_kv_names *names, const attni_sdpa_problem *problem,
                             const attni_sequence *sequence, int64_t place);

#endif
