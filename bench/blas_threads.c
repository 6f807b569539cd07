/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_threads.c: functions that only some libraries have, found by their names.
 */
#include "blas_threads.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A data pointer is no function pointer in C; POSIX says that their bytes are the same. */
#define FIND_FUNCTION(function, name)                  \
    do {                                               \
        void *address = dlsym(RTLD_DEFAULT, name);     \
        memcpy(&(function), &address, sizeof address); \
    } while (0)

void blas_threads_set(int threads) {
    void (*openblas)(int) = NULL;
    void (*blis)(int64_t) = NULL;
    FIND_FUNCTION(openblas, "openblas_set_num_threads");
    FIND_FUNCTION(blis, "bli_thread_set_num_threads");
    if (threads > 0 && openblas != NULL) {
        openblas(threads);
    } else if (threads > 0 && blis != NULL) {
        blis(threads);
    }
}

int blas_threads_get(void) {
    int (*openblas)(void) = NULL;
    int64_t (*blis)(void) = NULL;
    FIND_FUNCTION(openblas, "openblas_get_num_threads");
    FIND_FUNCTION(blis, "bli_thread_get_num_threads");
    if (openblas != NULL) {
        return openblas();
    }
    return blis != NULL ? (int)blis() : 0;
}
