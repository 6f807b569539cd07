/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_features.h: which instruction sets this CPU and its operating system allow. The only file
 * that asks the CPU is cpu_features.c.
 */
#ifndef ATTNI_BASE_CPU_FEATURES_H
#define ATTNI_BASE_CPU_FEATURES_H

#include <stdbool.h>

/* What a set of kernels may have been compiled for. */
typedef enum attni_isa {
    ATTNI_ISA_BASELINE,   /* what the compiler's default target has; every CPU */
    ATTNI_ISA_NEON,       /* aarch64: every CPU */
    ATTNI_ISA_AVX2,       /* AVX2, FMA and F16C */
    ATTNI_ISA_AVX512,     /* AVX-512 F, DQ, BW, VL, and those of AVX2 */
    ATTNI_ISA_NEON_BF16,  /* NEON and its dot product of bfloat16 */
    ATTNI_ISA_AVX512_BF16 /* AVX-512 and its dot product of bfloat16 */
} attni_isa;

bool attni_cpu_has(attni_isa isa);

/* Whether a dot product of pairs takes the CPU no longer than a multiply-add. Intel's take twice as
 * long, so that nothing is gained by rounding to bfloat16 for them. */
bool attni_cpu_pairs_fast(void);

#endif
