/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_run.h: runs a case through the public interface.
 */
#ifndef INTEROP_CASE_RUN_H
#define INTEROP_CASE_RUN_H

#include "case_reader.h"

/* 0 if the call gave what the case expects, else -1 and the reason in `problem`. */
int case_run(const interop_case *made, char *problem, size_t problem_bytes);

#endif
