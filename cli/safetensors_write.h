/* SPDX-License-Identifier: BSD-3-Clause
 *
 * safetensors_write.h: makes a .safetensors file.
 */
#ifndef ATTN_CLI_SAFETENSORS_WRITE_H
#define ATTN_CLI_SAFETENSORS_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "safetensors_read.h"

/* One line of __metadata__. */
typedef struct safetensors_text {
    const char *key;
    const char *value;
} safetensors_text;

/*
 * Writes `count` tensors, in this order, and metadata_count metadata strings to `path`, replacing a
 * file there only once all is written. The data is laid out densely, the first tensor at an offset
 * divisible by 8. Names and keys must be unique UTF-8; data_bytes must agree with dtype and shape
 * (nothing is checked). 0, or -1 with one line in `error` that names the path.
 */
int safetensors_save(const char *path, const safetensors_entry *tensors, int64_t count,
                     const safetensors_text *metadata, int64_t metadata_count, char *error,
                     size_t error_bytes);

#endif
