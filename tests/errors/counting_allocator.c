/* SPDX-License-Identifier: BSD-3-Clause
 *
 * counting_allocator.c: memory from the C library, with a list of what is alive.
 */
#include "counting_allocator.h"

#include <stdlib.h>
#include <string.h>

void counting_allocator_init(counting_allocator *allocator) {
    memset(allocator, 0, sizeof *allocator);
    pthread_mutex_init(&allocator->mutex, NULL);
}

void counting_allocator_fail(counting_allocator *allocator, int64_t n, bool keeps_failing) {
    allocator->fail_at = n > 0 ? allocator->requests + n : 0;
    allocator->keeps_failing = keeps_failing;
}

static bool must_fail(const counting_allocator *allocator) {
    if (allocator->fail_at == 0) {
        return false;
    }
    return allocator->requests == allocator->fail_at ||
           (allocator->keeps_failing && allocator->requests > allocator->fail_at);
}

/* Memory that is neither zero nor what an earlier block held. */
static void *take_block(counting_allocator *allocator, size_t bytes, size_t alignment) {
    void *memory = NULL;
    if (allocator->live_blocks == COUNTING_MAX_BLOCKS ||
        posix_memalign(&memory, alignment, bytes) != 0) {
        return NULL;
    }
    memset(memory, 0xcd, bytes);
    allocator->blocks[allocator->live_blocks++] = (counting_block){memory, bytes, alignment};
    allocator->live_bytes += bytes;
    return memory;
}

static void *allocate(void *state, size_t bytes, size_t alignment) {
    counting_allocator *allocator = state;
    void *memory = NULL;
    pthread_mutex_lock(&allocator->mutex);
    allocator->requests += 1;
    if (bytes == 0 || alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) {
        allocator->mistakes += 1;
    } else if (must_fail(allocator)) {
        allocator->failures += 1;
    } else {
        memory = take_block(allocator, bytes, alignment);
    }
    pthread_mutex_unlock(&allocator->mutex);
    return memory;
}

static void deallocate(void *state, void *memory, size_t bytes, size_t alignment) {
    counting_allocator *allocator = state;
    pthread_mutex_lock(&allocator->mutex);
    int found = 0;
    while (found < allocator->live_blocks && allocator->blocks[found].memory != memory) {
        ++found;
    }
    if (found == allocator->live_blocks || allocator->blocks[found].bytes != bytes ||
        allocator->blocks[found].alignment != alignment) {
        allocator->mistakes += 1;
    } else {
        allocator->live_bytes -= bytes;
        allocator->blocks[found] = allocator->blocks[--allocator->live_blocks];
        memset(memory, 0xdd, bytes);
        free(memory);
    }
    pthread_mutex_unlock(&allocator->mutex);
}

void counting_allocator_use(counting_allocator *allocator, attn_context_config *params) {
    params->allocate = allocate;
    params->deallocate = deallocate;
    params->allocator_state = allocator;
}
