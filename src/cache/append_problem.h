/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_problem.h: one call of attn_kv_append in canonical form.
 */
#ifndef ATTNI_CACHE_APPEND_PROBLEM_H
#define ATTNI_CACHE_APPEND_PROBLEM_H

#include "problem/sdpa_problem.h"

enum { ATTNI_NEW_KEYS, ATTNI_NEW_VALUES, ATTNI_NUM_NEW };

/* New rows, and the part of the cache that they belong to. */
typedef struct attni_new_rows {
    attni_operand from;              /* on the axes (batch axes, head, row, feature) */
    attni_operand to;                /* likewise, of a sequence or a page */
    attni_quantization quantization; /* of `to`, where its dtype is quantised */
    bool writes_scale;               /* and its zero: new rows bring them */
    int64_t page_stride;
    int64_t heads;
    int64_t features;
} attni_new_rows;

typedef struct attni_append_problem {
    attni_sdpa_problem cache; /* of which batch axes, lengths, starts, pages and rows are set */
    attni_new_rows parts[ATTNI_NUM_NEW];
    attni_operand starts;    /* of the new rows; absent: as many for each sequence */
    attni_operand positions; /* on the axes (batch axes, row), row 0 being that of all sequences'
                                rows with starts; absent: the last ones in use */
    int64_t num_rows;        /* L, or all with starts */
    bool stores_elements;    /* rows have some: else nobody asks where they go */
} attni_append_problem;

#endif
