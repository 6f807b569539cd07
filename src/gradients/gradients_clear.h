/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_clear.h: gradients of a call in which nothing adds to anything.
 */
#ifndef ATTNI_GRADIENTS_GRADIENTS_CLEAR_H
#define ATTNI_GRADIENTS_GRADIENTS_CLEAR_H

#include "gradients/gradients_problem.h"

/* Zeroes all that is wanted, unless it is added to what is there. */
void attni_gradients_clear(const attni_gradients_problem *problem);

#endif
