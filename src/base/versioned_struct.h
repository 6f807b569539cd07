/* SPDX-License-Identifier: BSD-3-Clause
 *
 * versioned_struct.h: the rule by which structs that begin with struct_size grow over releases.
 */
#ifndef ATTNI_BASE_VERSIONED_STRUCT_H
#define ATTNI_BASE_VERSIONED_STRUCT_H

#include <stddef.h>

#include "base/error.h"

/* Copies the caller's struct `given` into `known` (known_bytes long, today's size): fields the
 * caller's version lacks become zero. NULL means all defaults. first_bytes is the struct's size in
 * the first release that had it. `name` is the argument, for messages. Fails with ATTN_ERROR_VALUE
 * (struct_size below first_bytes) or ATTN_ERROR_UNSUPPORTED (a newer struct that uses what is not
 * known). */
attn_status attni_struct_read(const char *name, const void *given, size_t first_bytes,
                              size_t known_bytes, void *known);

/* Fails with ATTN_ERROR_NULL or ATTN_ERROR_VALUE unless `given` is a struct that the library may
 * fill. */
attn_status attni_struct_check_output(const char *name, const void *given, size_t first_bytes);

/* Fills the caller's struct with as much of `known` as it has room for; its struct_size stays as it
 * is. */
void attni_struct_write(void *given, const void *known, size_t known_bytes);

#endif
