/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_memory.c: areas of pages, kept for the next who needs one.
 */
#include "support/guarded_memory.h"

#include <stdio.h>
#include <stdlib.h>

static _Noreturn void give_up(const char *problem) {
    fprintf(stderr, "guarded memory: %s\n", problem);
    abort();
}

#if defined(GUARDED_BY_PAGES)
/* Whatever the sanitizer: kernels are not instrumented in fuzzers. */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define HAS_WATCHED_HEAP
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_WATCHED_HEAP
#endif

#ifdef HAS_WATCHED_HEAP

unsigned char *guarded_take(size_t bytes, enum guarded_end end) {
    (void)end;
    unsigned char *memory = malloc(bytes);
    if (memory == NULL) {
        give_up("out of memory");
    }
    return memory;
}

void guarded_set_read_only(const unsigned char *memory, int is_read_only) {
    (void)memory;
    (void)is_read_only;
}

void guarded_give_back(unsigned char *memory) {
    free(memory);
}

#else

#include <pthread.h>
#include <sys/mman.h>

#include "support/guard_pages.h"

enum { MOST_AREAS = 512, SMALLEST_AREA = 1 << 14 };

typedef struct guarded_area {
    guard_pages pages;
    int is_taken;
} guarded_area;

static guarded_area areas[MOST_AREAS];
static int num_areas;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static guard_pages map_area(size_t bytes) {
    return guard_pages_map(bytes > SMALLEST_AREA ? bytes : SMALLEST_AREA);
}

/* A free area with room for the bytes; else one more, or one that was too small. */
static guarded_area *free_area(size_t bytes) {
    guarded_area *too_small = NULL;
    for (int i = 0; i < num_areas; ++i) {
        if (!areas[i].is_taken && areas[i].pages.capacity >= bytes) {
            return &areas[i];
        }
        too_small = areas[i].is_taken ? too_small : &areas[i];
    }
    if (num_areas < MOST_AREAS) {
        areas[num_areas].pages = map_area(bytes);
        return &areas[num_areas++];
    }
    if (too_small == NULL) {
        give_up("more areas are taken at a time than there may be");
    }
    guard_pages_unmap(&too_small->pages);
    too_small->pages = map_area(bytes);
    return too_small;
}

unsigned char *guarded_take(size_t bytes, enum guarded_end end) {
    pthread_mutex_lock(&lock);
    guarded_area *area = free_area(bytes);
    area->is_taken = 1;
    unsigned char *memory =
        end == GUARDED_PAST ? guard_pages_last(&area->pages, bytes) : area->pages.bytes;
    pthread_mutex_unlock(&lock);
    return memory;
}

/* An address past the last byte belongs to the area too: of 0 bytes at its end. */
static guarded_area *area_of(const unsigned char *memory) {
    for (int i = 0; i < num_areas; ++i) {
        if (memory >= areas[i].pages.bytes && memory <= guard_pages_last(&areas[i].pages, 0)) {
            return &areas[i];
        }
    }
    give_up("an address that was never taken");
}

void guarded_set_read_only(const unsigned char *memory, int is_read_only) {
    pthread_mutex_lock(&lock);
    const guarded_area *area = area_of(memory);
    const int access = is_read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    if (mprotect(area->pages.bytes, area->pages.capacity, access) != 0) {
        give_up("the access to pages cannot be changed");
    }
    pthread_mutex_unlock(&lock);
}

void guarded_give_back(unsigned char *memory) {
    if (memory != NULL) {
        pthread_mutex_lock(&lock);
        area_of(memory)->is_taken = 0;
        pthread_mutex_unlock(&lock);
    }
}

#endif
