/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_merge.h: the text of attention/merge.h in float64, on plain arrays.
 */
#ifndef ATTENTION_TESTS_ORACLE_MERGE_H
#define ATTENTION_TESTS_ORACLE_MERGE_H

#include <attention/merge.h>

#include "support/compare.h"
#include "support/oracle_tensor.h"

enum { ORACLE_MOST_PARTS = 32 };

/* Partial results, each with bounds on its own errors. */
typedef struct oracle_parts {
    int64_t count, rows, cols;
    bound_rounding rounding;
    oracle_array outputs[ORACLE_MOST_PARTS]; /* (rows, cols) */
    oracle_array lses[ORACLE_MOST_PARTS];    /* (rows) */
    int has_lses;
    double *sinks; /* (rows) or NULL */
} oracle_parts;

typedef struct oracle_merge_result {
    oracle_array output; /* (rows, cols) */
    oracle_array lse;    /* (rows) */
} oracle_merge_result;

/* The parts as the arguments of attn_sdpa_merge hold them, exact; lses and sinks may be NULL. */
oracle_parts oracle_parts_create(int64_t count, const attn_tensor *outputs, const attn_tensor *lses,
                                 const attn_tensor *sinks);
void oracle_parts_destroy(oracle_parts *parts);

oracle_merge_result oracle_merge(const oracle_parts *parts);
void oracle_merge_result_destroy(oracle_merge_result *result);

#endif
