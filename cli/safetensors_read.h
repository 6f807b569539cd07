/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_read.h: read access to a .safetensors file: named tensors and string metadata.
 *
 * A file is 8 bytes of header length (little endian), a JSON header
 *
 *     {name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...,
 *      "__metadata__": {string: string, ...}}
 *
 * and the tensors' bytes, which the header must cover without gap or overlap.
 *
 * Files come from anywhere, so safetensors_open checks everything it hands out: lengths and offsets
 * against the file, each tensor's bytes against its shape and dtype, names against one another, the
 * header's UTF-8. It refuses what the format's own reader refuses, and names that occur twice. What it
 * returns can be used without further checks of bounds. Data is mapped, not read: opening a large
 * model to use one layer of it is cheap. Opening takes time and memory for the header's bytes,
 * whatever its numbers say. A file that somebody cuts short while it is open is the one thing a
 * mapping cannot survive.
 *
 * A file handle is read-only after opening: any number of threads may use it.
 */
#ifndef ATTN_CLI_SAFETENSORS_READ_H
#define ATTN_CLI_SAFETENSORS_READ_H

#include <stddef.h>
#include <stdint.h>

typedef struct safetensors_file safetensors_file;

enum safetensors_constants {
    SAFETENSORS_MAX_RANK = 8,
    SAFETENSORS_RANK_TOO_HIGH = -1 /* rank of an entry with more axes than SAFETENSORS_MAX_RANK: it
                                      cannot be used, the others can */
};

/* One tensor. Everything it points to lives until safetensors_close. */
typedef struct safetensors_entry {
    const char *name;
    const char *dtype; /* as in the file: "F32" "F64" "F16" "BF16" "BOOL" "I64" "I32" "U8" ... */
    int32_t rank;      /* 0 to 8, or SAFETENSORS_RANK_TOO_HIGH */
    int64_t shape[8];  /* lengths, 0 and up, at most 2^53; last axis fastest */
    const void *data;  /* little endian; may be unaligned */
    size_t data_bytes;
} safetensors_entry;

/*
 * Opens a file and checks all of it but the tensors' values. 0: *file is set, close it with
 * safetensors_close. Otherwise *file is NULL and `error` holds one line that names the file and,
 * where there is one, the tensor.
 */
int safetensors_open(const char *path, safetensors_file **file, char *error, size_t error_bytes);

/* Closes the file and frees everything reached through it. NULL is allowed. */
void safetensors_close(safetensors_file *file);

/* 1 if both were opened from one file, whatever names led to it. */
int safetensors_is_same_file(const safetensors_file *left, const safetensors_file *right);

/* The number of tensors. */
int64_t safetensors_count(const safetensors_file *file);

/* Tensor `index`, 0 to count - 1, in the order of the data; NULL for any other index. */
const safetensors_entry *safetensors_at(const safetensors_file *file, int64_t index);

/* The tensor of that name, NULL if absent. */
const safetensors_entry *safetensors_find(const safetensors_file *file, const char *name);

/* The metadata string of that key, NULL if absent. */
const char *safetensors_metadata(const safetensors_file *file, const char *key);

#endif
