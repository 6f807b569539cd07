/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork_threads.h: the threads of a context in a test that forks.
 */
#ifndef ATTENTION_TESTS_SUPPORT_FORK_THREADS_H
#define ATTENTION_TESTS_SUPPORT_FORK_THREADS_H

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_THREAD__)
#define ATTENTION_TESTS_THREAD_SANITIZER 1
#elif defined(__has_feature)
#define ATTENTION_TESTS_THREAD_SANITIZER __has_feature(thread_sanitizer)
#else
#define ATTENTION_TESTS_THREAD_SANITIZER 0
#endif

/* 2, or 1 under what cannot follow threads that a child starts whose parent has some: the thread
 * sanitizer and qemu's user mode. */
static inline int32_t threads_beside_fork(void) {
    return ATTENTION_TESTS_THREAD_SANITIZER || getenv("ATTENTION_TEST_EMULATED") != NULL ? 1 : 2;
}

#endif
