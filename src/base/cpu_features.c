/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_features.c: asks the CPU what it can run.
 */
#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Conversions of float16; not every compiler knows the name. Where AVX2 may be used, so may they. */
static bool converts_float16(void) {
    unsigned int eax = 0;
    unsigned int ebx = 0;
    unsigned int ecx = 0;
    unsigned int edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

bool attni_cpu_has(attni_isa isa) {
#if defined(__x86_64__)
    if (isa == ATTNI_ISA_AVX2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               converts_float16();
    }
    if (isa == ATTNI_ISA_AVX512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               converts_float16();
    }
#elif defined(__aarch64__)
    if (isa == ATTNI_ISA_NEON) {
        return true;
    }
#endif
    return isa == ATTNI_ISA_BASELINE;
}
