/* SPDX-License-Identifier: BSD-3-Clause
 *
 * allocator.c: the C library's allocator behind the seam, and the two calls everything else uses.
 */
#include "base/allocator.h"

#include <stdlib.h>

static void *system_allocate(void *state, size_t bytes, size_t alignment) {
    (void)state;
    void *memory = NULL;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void system_deallocate(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    (void)bytes;
    (void)alignment;
    free(memory);
}

const attni_allocator attni_system_allocator = {system_allocate, system_deallocate, NULL};

void *attni_allocate(const attni_allocator *allocator, size_t bytes) {
    return allocator->allocate(allocator->state, bytes, ATTNI_ALIGNMENT);
}

void attni_deallocate(const attni_allocator *allocator, void *memory, size_t bytes) {
    if (memory != NULL) {
        allocator->deallocate(allocator->state, memory, bytes, ATTNI_ALIGNMENT);
    }
}
