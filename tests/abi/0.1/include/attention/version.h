/* SPDX-License-Identifier: BSD-3-Clause
 *
 * version.h: which version this is, at compile time (the constants) and at run time (the
 * functions).
 *
 * ABI promise. The shared library's soname is libattention.so.0 for all of 0.x: a program built
 * against release 0.a runs with every release 0.b, b >= a. Functions are never removed, structs
 * grow at their end only, values of constants never change; what is added stands under the ABI
 * heading of CHANGELOG.md. A release that breaks this has another soname.
 */
#ifndef ATTENTION_VERSION_H
#define ATTENTION_VERSION_H

#include <stdint.h>

#include <attention/export.h>

ATTN_BEGIN_DECLS

/* The version of the headers a program was compiled with. Compare ATTN_VERSION with attn_version()
 * of the library it runs with. */
enum attn_version_constants {
    ATTN_VERSION_MAJOR = 0,
    ATTN_VERSION_MINOR = 1,
    ATTN_VERSION_PATCH = 0,

    /* in attn_version()'s form */
    ATTN_VERSION = ATTN_VERSION_MAJOR * 1000000 + ATTN_VERSION_MINOR * 1000 + ATTN_VERSION_PATCH
};

/*
 * The version of the library that runs: major * 1000000 + minor * 1000 + patch, so 0.1.0 is 1000.
 * Never fails; any thread. Since 0.1.
 */
ATTN_API int32_t attn_version(void);

/* The same as text, "0.1.0". Static memory. Never fails; any thread. Since 0.1. */
ATTN_API const char *attn_version_string(void);

/*
 * One line for bug reports: version, compiler, the BLAS the library was built for and the kernels
 * compiled in, for example "libattention 0.1.0; gcc 12.2.0; blas openblas; kernels avx512 avx2
 * baseline". Static memory. Never fails; any thread. Since 0.1.
 */
ATTN_API const char *attn_build_info(void);

ATTN_END_DECLS

#endif
