/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_library.c: asks the BLAS through functions that only some libraries have. They are weak
 * references, which the dynamic linker leaves NULL where the library does not have them.
 */
#include "base/blas_library.h"

#include <stddef.h>
#include <string.h>

#define JOIN_WORDS(prefix, name, suffix) prefix##name##suffix
#define BLAS_SYMBOL_EXPANDED(prefix, name, suffix) JOIN_WORDS(prefix, name, suffix)
#define BLAS_SYMBOL(name) BLAS_SYMBOL_EXPANDED(ATTNI_BLAS_PREFIX, name, ATTNI_BLAS_SUFFIX)

enum { CONCURRENT_CALLERS = 64 };

/* What openblas_get_parallel says, if it is there. */
enum { OPENBLAS_IS_SILENT = -1, OPENBLAS_SERIAL = 0, OPENBLAS_POSIX_THREADS = 1 };

char *BLAS_SYMBOL(openblas_get_config)(void) __attribute__((weak));
int BLAS_SYMBOL(openblas_get_parallel)(void) __attribute__((weak));
char *bli_info_get_version_str(void) __attribute__((weak));

bool attni_blas_present(void) {
    return strcmp(ATTNI_BUILD_BLAS, "reference") != 0;
}

static bool is_openblas(void) {
    return attni_blas_present() && BLAS_SYMBOL(openblas_get_config) != NULL;
}

static bool is_blis(void) {
    return attni_blas_present() && bli_info_get_version_str != NULL;
}

static int openblas_threads(void) {
    return BLAS_SYMBOL(openblas_get_parallel) != NULL ? BLAS_SYMBOL(openblas_get_parallel)()
                                                      : OPENBLAS_IS_SILENT;
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
    if (is_openblas()) {
        return BLAS_SYMBOL(openblas_get_config)();
    }
    return is_blis() ? "BLIS" : "a BLAS that does not tell its name";
}

const char *attni_blas_problem(void) {
    if (is_openblas() && strstr(BLAS_SYMBOL(openblas_get_config)(), "USE64BITINT") != NULL) {
        return "it is an ILP64 build (64-bit integers); an LP64 build is needed";
    }
    return NULL;
}
