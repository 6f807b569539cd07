/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_bytes.h: the bytes a fuzzer gives, taken from the front; zeros after the last one. And what a
 * target tells at its end.
 */
#ifndef FUZZ_BYTES_H
#define FUZZ_BYTES_H

#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_bytes {
    const uint8_t *data;
    size_t left;
} fuzz_bytes;

uint8_t fuzz_byte(fuzz_bytes *bytes);
uint64_t fuzz_word(fuzz_bytes *bytes);

/* A length, stride or enum as programs get them wrong: small, an edge of int32 or int64, or any. */
int64_t fuzz_odd_number(fuzz_bytes *bytes);

/* Counts an execution; its last words are "<name>: N executions, P % computed". */
void fuzz_count(const char *name, int has_computed);

/* What a fuzzer, or the replay of files, calls. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
