/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blas_threads.c: functions that only some libraries have, found by their names.
 */
#include "blas_threads.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <attention/context.h>

/* libattention loads its BLAS for itself alone: it is found by the names that libraries have. */
static void *find_address(const char *name) {
    static const char *const libraries[] = {"libopenblas.so.0", "libblas.so.3", "libblis.so.4",
                                            "libcblas.so.3"};
    attn_context_info info = {.struct_size = sizeof info};
    /* Which loads it. Where that fails there is none to find. */
    const bool is_loaded = attn_context_describe(NULL, &info) == ATTN_OK;
    void *address = is_loaded ? dlsym(RTLD_DEFAULT, name) : NULL;
    for (size_t i = 0; address == NULL && i < sizeof libraries / sizeof libraries[0]; ++i) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);
        address = library != NULL ? dlsym(library, name) : NULL;
    }
    return address;
}

/* A data pointer is no function pointer in C; POSIX says that their bytes are the same. */
#define FIND_FUNCTION(function, name)                  \
    do {                                               \
        void *address = find_address(name);            \
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
