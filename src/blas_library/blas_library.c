/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_library.c: asks the BLAS through functions that only some libraries have.
 */
#include "blas_library/blas_library.h"

#include <stddef.h>
#include <string.h>

#include "blas_library/blas_functions.h"

enum { CONCURRENT_CALLERS = 64 };

/* What openblas_get_parallel says, if it is there. */
enum { OPENBLAS_IS_SILENT = -1, OPENBLAS_SERIAL = 0, OPENBLAS_POSIX_THREADS = 1 };

bool attni_blas_present(void) {
    return strcmp(ATTNI_BUILD_BLAS, "reference") != 0;
}

bool attni_blas_can_be_called(void) {
    return attni_blas_functions_get(NULL) != NULL;
}

static bool is_openblas(void) {
    const attni_blas_functions *blas = attni_blas_functions_get(NULL);
    return blas != NULL && blas->openblas_get_config != NULL;
}

static bool is_blis(void) {
    const attni_blas_functions *blas = attni_blas_functions_get(NULL);
    return blas != NULL && blas->bli_info_get_version_str != NULL;
}

static int openblas_threads(void) {
    const attni_blas_functions *blas = attni_blas_functions_get(NULL);
    return blas->openblas_get_parallel != NULL ? blas->openblas_get_parallel() : OPENBLAS_IS_SILENT;
}

static const char *openblas_config(void) {
    return attni_blas_functions_get(NULL)->openblas_get_config();
}

int attni_blas_max_callers(void) {
    if (is_openblas()) {
        return openblas_threads() > OPENBLAS_SERIAL ? CONCURRENT_CALLERS : 1;
    }
    return is_blis() ? CONCURRENT_CALLERS : 1;
}

bool attni_blas_may_miss_its_threads(void) {
    if (is_openblas()) {
        return openblas_threads() != OPENBLAS_SERIAL &&
               openblas_threads() != OPENBLAS_POSIX_THREADS;
    }
    return attni_blas_present();
}

bool attni_blas_may_stray_in_float32(void) {
    return attni_blas_present() && !is_openblas();
}

bool attni_blas_may_lose_nan(void) {
    return attni_blas_present() && !is_openblas();
}

const char *attni_blas_description(void) {
    if (!attni_blas_present()) {
        return "none";
    }
    if (!attni_blas_can_be_called()) {
        return "none, for it cannot be loaded";
    }
    if (is_openblas()) {
        return openblas_config();
    }
    return is_blis() ? "BLIS" : "a BLAS that does not tell its name";
}

const char *attni_blas_problem(void) {
    const char *problem = NULL;
    if (attni_blas_present() && attni_blas_functions_get(&problem) == NULL) {
        return problem;
    }
    if (is_openblas() && strstr(openblas_config(), "USE64BITINT") != NULL) {
        return "it is an ILP64 build (64-bit integers); an LP64 build is needed";
    }
    return NULL;
}
