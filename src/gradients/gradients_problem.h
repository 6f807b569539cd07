/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_problem.h: the gradients of one attention call in canonical form, as data and nothing
 * else.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_PROBLEM_H
#define ATTNI_GRADIENTS_GRADIENTS_PROBLEM_H

#include "problem/sdpa_problem.h"

/* The gradients that are sums over rows or keys, then all others. */
enum { ATTNI_OF_QUERY, ATTNI_OF_KEY, ATTNI_OF_VALUE, ATTNI_NUM_SUMMED };

enum { ATTNI_MOST_WANTED = 8 };

/* A gradient that is wanted and has elements. */
typedef struct attni_wanted_gradient {
    attn_tensor tensor;
    int32_t which;               /* below ATTNI_NUM_SUMMED, or that: one of an option */
    const attni_operand *starts; /* of the sequences whose rows are written; NULL: all are */
} attni_wanted_gradient;

typedef struct attni_gradients_problem {
    attni_sdpa_problem call; /* whose output and lse are read */

    /* The same call with the gradient of each operand in its place: of output, lse and weights
     * those given, of query, key, value, slopes and sinks those wanted, where is_present; of masks
     * where the kind is not ATTN_MASK_NONE. So what says where a row of an operand lies says it of
     * the gradient's, too. */
    attni_sdpa_problem gradients;
    bool accumulates;               /* gradients of options are added to what is there */
    bool adds_to[ATTNI_NUM_SUMMED]; /* and those of query, key and value */
    attni_wanted_gradient wanted[ATTNI_MOST_WANTED];
    int32_t num_wanted;
    bool is_zero; /* no row adds to what is wanted */
} attni_gradients_problem;

#endif
