/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_user.c: the engine's own function works where it was installed.
 */
#include <stdio.h>

int engine_core_passes(void);

int main(void) {
    puts(engine_core_passes() ? "passes" : "fails");
    return 0;
}
