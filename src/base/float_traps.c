/* SPDX-License-Identifier: BSD-3-Clause
 *
 * float_traps.c: see float_traps.h.
 */
#include "base/float_traps.h"

/* feholdexcept does this with glibc; musl's leaves traps on. */
void attni_float_traps_off(attni_float_traps *traps) {
    feholdexcept(&traps->host);
#if defined(__x86_64__)
    enum { MXCSR_MASKS = 0x1f80, X87_MASKS = 0x3f };
    uint16_t control = 0; /* The memory sanitizer does not see assembly write. */
    __asm__ volatile("fnstcw %0" : "=m"(control));
    control |= X87_MASKS;
    __asm__ volatile("fldcw %0" : : "m"(control));
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | MXCSR_MASKS);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control & ~UINT64_C(0x9f00)));
#endif
}

void attni_float_traps_restore(const attni_float_traps *traps) {
    fesetenv(&traps->host);
}
