/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guard_pages.c: see guard_pages.h.
 */
#include "support/guard_pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

guard_pages guard_pages_map(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t capacity = (bytes + page - 1) / page * page;
    unsigned char *all =
        mmap(NULL, capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED ||
        (capacity > 0 && mprotect(all + page, capacity, PROT_READ | PROT_WRITE) != 0)) {
        fprintf(stderr, "guard pages: out of memory\n");
        abort();
    }
    return (guard_pages){.bytes = all + page, .capacity = capacity};
}

void guard_pages_unmap(const guard_pages *pages) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(pages->bytes - page, pages->capacity + 2 * page);
}

unsigned char *guard_pages_last(const guard_pages *pages, size_t bytes) {
    return pages->bytes + pages->capacity - bytes;
}
