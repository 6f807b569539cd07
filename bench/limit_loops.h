/* SPDX-License-Identifier: BSD-3-Clause
 *
 * limit_loops.h: the loops whose speed is a limit of the machine, in one table for each instruction
 * set. limit_loops.c is compiled once for each.
 */
#ifndef ATTN_BENCH_LIMIT_LOOPS_H
#define ATTN_BENCH_LIMIT_LOOPS_H

#include <stddef.h>
#include <stdint.h>

/* How a buffer is read: so many places at once, each fetched so many bytes ahead (0: not at all).
 */
enum { LIMIT_READ_PATTERNS = 6 };

typedef struct limit_loops {
    const char *isa;

    /* Multiply-adds: `rounds` times flops_per_round flop. */
    void (*fma)(int64_t rounds);
    double flops_per_round;

    /* A chain of operations of one cycle each: `rounds` times cycles_per_round cycles. */
    void (*cycles)(int64_t rounds);
    double cycles_per_round;

    /* Reads memory[0, bytes) by pattern 0 to LIMIT_READ_PATTERNS - 1 and returns the bytes it read:
     * `bytes` but for a rest below 4 KiB. memory is aligned to 64 bytes; bytes >= 64 KiB. */
    size_t (*read)(const void *memory, size_t bytes, int pattern);
} limit_loops;

extern const limit_loops limit_loops_avx512;
extern const limit_loops limit_loops_avx2;
extern const limit_loops limit_loops_neon;
extern const limit_loops limit_loops_baseline;

#endif
