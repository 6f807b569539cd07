/* SPDX-License-Identifier: BSD-3-Clause
 *
 * planted_faults.h: which of its planted faults a test tries. Each takes a whole self-test.
 */
#ifndef ATTENTION_TESTS_PLANTED_FAULTS_H
#define ATTENTION_TESTS_PLANTED_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "support/strength.h"

/* Whether to try a fault that this check (NULL: no fault, none finds it) is to find: each, or, of
 * strength 1, the first of those in a row that one check finds. */
static inline bool fault_is_tried(const char *check) {
    static const char *last = "";
    const char *name = check == NULL ? "none" : check;
    const bool is_first = strcmp(name, last) != 0;
    last = name;
    return is_first || test_strength() > 1;
}

#endif
