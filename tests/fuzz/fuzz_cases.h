/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_cases.h: bytes of a fuzzer as a case of the covering arrays' factors, so that most executions
 * compute something and are compared with the float64 oracle.
 */
#ifndef FUZZ_CASES_H
#define FUZZ_CASES_H

#include "call_run.h"
#include "fuzz_bytes.h"

/* Gives every factor the level its byte says, or the next one that the levels before allow. 0 if one
 * has none. */
int fuzz_choose(fuzz_bytes *bytes, const factor_set *set, factor_case *chosen);

/* Ends the program, with the case in words. */
_Noreturn void fuzz_fail(const factor_set *set, const factor_case *chosen, uint64_t seed,
                         const char *problem);

/* Makes one thing about a tensor odd, in a way that cannot make a valid call read elsewhere: a
 * number, or that an axis is gone. */
void fuzz_spoil_view(fuzz_bytes *bytes, attn_tensor *view);

#endif
