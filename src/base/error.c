/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.c: status texts, and the detail of each thread's last failure.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* initial-exec: a lazily allocated thread-local would abort the process when memory is out. */
static _Thread_local char error_detail[ATTNI_ERROR_BYTES]
    __attribute__((tls_model("initial-exec")));

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
    return error_detail;
}

size_t attn_last_error_copy(char *buffer, size_t buffer_bytes) {
    const size_t length = strlen(error_detail);
    if (buffer != NULL && buffer_bytes > 0) {
        const size_t kept = length < buffer_bytes ? length : buffer_bytes - 1;
        memcpy(buffer, error_detail, kept);
        buffer[kept] = '\0';
    }
    return length + 1;
}

void attni_error_clear(void) {
    error_detail[0] = '\0';
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

#undef attni_fail
attn_status attni_fail(attn_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error_detail, sizeof error_detail, format, arguments);
    va_end(arguments);
    replace_control_characters(error_detail);
    return status;
}
