/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_features.c: asks the CPU what it can run.
 */
#include "base/cpu_features.h"

bool attni_cpu_has(attni_isa isa) {
    switch (isa) {
    case ATTNI_ISA_BASELINE:
    case ATTNI_ISA_NEON:
        return true;
#if defined(__x86_64__)
    case ATTNI_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ATTNI_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default:
        return false;
    }
}
