/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_features.c: asks the CPU what it can run.
 */
#include "base/cpu_features.h"

bool attni_cpu_has(attni_isa isa) {
#if defined(__x86_64__)
    if (isa == ATTNI_ISA_AVX2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    if (isa == ATTNI_ISA_AVX512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
#elif defined(__aarch64__)
    if (isa == ATTNI_ISA_NEON) {
        return true;
    }
#endif
    return isa == ATTNI_ISA_BASELINE;
}
