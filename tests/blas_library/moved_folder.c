/* SPDX-License-Identifier: BSD-3-Clause
 *
 * moved_folder.c: the library is loaded by a relative path, and the working folder is another one
 * by the time its BLAS is needed: the module is found where it was, or not at all.
 *
 * Usage: moved_folder <library, relative> <another folder>
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <attention/attention.h>

int main(int argc, char **argv) {
    if (argc != 3 || argv[1][0] == '/') {
        fprintf(stderr, "usage: moved_folder <library, relative> <another folder>\n");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (library == NULL || chdir(argv[2]) != 0) {
        fprintf(stderr, "%s is not loaded, or %s not entered\n", argv[1], argv[2]);
        return 1;
    }
    attn_status (*describe)(attn_context *, attn_context_info *) = NULL;
    void *address = dlsym(library, "attn_context_describe");
    memcpy(&describe, &address, sizeof describe);
    attn_context_info info = {.struct_size = sizeof info};
    const attn_status status = describe(NULL, &info);
    printf("BLAS: %s\n", status == ATTN_OK ? info.blas : "not told");
    return status != ATTN_OK || strstr(info.blas, "cannot be loaded") != NULL;
}
