/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_core.c: a function of the engine that calls the library: its self-test.
 */
#include <attention/attention.h>

int engine_core_passes(void);

int engine_core_passes(void) {
    return attn_selftest(NULL, NULL) == ATTN_OK;
}
