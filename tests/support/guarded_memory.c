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
#include <unistd.h>

enum { MOST_AREAS = 512, SMALLEST_AREA = 1 << 14 };

typedef struct guarded_area {
    unsigned char *bytes; /* the pages before and behind them have no access */
    size_t capacity;
    int is_taken;
} guarded_area;

static guarded_area areas[MOST_AREAS];
static int num_areas;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void map_area(guarded_area *area, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t wanted = bytes > SMALLEST_AREA ? bytes : SMALLEST_AREA;
    area->capacity = (wanted + page - 1) / page * page;
    unsigned char *pages =
        mmap(NULL, area->capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED ||
        mprotect(pages + page, area->capacity, PROT_READ | PROT_WRITE) != 0) {
        give_up("out of memory");
    }
    area->bytes = pages + page;
}

/* Makes room for a larger area. */
static void unmap_area(guarded_area *area) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(area->bytes - page, area->capacity + 2 * page);
}

/* A free area with room for the bytes; else one more, or one that was too small. */
static guarded_area *free_area(size_t bytes) {
    guarded_area *too_small = NULL;
    for (int i = 0; i < num_areas; ++i) {
        if (!areas[i].is_taken && areas[i].capacity >= bytes) {
            return &areas[i];
        }
        too_small = areas[i].is_taken ? too_small : &areas[i];
    }
    if (num_areas < MOST_AREAS) {
        map_area(&areas[num_areas], bytes);
        return &areas[num_areas++];
    }
    if (too_small == NULL) {
        give_up("more areas are taken at a time than there may be");
    }
    unmap_area(too_small);
    map_area(too_small, bytes);
    return too_small;
}

unsigned char *guarded_take(size_t bytes, enum guarded_end end) {
    pthread_mutex_lock(&lock);
    guarded_area *area = free_area(bytes);
    area->is_taken = 1;
    unsigned char *memory = area->bytes + (end == GUARDED_PAST ? area->capacity - bytes : 0);
    pthread_mutex_unlock(&lock);
    return memory;
}

/* An address past the last byte belongs to the area too: of 0 bytes at its end. */
static guarded_area *area_of(const unsigned char *memory) {
    for (int i = 0; i < num_areas; ++i) {
        if (memory >= areas[i].bytes && memory <= areas[i].bytes + areas[i].capacity) {
            return &areas[i];
        }
    }
    give_up("an address that was never taken");
}

void guarded_set_read_only(const unsigned char *memory, int is_read_only) {
    pthread_mutex_lock(&lock);
    const guarded_area *area = area_of(memory);
    const int access = is_read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    if (mprotect(area->bytes, area->capacity, access) != 0) {
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
