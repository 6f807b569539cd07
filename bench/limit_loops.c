/* SPDX-License-Identifier: BSD-3-Clause
 *
 * limit_loops.c: multiply-adds on registers, and reads, in vector extensions. Compiled once for
 * each instruction set, with ATTN_LIMIT_ISA as its name.
 *
 * The loops mean something only if the compiler keeps them as written: disassembled, the body of
 * the first is multiply-adds on registers alone (multiplications and additions where there is no
 * FMA), the body of the second loads with their additions and prefetches.
 */
#include "limit_loops.h"

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif

typedef float floats __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES), may_alias));

enum { LANES = VECTOR_BYTES / sizeof(float) };

/* Independent chains. An FMA takes 4 or 5 cycles and x86 starts two in each, so that 10 keep both
 * units busy; 12 accumulators and two operands fit 16 registers. Arm's wide cores start four and
 * have 32 registers. */
#if defined(__aarch64__)
enum { CHAINS = 24 };
#else
enum { CHAINS = 12 };
#endif

enum { STEPS = 8, CYCLES_PER_ROUND = 64 };

/* One multiply-add in place: each form is the one that needs no copy of a register. Arm's adds onto
 * an operand, so the sum is the accumulator's; SSE multiplies onto one, so the product is. Values
 * stay near 1 and no product is common to two chains. */
static inline floats multiply_add(floats sum, floats factor, floats addend) {
#if defined(__aarch64__)
    (void)addend;
    return sum + sum * factor;
#else
    return sum * factor + addend;
#endif
}

static void run_fma(int64_t rounds) {
#if defined(__aarch64__)
    float scalars[2] = {0x1p-40f, 0.0f};
#else
    float scalars[2] = {0.5f, 0.5f};
#endif
    /* Opaque, or the compiler would know the result. */
    __asm__ volatile("" : "+m"(scalars));
    const floats zero = {0};
    const floats factor = zero + scalars[0];
    const floats addend = zero + scalars[1];
    floats sums[CHAINS];
#pragma GCC unroll 24
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = zero + (1.0f + (float)chain);
    }
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 8
        for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 24
            for (int chain = 0; chain < CHAINS; chain++) {
                sums[chain] = multiply_add(sums[chain], factor, addend);
            }
        }
    }
    floats total = zero;
#pragma GCC unroll 24
    for (int chain = 0; chain < CHAINS; chain++) {
        total += sums[chain];
    }
    __asm__ volatile("" : : "m"(total));
}

/* Each step needs the one before and takes one cycle. Opaque, or the compiler would join them; no
 * constant is added, because some processors do that for nothing. */
static void run_cycles(int64_t rounds) {
    uint64_t word = 1;
    uint64_t other = 2;
    __asm__ volatile("" : "+r"(other));
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 64
        for (int step = 0; step < CYCLES_PER_ROUND; step++) {
            word ^= other;
            __asm__ volatile("" : "+r"(word));
        }
    }
}

enum { LINE_BYTES = 64, BLOCK_BYTES = 2 * LINE_BYTES, MAX_STREAMS = 8 };

/* The streams begin an odd number of blocks apart, or all of them would need the same sets of the
 * caches. Sums of integers, because their additions take one cycle. */
static inline __attribute__((always_inline, no_sanitize("thread"))) size_t
read_streams(const char *memory, size_t bytes, const int streams, const size_t ahead) {
    const size_t stream_bytes = (((bytes / (size_t)streams) / BLOCK_BYTES - 1) | 1) * BLOCK_BYTES;
    words sums[MAX_STREAMS] = {{0}};
    for (size_t at = 0; at < stream_bytes; at += BLOCK_BYTES) {
#pragma GCC unroll 8
        for (int stream = 0; stream < streams; stream++) {
            const char *block = memory + (size_t)stream * stream_bytes + at;
            if (ahead != 0) {
                __builtin_prefetch(block + ahead);
                __builtin_prefetch(block + ahead + LINE_BYTES);
            }
#pragma GCC unroll 8
            for (int part = 0; part < BLOCK_BYTES / VECTOR_BYTES; part++) {
                sums[(stream + part) % MAX_STREAMS] +=
                    *(const words *)(const void *)(block + (size_t)part * VECTOR_BYTES);
            }
        }
    }
    words total = {0};
#pragma GCC unroll 8
    for (int i = 0; i < MAX_STREAMS; i++) {
        total += sums[i];
    }
    __asm__ volatile("" : : "m"(total));
    return stream_bytes * (size_t)streams;
}

/* A thread sanitizer would keep four bytes for each one read. */
__attribute__((no_sanitize("thread"))) static size_t run_read(const void *memory, size_t bytes,
                                                              int pattern) {
    switch (pattern) {
    case 0:
        return read_streams(memory, bytes, 1, 0);
    case 1:
        return read_streams(memory, bytes, 2, 0);
    case 2:
        return read_streams(memory, bytes, 4, 0);
    case 3:
        return read_streams(memory, bytes, 4, 1024);
    case 4:
        return read_streams(memory, bytes, 6, 0);
    default:
        return read_streams(memory, bytes, 8, 0);
    }
}

#define PASTE_NAME(a, b) a##b
#define TABLE_NAME(isa) PASTE_NAME(limit_loops_, isa)
#define QUOTE_NAME(isa) #isa
#define TABLE_TITLE(isa) QUOTE_NAME(isa)

const limit_loops TABLE_NAME(ATTN_LIMIT_ISA) = {
    .isa = TABLE_TITLE(ATTN_LIMIT_ISA),
    .fma = run_fma,
    .flops_per_round = 2.0 * LANES * CHAINS * STEPS,
    .cycles = run_cycles,
    .cycles_per_round = CYCLES_PER_ROUND,
    .read = run_read,
};
