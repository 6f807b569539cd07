/* SPDX-License-Identifier: BSD-3-Clause
 *
 * versioned_struct.c: reads and fills structs of another release's size.
 */
#include "base/versioned_struct.h"

#include <stdint.h>
#include <string.h>

/* Every release's struct is so many bytes, times a number. */
enum { FIELD_BYTES = 8 };

static uint64_t struct_size_of(const void *given) {
    uint64_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

static attn_status check_size(const char *name, uint64_t size, size_t first_bytes) {
    if (size < first_bytes) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected struct_size %zu (sizeof the struct) or more, got %llu",
                          name, first_bytes, (unsigned long long)size);
    }
    if (size > ATTNI_MOST_STRUCT_BYTES) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected struct_size (sizeof the struct) of at most %d, got %llu",
                          name, ATTNI_MOST_STRUCT_BYTES, (unsigned long long)size);
    }
    return ATTN_OK;
}

attn_status attni_struct_read(const char *name, const void *given, size_t first_bytes,
                              size_t known_bytes, void *known) {
    memset(known, 0, known_bytes);
    if (given == NULL) {
        return ATTN_OK;
    }
    const uint64_t size = struct_size_of(given);
    ATTNI_TRY(check_size(name, size, first_bytes));
    const unsigned char *bytes = given;
    for (uint64_t i = known_bytes; i < size; ++i) {
        if (bytes[i] != 0) {
            return attni_fail(ATTN_ERROR_UNSUPPORTED,
                              "%s: expected zeroes past byte %zu, which is all this version knows, "
                              "got an option at byte %llu",
                              name, known_bytes, (unsigned long long)i);
        }
    }
    /* No release had a part of a field, and part of a pointer is none. */
    memcpy(known, given, size < known_bytes ? (size_t)(size - size % FIELD_BYTES) : known_bytes);
    return ATTN_OK;
}

attn_status attni_struct_check_output(const char *name, const void *given, size_t first_bytes) {
    if (given == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a struct to fill, got NULL", name);
    }
    return check_size(name, struct_size_of(given), first_bytes);
}

void attni_struct_write(void *given, const void *known, size_t known_bytes) {
    const uint64_t size = struct_size_of(given);
    const size_t kept = size < known_bytes ? (size_t)size : known_bytes;
    memcpy((char *)given + sizeof size, (const char *)known + sizeof size, kept - sizeof size);
    memset((char *)given + kept, 0, (size_t)size - kept);
}
