/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_list.h: where each row of keys or values lies, for those who meet them one by one.
 */
#ifndef ATTNI_PROBLEM_ROW_LIST_H
#define ATTNI_PROBLEM_ROW_LIST_H

#include "problem/batch_sequence.h"

/* list[j] = where row first + j of key or value lies, of those in pages, for query head `head`. */
void attni_list_keys(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                     int64_t head, int64_t first, int64_t count, const void **list);
void attni_list_values(const attni_sdpa_problem *problem, const attni_sequence *sequence,
                       int64_t head, int64_t first, int64_t count, const void **list);

#endif
