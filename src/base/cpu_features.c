/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_features.c: asks the CPU what it can run.
 */
#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Conversions of float16; not every compiler knows the name. Wherever AVX2 is used, so are they. */
static bool converts_float16(void) {
    unsigned int eax = 0;
    unsigned int ebx = 0;
    unsigned int ecx = 0;
    unsigned int edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

/* Leaf 7, its first subleaf. */
static bool multiplies_pairs(void) {
    enum { BFLOAT16_BIT = 1 << 5 };
    unsigned int eax = 0;
    unsigned int ebx = 0;
    unsigned int ecx = 0;
    unsigned int edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & BFLOAT16_BIT) != 0;
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_float16();
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

#ifndef HWCAP2_BF16
#define HWCAP2_BF16 (1UL << 14) /* older headers have no name for it */
#endif
#endif

bool attni_cpu_has(attni_isa isa) {
#if defined(__x86_64__)
    if (isa == ATTNI_ISA_AVX2) {
        return has_avx2();
    }
    if (isa == ATTNI_ISA_AVX512) {
        return has_avx512();
    }
    if (isa == ATTNI_ISA_AVX512_BF16) {
        return has_avx512() && multiplies_pairs();
    }
#elif defined(__aarch64__)
    if (isa == ATTNI_ISA_NEON) {
        return true;
    }
    if (isa == ATTNI_ISA_NEON_BF16) {
        return (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
    }
#endif
    return isa == ATTNI_ISA_BASELINE;
}

bool attni_cpu_pairs_fast(void) {
#if defined(__x86_64__)
    return !__builtin_cpu_is("intel");
#else
    return true;
#endif
}
