/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_linked.c: the BLAS that the linker finds. Functions that only some libraries have are weak
 * references, which the dynamic linker leaves NULL where the library does not have them.
 */
#include "blas_library/blas_functions.h"

#define JOIN_WORDS(prefix, name, suffix) prefix##name##suffix
#define BLAS_SYMBOL_EXPANDED(prefix, name, suffix) JOIN_WORDS(prefix, name, suffix)
#define BLAS_SYMBOL(name) BLAS_SYMBOL_EXPANDED(ATTNI_BLAS_PREFIX, name, ATTNI_BLAS_SUFFIX)

/* They are declared here, not taken from cblas.h, because BLAS packages disagree on where that
 * header is and vendored builds rename the functions in it. */
attni_sgemm_function BLAS_SYMBOL(cblas_sgemm);
attni_dgemm_function BLAS_SYMBOL(cblas_dgemm);
char *BLAS_SYMBOL(openblas_get_config)(void) __attribute__((weak));
int BLAS_SYMBOL(openblas_get_parallel)(void) __attribute__((weak));
char *bli_info_get_version_str(void) __attribute__((weak));

static const attni_blas_functions functions = {
    .struct_size = sizeof functions,
    .sgemm = BLAS_SYMBOL(cblas_sgemm),
    .dgemm = BLAS_SYMBOL(cblas_dgemm),
    .openblas_get_config = BLAS_SYMBOL(openblas_get_config),
    .openblas_get_parallel = BLAS_SYMBOL(openblas_get_parallel),
    .bli_info_get_version_str = bli_info_get_version_str,
};

const attni_blas_functions *attni_blas_functions_get(const char **why) {
    (void)why;
    return &functions;
}
