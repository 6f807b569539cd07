/* SPDX-License-Identifier: BSD-3-Clause
 *
 * float_traps.h: hosts that let floating-point exceptions trap (feenableexcept). The library
 * divides by zero where infinity is meant, log(0) of a row that sees nothing among them, and NaN of
 * a caller is a number like others: on a thread that computes for it no exception traps, and the
 * host's floating-point environment, its flags too, is restored afterwards. Where none would trap,
 * which is nearly everywhere, that costs the reading of one register.
 */
#ifndef ATTNI_BASE_FLOAT_TRAPS_H
#define ATTNI_BASE_FLOAT_TRAPS_H

#include <fenv.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct attni_float_traps {
    bool are_off; /* where some were on */
    fenv_t host;
} attni_float_traps;

/* Whether some exception may trap on this thread. */
static inline bool attni_float_may_trap(void) {
#if defined(__x86_64__)
    enum { MASKS = 0x1f80 }; /* of MXCSR: of the six exceptions */
    return (__builtin_ia32_stmxcsr() & MASKS) != MASKS;
#elif defined(__aarch64__)
    enum { ENABLES = 0x9f00 }; /* of FPCR: likewise; most CPUs keep them 0 */
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return (control & ENABLES) != 0;
#elif defined(__GLIBC__)
    return fegetexcept() != 0;
#else
    return false;
#endif
}

void attni_float_traps_off(attni_float_traps *traps);
void attni_float_traps_restore(const attni_float_traps *traps);

/* The empty assembly keeps what may trap behind it, or before it. */
static inline void attni_float_traps_begin(attni_float_traps *traps) {
    traps->are_off = attni_float_may_trap();
    if (__builtin_expect(traps->are_off, 0)) {
        attni_float_traps_off(traps);
    }
    __asm__ volatile("" : : : "memory");
}

static inline void attni_float_traps_end(const attni_float_traps *traps) {
    __asm__ volatile("" : : : "memory");
    if (__builtin_expect(traps->are_off, 0)) {
        attni_float_traps_restore(traps);
    }
}

/* From here to the end of the block, however that is left, no exception traps. */
#define ATTNI_NO_FLOAT_TRAPS                                                            \
    attni_float_traps attni_host_traps __attribute__((cleanup(attni_float_traps_end))); \
    attni_float_traps_begin(&attni_host_traps)

#endif
