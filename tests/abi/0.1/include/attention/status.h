/* SPDX-License-Identifier: BSD-3-Clause
 *
 * status.h: how the library says that something went wrong.
 *
 * Every function that can fail returns an attn_status: ATTN_OK (0) or one of the codes below, and
 * leaves one line of detail for the calling thread that names the argument, what was expected and
 * what was found:
 *
 *     key: expected shape (N=2, S=7, kdim=16), got (2, 7, 12)
 *
 * Unless a function says otherwise, an argument error is found before any work is done: outputs are
 * untouched and every object stays usable. The library never prints, aborts, exits or throws.
 */
#ifndef ATTENTION_STATUS_H
#define ATTENTION_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include <attention/export.h>

ATTN_BEGIN_DECLS

/* A status is passed as int32_t, as every enum of the library is. The values are pinned: they never
 * change and are never reused. More statuses may be added: treat any other non-zero value as an
 * error. The core library never uses values below 0 or from 1000 on, which are left to companion
 * libraries and callers. */
typedef int32_t attn_status;

/* What a function returns. */
enum attn_status_code {
    ATTN_OK = 0,

    /* a required pointer, or the data of a tensor that is not empty, is NULL */
    ATTN_ERROR_NULL = 1,

    /* a number is outside its range, or two options contradict each other */
    ATTN_ERROR_VALUE = 2,

    /* a rank or an axis has the wrong length, or a mask cannot be broadcast */
    ATTN_ERROR_SHAPE = 3,

    /* an element type is known, but not the expected one */
    ATTN_ERROR_DTYPE = 4,

    /* an output or the workspace overlaps another tensor, or an output itself */
    ATTN_ERROR_OVERLAP = 5,

    /* a product of sizes does not fit the address space */
    ATTN_ERROR_OVERFLOW = 6,

    /* a layer has no parameter of that name, or one has not been set */
    ATTN_ERROR_PARAMETER = 7,

    /* the caller's workspace is too small */
    ATTN_ERROR_WORKSPACE = 8,

    /* an allocation failed */
    ATTN_ERROR_MEMORY = 9,

    /* a thread could not be created, or the caller's parallel_for refused */
    ATTN_ERROR_THREAD = 10,

    /* valid, but not in this version or build: a bit, enum value, boolean, dtype, reserved field or
     * newer struct beyond what it knows, an absent engine or kernel. attn_sdpa_explain and
     * attn_mha_explain ask without running */
    ATTN_ERROR_UNSUPPORTED = 11,

    /* the BLAS found at run time cannot be used */
    ATTN_ERROR_BLAS = 12,

    /* attn_selftest computed a wrong result */
    ATTN_ERROR_SELFTEST = 13
};

/* The name of a status, "ATTN_ERROR_SHAPE"; "ATTN_ERROR_UNKNOWN" for any other number, those left
 * to companion libraries included. Static memory; never fails. Since 0.1. */
ATTN_API const char *attn_status_name(attn_status status);

/* What a status means in a few words, "shape mismatch". Static memory; never fails. Since 0.1. */
ATTN_API const char *attn_status_text(attn_status status);

/*
 * The detail of the calling thread's last failure: one line of at most 511 bytes without a newline;
 * "" after a success.
 *
 * Every fallible function of the library clears it on entry, so it belongs to the last such call of
 * this thread. The memory belongs to the library and to this thread: it stays valid, and changes,
 * until the thread's next call of a fallible function. A language whose tasks move between threads
 * (Go) locks the thread around the call and this one, or uses attn_last_error_copy at once.
 *
 * A thread's first failure allocates the memory, which is freed at the thread's end. Where there is
 * none the detail is attn_status_text() of the failure; where the process has no key for
 * thread-specific data left either, and while the library is being unloaded, it is "", and the
 * status alone tells. Never NULL; never fails. Since 0.1.
 */
ATTN_API const char *attn_last_error(void);

/*
 * Copies the detail into `buffer`, cut to `buffer_bytes` with its terminating zero. Returns the
 * bytes the whole detail needs, its terminating zero included, so a result larger than buffer_bytes
 * means that it was cut. With buffer_bytes 0 nothing is written and `buffer` may be NULL. Never
 * fails. Since 0.1.
 */
ATTN_API size_t attn_last_error_copy(char *buffer, size_t buffer_bytes);

/*
 * Sets the calling thread's detail as the library's own failures do, for companion libraries and
 * bindings, and returns `status`, so that a failure is one statement. `detail` becomes one line of
 * at most 511 bytes: what is longer is cut, control characters become '?'. NULL: the text of the
 * status. ATTN_OK clears the detail, whatever `detail` is. `status` may be any number. It is the
 * detail until the thread's next call of a fallible function. Any thread; never fails. Since 0.1.
 */
ATTN_API attn_status attn_error_set(attn_status status, const char *detail);

ATTN_END_DECLS

#endif
