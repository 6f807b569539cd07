/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_none.c: a build without a BLAS. Functions of one that happens to be in the process are none
 * of ours.
 */
#include "blas_library/blas_functions.h"

const attni_blas_functions *attni_blas_functions_get(const char **why) {
    if (why != NULL) {
        *why = "this build has none";
    }
    return NULL;
}
