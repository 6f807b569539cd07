/* SPDX-License-Identifier: BSD-3-Clause
 *
 * versioned_struct.h: the rule by which structs that begin with struct_size grow over releases.
 */
#ifndef ATTNI_BASE_VERSIONED_STRUCT_H
#define ATTNI_BASE_VERSIONED_STRUCT_H

#include <stddef.h>

#include "base/error.h"

/* A struct's size in the release in which `field` was its last. sizeof would grow with the struct,
 * so that programs of older releases were refused. */
#define ATTNI_BYTES_THROUGH(type, field) (offsetof(type, field) + sizeof(((type *)NULL)->field))

/* More than any release's struct will have: a size beyond it was never set, and is not believed. */
enum { ATTNI_MOST_STRUCT_BYTES = 4096 };

/* Copies the caller's struct `given` into `known` (known_bytes long, today's size): fields the
 * caller's version lacks, or has part of, become zero. NULL means all defaults. first_bytes is the
 * struct's size in the first release that had it, by ATTNI_BYTES_THROUGH. `name` is the argument,
 * for messages.
 * Fails with ATTN_ERROR_VALUE (struct_size below first_bytes or above the most) or
 * ATTN_ERROR_UNSUPPORTED (a newer struct that uses what is not known). */
attn_status attni_struct_read(const char *name, const void *given, size_t first_bytes,
                              size_t known_bytes, void *known);

/* Fails with ATTN_ERROR_NULL or ATTN_ERROR_VALUE unless `given` is a struct that the library may
 * fill. */
attn_status attni_struct_check_output(const char *name, const void *given, size_t first_bytes);

/* Fills the caller's struct with as much of `known` as it has room for, and what this version does
 * not know with zeroes; its struct_size stays as it is. */
void attni_struct_write(void *given, const void *known, size_t known_bytes);

#endif
