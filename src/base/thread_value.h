/* SPDX-License-Identifier: BSD-3-Clause
 *
 * thread_value.h: a pointer that each thread has for itself.
 *
 * Not a thread-local variable: those of a library that is loaded later share a little memory that
 * was set aside when the process began (a few copies fill it, and musl has none), or are allocated
 * at the first access, which aborts the process when memory is out.
 */
#ifndef ATTNI_BASE_THREAD_VALUE_H
#define ATTNI_BASE_THREAD_VALUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/unload.h"

/* In static memory; begins as ATTNI_THREAD_VALUE. */
typedef struct attni_thread_value {
    attni_unload_step forget;  /* first, so that the hook's step leads here */
    void (*release)(void *);   /* gets a thread's pointer at the thread's end; or NULL */
    _Atomic int64_t key_index; /* 0: no key yet; -1: none any more; else the key + 1 */
} attni_thread_value;

/* `at_thread_end` must be a function of the C library, or NULL: a thread may come to its end while
 * this library's code is being unloaded. */
#define ATTNI_THREAD_VALUE(at_thread_end) \
    { .release = (at_thread_end) }

/* The calling thread's pointer: NULL before it was set and where it cannot be kept. */
void *attni_thread_value_get(attni_thread_value *value);

/* False, and the pointer is as it was, where the system has no key or memory for it, and when the
 * library is being unloaded. */
bool attni_thread_value_set(attni_thread_value *value, void *pointer);

#endif
