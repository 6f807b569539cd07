/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_main.c: says how the engine was compiled.
 */
#include <stdio.h>

int engine_attention(void);

int main(void) {
#ifdef NDEBUG
    const char *const assertions = "off";
#else
    const char *const assertions = "on";
#endif
#ifdef __FAST_MATH__
    const char *const fast = "on";
#else
    const char *const fast = "off";
#endif
    printf("assertions %s, fast arithmetic %s, attention %d\n", assertions, fast,
           engine_attention());
    return 0;
}
