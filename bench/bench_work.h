/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_work.h: how much there is to do: what times are divided by. Formulas only.
 */
#ifndef ATTN_BENCH_WORK_H
#define ATTN_BENCH_WORK_H

#include <stdint.h>

#include "bench_options.h"

typedef struct bench_work {
    /* (query, key) pairs of one head that causality, window, key lengths and a block mask leave,
     * over all sequences. A dense mask hides none: its pairs have to be looked at. */
    int64_t visible_pairs;

    /* Keys that some query sees, over all sequences. */
    int64_t visible_keys;

    /* sdpa: 2 (D + Dv) visible_pairs H, which is 4 B H L S D when all is visible and D = Dv.
     * mha: that and its four products, 2 B (L E H D + S E Hk D + S E Hk Dv + L H Dv E). */
    double flops;

    /* Exponentials: visible_pairs H; 0 without a normalizer. */
    double exponentials;

    /* Bytes that must be read whatever the algorithm. sdpa: keys and values that are seen, once,
     * visible_keys Hk (D + Dv) elements. mha: its parameters and inputs, once. */
    double bytes;
} bench_work;

/* `options` are complete. */
bench_work bench_work_of(const bench_options *options);

/* Cycles per second of one thread, from the measured FMA peak of all. */
double bench_cycle_hz(double fma_flops, int flops_per_cycle, int threads);

/* The compute bound in seconds: flops at the FMA peak, and one cycle of one thread for each
 * exponential. */
double bench_bound_seconds(const bench_work *work, double fma_flops, int flops_per_cycle,
                           int threads);

#endif
