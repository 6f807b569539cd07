/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fork_threads.h: the threads of a context in a test that forks.
 */
#ifndef ATTENTION_TESTS_SUPPORT_FORK_THREADS_H
#define ATTENTION_TESTS_SUPPORT_FORK_THREADS_H

/* The thread sanitizer cannot follow threads that a child starts whose parent has some. */
#if defined(__SANITIZE_THREAD__)
enum { THREADS_BESIDE_FORK = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { THREADS_BESIDE_FORK = 1 };
#else
enum { THREADS_BESIDE_FORK = 2 };
#endif
#else
enum { THREADS_BESIDE_FORK = 2 };
#endif

#endif
