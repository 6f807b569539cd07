/* SPDX-License-Identifier: BSD-3-Clause
 *
 * counting_allocator.h: an allocator that counts what is alive, checks what is given back, and
 * fails when told to.
 */
#ifndef TESTS_ERRORS_COUNTING_ALLOCATOR_H
#define TESTS_ERRORS_COUNTING_ALLOCATOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/context.h>

enum { COUNTING_MAX_BLOCKS = 64 };

typedef struct counting_block {
    void *memory;
    size_t bytes;
    size_t alignment;
} counting_block;

/* Start with counting_allocator_init. The counters may be read while no call is running. */
typedef struct counting_allocator {
    pthread_mutex_t mutex;
    counting_block blocks[COUNTING_MAX_BLOCKS]; /* alive, in no order */
    int live_blocks;
    size_t live_bytes;
    int64_t requests;   /* calls of allocate */
    int64_t fail_at;    /* the request that fails, counted from 1; 0: none */
    bool keeps_failing; /* and every one after it */
    int64_t failures;   /* requests that have failed */
    int64_t mistakes;   /* blocks given back that are not alive or had another size or alignment;
                         requests without a size or alignment */
} counting_allocator;

void counting_allocator_init(counting_allocator *allocator);

/* Makes the n-th request from now on fail, or no request with n = 0. */
void counting_allocator_fail(counting_allocator *allocator, int64_t n, bool keeps_failing);

/* Puts the allocator into a context's settings. */
void counting_allocator_use(counting_allocator *allocator, attn_context_config *params);

#endif
