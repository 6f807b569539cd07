/* SPDX-License-Identifier: BSD-3-Clause
 *
 * end_of_child.h: how a child that a test has forked ends.
 */
#ifndef ATTENTION_TESTS_SUPPORT_END_OF_CHILD_H
#define ATTENTION_TESTS_SUPPORT_END_OF_CHILD_H

#include <stdnoreturn.h>
#include <unistd.h>

#if defined(ATTENTION_COVERAGE)
void __gcov_dump(void);
#endif

/* Ends without the parent's exit handlers and unwritten output. What a coverage build has counted
 * would be lost with them, so it is written here. */
static inline noreturn void end_of_child(int status) {
#if defined(ATTENTION_COVERAGE)
    __gcov_dump();
#endif
    _exit(status);
}

#endif
