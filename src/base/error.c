/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.c: status texts, and the detail of each thread's last failure.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread_value.h"

/* A thread's detail: ATTNI_ERROR_BYTES bytes, allocated at its first failure. Where there is no
 * memory for them, the text of the status takes their place (static memory, nothing to free). At
 * most one of the two is not empty. */
static attni_thread_value detail_of_thread = ATTNI_THREAD_VALUE(free);
static attni_thread_value text_of_thread = ATTNI_THREAD_VALUE(NULL);

typedef struct status_entry {
    const char *name;
    const char *text;
} status_entry;

static const status_entry status_table[] = {
    [ATTN_OK] = {"ATTN_OK", "success"},
    [ATTN_ERROR_NULL] = {"ATTN_ERROR_NULL", "required pointer is NULL"},
    [ATTN_ERROR_VALUE] = {"ATTN_ERROR_VALUE", "value out of range"},
    [ATTN_ERROR_SHAPE] = {"ATTN_ERROR_SHAPE", "shape mismatch"},
    [ATTN_ERROR_DTYPE] = {"ATTN_ERROR_DTYPE", "wrong element type"},
    [ATTN_ERROR_OVERLAP] = {"ATTN_ERROR_OVERLAP", "output overlaps another tensor or itself"},
    [ATTN_ERROR_OVERFLOW] = {"ATTN_ERROR_OVERFLOW", "sizes overflow"},
    [ATTN_ERROR_PARAMETER] = {"ATTN_ERROR_PARAMETER", "unknown or missing layer parameter"},
    [ATTN_ERROR_WORKSPACE] = {"ATTN_ERROR_WORKSPACE", "workspace too small"},
    [ATTN_ERROR_MEMORY] = {"ATTN_ERROR_MEMORY", "out of memory"},
    [ATTN_ERROR_THREAD] = {"ATTN_ERROR_THREAD", "threads not available"},
    [ATTN_ERROR_UNSUPPORTED] = {"ATTN_ERROR_UNSUPPORTED", "not supported by this version or build"},
    [ATTN_ERROR_BLAS] = {"ATTN_ERROR_BLAS", "BLAS cannot be used"},
    [ATTN_ERROR_SELFTEST] = {"ATTN_ERROR_SELFTEST", "a wrong result in the self-test"},
};

static const status_entry *find_status(attn_status status) {
    static const status_entry unknown = {"ATTN_ERROR_UNKNOWN", "unknown status"};
    const attn_status count = (attn_status)(sizeof status_table / sizeof status_table[0]);
    return status >= 0 && status < count ? &status_table[status] : &unknown;
}

const char *attn_status_name(attn_status status) {
    return find_status(status)->name;
}

const char *attn_status_text(attn_status status) {
    return find_status(status)->text;
}

const char *attn_last_error(void) {
    const char *text = attni_thread_value_get(&text_of_thread);
    const char *detail = text != NULL ? text : attni_thread_value_get(&detail_of_thread);
    return detail != NULL ? detail : "";
}

size_t attn_last_error_copy(char *buffer, size_t buffer_bytes) {
    const char *detail = attn_last_error();
    const size_t length = strlen(detail);
    if (buffer != NULL && buffer_bytes > 0) {
        const size_t kept = length < buffer_bytes ? length : buffer_bytes - 1;
        memcpy(buffer, detail, kept);
        buffer[kept] = '\0';
    }
    return length + 1;
}

void attni_error_clear(void) {
    char *detail = attni_thread_value_get(&detail_of_thread);
    if (detail != NULL) {
        detail[0] = '\0';
    }
    if (attni_thread_value_get(&text_of_thread) != NULL) {
        (void)attni_thread_value_set(&text_of_thread, NULL);
    }
}

/* The calling thread's bytes for a detail, allocated if need be; NULL where that cannot be. */
static char *find_detail(void) {
    char *detail = attni_thread_value_get(&detail_of_thread);
    if (detail != NULL) {
        return detail;
    }
    detail = malloc(ATTNI_ERROR_BYTES);
    if (detail != NULL && !attni_thread_value_set(&detail_of_thread, detail)) {
        free(detail);
        return NULL;
    }
    return detail;
}

/* A message may quote a caller's text; whatever that holds, the detail stays one printable line. */
static void replace_control_characters(char *text) {
    for (; *text != '\0'; ++text) {
        const unsigned char byte = (unsigned char)*text;
        if (byte < ' ' || byte == 0x7f) {
            *text = '?';
        }
    }
}

/* Makes a line the calling thread's detail. A caller's errno is none of the library's business. */
static void set_detail(attn_status status, const char *line) {
    const int callers_errno = errno;
    char *detail = find_detail();
    const char *text = NULL;
    if (detail != NULL) {
        memcpy(detail, line, strlen(line) + 1);
        replace_control_characters(detail);
    } else {
        text = attn_status_text(status);
    }
    if (text != attni_thread_value_get(&text_of_thread)) {
        (void)attni_thread_value_set(&text_of_thread, (void *)(uintptr_t)text); /* only read */
    }
    errno = callers_errno;
}

attn_status attn_error_set(attn_status status, const char *detail) {
    if (status == ATTN_OK) {
        attni_error_clear();
        return ATTN_OK;
    }
    return attni_fail(status, "%s", detail != NULL ? detail : attn_status_text(status));
}

/* The line is written apart first: it may quote the detail it takes the place of. */
#undef attni_fail
attn_status attni_fail(attn_status status, const char *format, ...) {
    char line[ATTNI_ERROR_BYTES] = "";
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    set_detail(status, line);
    return status;
}
