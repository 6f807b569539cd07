/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.h: the one way in which the library reports a failure: a status, and a line of detail kept
 * for the calling thread.
 */
#ifndef ATTNI_BASE_ERROR_H
#define ATTNI_BASE_ERROR_H

#include <attention/status.h>

/* Bytes of a thread's detail, its terminating zero included. */
enum { ATTNI_ERROR_BYTES = 512 };

/* Clears the calling thread's detail. Every fallible public function begins with it. */
void attni_error_clear(void);

/* Sets the detail (one line, cut to fit) and returns `status`, so that a check is one statement. A
 * thread's first failure allocates the bytes for it; without them the detail is the status's text.
 * errno stays as it was. */
attn_status attni_fail(attn_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
#ifdef ATTENTION_ANALYSIS /* An analyser sees one source, and here that this is no success. */
#define attni_fail(status, ...) ((void)attni_fail(status, __VA_ARGS__), (status))
#endif

/* Leaves the function with the status of `call` unless it is ATTN_OK. Only for functions that own
 * nothing. */
#define ATTNI_TRY(call)                              \
    do {                                             \
        const attn_status attni_try_status = (call); \
        if (attni_try_status != ATTN_OK) {           \
            return attni_try_status;                 \
        }                                            \
    } while (0)

#endif
