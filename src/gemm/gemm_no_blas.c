/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_no_blas.c: stands in for gemm_blas.c in a build without a BLAS. A context of such a build
 * never selects ATTN_GEMM_BLAS, so this is not reached; the native product is the right answer all
 * the same, but for a factor where C is added to, which it does not know.
 */
#include "gemm/gemm.h"

bool attni_gemm_blas_is_usable(void) {
    return false;
}

void attni_gemm_blas(const attni_gemm_call *call) {
    attni_gemm_call one = *call;
    one.batch = 1;
    attni_gemm_native(&one);
}
