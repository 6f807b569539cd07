/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_bytes.c: bytes of a fuzzer, and the counts of a run.
 */
#include "fuzz_bytes.h"

#include <stdio.h>
#include <stdlib.h>

uint8_t fuzz_byte(fuzz_bytes *bytes) {
    if (bytes->left == 0) {
        return 0;
    }
    bytes->left--;
    return *bytes->data++;
}

uint64_t fuzz_word(fuzz_bytes *bytes) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) {
        word = word << 8 | fuzz_byte(bytes);
    }
    return word;
}

int64_t fuzz_odd_number(fuzz_bytes *bytes) {
    static const int64_t edges[] = {INT32_MAX, INT32_MIN,     INT64_MAX,      INT64_MIN, -1,
                                    0,         INT64_MAX / 4, INT64_MAX / 16, 1 << 20};
    const uint8_t choice = fuzz_byte(bytes);
    if (choice < 128) {
        return (int64_t)fuzz_byte(bytes) - 16;
    }
    if (choice < 240) {
        /* Around the edge, and over it. */
        const int64_t step = (int8_t)fuzz_byte(bytes) / 32;
        return (int64_t)((uint64_t)edges[choice % (sizeof edges / sizeof edges[0])] +
                         (uint64_t)step);
    }
    return (int64_t)fuzz_word(bytes);
}

static const char *counted_name;
static uint64_t num_executions;
static uint64_t num_computed;

static void print_counts(void) {
    fprintf(stderr, "%s: %llu executions, %.1f %% computed\n", counted_name,
            (unsigned long long)num_executions,
            100.0 * (double)num_computed / (double)num_executions);
}

void fuzz_count(const char *name, int has_computed) {
    if (num_executions == 0) {
        counted_name = name;
        atexit(print_counts);
    }
    num_executions++;
    num_computed += has_computed != 0;
}
