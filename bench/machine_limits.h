/* SPDX-License-Identifier: BSD-3-Clause
 *
 * machine_limits.h: what this machine can do at best: the figures that measured times are compared
 * with. Plain C without other types, so that other languages can load libattn_limits.so.
 *
 * Each function occupies `threads` threads, the calling one included, each on a CPU of its own (of
 * those this process may use: all of them if `threads` is more), for about `seconds`, and returns
 * the best of the short slices it ran in that time (twelve of reads at least), all threads
 * together: on a shared machine the best slice is the one that was not disturbed. 0 means that it
 * could not be measured: threads < 1, no memory, no thread. Calls must not overlap: they would
 * share the machine.
 */
#ifndef ATTN_BENCH_MACHINE_LIMITS_H
#define ATTN_BENCH_MACHINE_LIMITS_H

#define ATTN_LIMITS_API __attribute__((visibility("default")))

/* float32 multiply-adds on registers, in flop/s: an FMA of w lanes is 2 w flop. */
ATTN_LIMITS_API double attn_limit_fma_flops(int threads, double seconds);

/* Sequential reads from memory, in bytes/s: a buffer of 256 MiB or four last-level caches,
 * whichever is more, each thread its own part; the best of several numbers of streams and prefetch
 * distances. */
ATTN_LIMITS_API double attn_limit_read_bytes(int threads, double seconds);

/* Frees that buffer, which is otherwise kept for the next call. */
ATTN_LIMITS_API void attn_limit_release(void);

/* The instruction set the loops above are written in: "avx512", "avx2", "neon" or "baseline", the
 * best this CPU has. Static memory. */
ATTN_LIMITS_API const char *attn_limit_isa(void);

/* float32 flop that a thread of this CPU can do in a cycle, a power of two, measured by the first
 * call: 64 are two multiply-adds of 16 lanes. Occupies the calling thread for 20 milliseconds. */
ATTN_LIMITS_API int attn_limit_flops_per_cycle(void);

#endif
