/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_input_gradients.h: the gradient of each input of a call, from those of oracle_gradients.h:
 * summed where the input repeats, with one more rounding a term, and stored as it is wanted.
 */
#ifndef ATTENTION_TESTS_ORACLE_INPUT_GRADIENTS_H
#define ATTENTION_TESTS_ORACLE_INPUT_GRADIENTS_H

#include "support/oracle_gradients.h"

enum oracle_gradient_of {
    ORACLE_OF_QUERY,
    ORACLE_OF_KEY,
    ORACLE_OF_VALUE,
    ORACLE_OF_MASK,
    ORACLE_OF_BIAS,
    ORACLE_OF_POSITION_BIAS,
    ORACLE_OF_SLOPES,
    ORACLE_OF_SINKS,
    ORACLE_NUM_GRADIENTS
};

typedef struct oracle_wanted {
    enum oracle_gradient_of of;
    const attn_tensor *tensor; /* its shape is the input's, and its type what it is rounded to */
    const attn_tensor *output; /* of the call */
    const double *before;      /* what it is added to, or NULL */
} oracle_wanted;

/* In the C order of the tensor; an element that may be infinite has an error of NaN. */
oracle_array oracle_input_gradient(const oracle_wanted *wanted, const oracle_problem *problem,
                                   const oracle_gradients *all);

#endif
