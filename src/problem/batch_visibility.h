/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch_visibility.h: what positions and lengths allow in one batch, for every engine.
 */
#ifndef ATTNI_PROBLEM_BATCH_VISIBILITY_H
#define ATTNI_PROBLEM_BATCH_VISIBILITY_H

#include "problem/sdpa_problem.h"

/* Reads query_offset and key_lengths, each once; key_length is 0 to S whatever there is to read. */
attni_visibility attni_batch_visibility(const attni_sdpa_problem *problem, int64_t batch);

#endif
