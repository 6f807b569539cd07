/* SPDX-License-Identifier: BSD-3-Clause
 *
 * version.c: what this build is.
 */
#include <attention/version.h>

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

int32_t attn_version(void) {
    return ATTN_VERSION_MAJOR * 1000000 + ATTN_VERSION_MINOR * 1000 + ATTN_VERSION_PATCH;
}

const char *attn_version_string(void) {
    return ATTNI_BUILD_VERSION;
}

const char *attn_build_info(void) {
    return "libattention " ATTNI_BUILD_VERSION "; " COMPILER "; blas " ATTNI_BUILD_BLAS
           "; kernels " ATTNI_BUILD_KERNELS;
}
