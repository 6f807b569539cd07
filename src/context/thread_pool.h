/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_pool.h: a small pool of POSIX threads that runs indexed tasks. It knows nothing of
 * contexts, tensors or errors' texts.
 *
 * Workers block every signal, so the host's handlers run on the host's threads. While a task runs,
 * its thread has the rounding mode and the other floating-point settings of the caller of run, so
 * that a result does not depend on which thread computed it.
 */
#ifndef ATTNI_CONTEXT_THREAD_POOL_H
#define ATTNI_CONTEXT_THREAD_POOL_H

#include <stdint.h>

#include "base/allocator.h"

typedef struct attni_thread_pool attni_thread_pool;

/* One unit of work; called once for every index, on any thread. It must return normally: no
 * longjmp, no fork, no pthread_exit. */
typedef void (*attni_task)(void *data, int64_t index);

/* Makes a pool of num_threads (2 to 1024) threads, the caller of run counted, so num_threads - 1
 * workers are started. All of them exist when it returns ATTN_OK; else ATTN_ERROR_MEMORY or
 * ATTN_ERROR_THREAD, nothing is left behind and *pool is NULL. The allocator is copied; its state
 * must outlive the pool. */
int32_t attni_thread_pool_create(const attni_allocator *allocator, int32_t num_threads,
                                 attni_thread_pool **pool);

/* The same with as many threads as can be had, 1 to most_threads: ATTN_ERROR_THREAD is then want of
 * a lock. */
int32_t attni_thread_pool_create_some(const attni_allocator *allocator, int32_t most_threads,
                                      attni_thread_pool **pool);

/* The caller of run counted. */
int32_t attni_thread_pool_size(const attni_thread_pool *pool);

/* Stops and joins the workers and frees the pool. NULL is allowed. No run may be under way, except
 * that in a forked child, where memory is freed and nothing else is done, the parent may have been
 * in one. */
void attni_thread_pool_destroy(attni_thread_pool *pool);

/* Runs task(data, 0) ... task(data, count - 1), each exactly once, and returns when all have
 * returned; what they wrote is then visible to the caller, and no worker touches `data` any more.
 * The caller takes its share. A count <= 0 is nothing to do. If the pool is busy with another
 * caller, or this process is a forked child of the pool's, all of them run on the caller. Never
 * fails, never allocates. A task may itself call run (it then runs inline). */
void attni_thread_pool_run(attni_thread_pool *pool, int64_t count, attni_task task, void *data);

#endif
