/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random_numbers.h: the small generator behind fresh parameters: SplitMix64 (Steele, Lea and Flood,
 * "Fast splittable pseudorandom number generators", 2014). Uniform numbers are the same on every
 * machine; normal ones to the rounding of log and cos.
 */
#ifndef ATTNI_MULTIHEAD_RANDOM_NUMBERS_H
#define ATTNI_MULTIHEAD_RANDOM_NUMBERS_H

#include <math.h>
#include <stdint.h>

typedef struct attni_random {
    uint64_t state;
} attni_random;

static inline uint64_t attni_random_bits(attni_random *random) {
    random->state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = random->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A generator of its own for each stream of a seed. */
static inline attni_random attni_random_stream(uint64_t seed, uint64_t stream) {
    attni_random seeds = {seed};
    attni_random_bits(&seeds);
    seeds.state ^= stream * UINT64_C(0xD1342543DE82EF95);
    return (attni_random){attni_random_bits(&seeds)};
}

/* Uniform in (0, 1): 52 bits, at the middle of their interval, which a double holds exactly. */
static inline double attni_random_unit(attni_random *random) {
    return ((double)(attni_random_bits(random) >> 12) + 0.5) * 0x1p-52;
}

/* Uniform in (-1, 1). */
static inline double attni_random_symmetric(attni_random *random) {
    return 2 * attni_random_unit(random) - 1;
}

/* Standard normal, by Box and Muller's transform. */
static inline double attni_random_normal(attni_random *random) {
    const double radius = sqrt(-2 * log(attni_random_unit(random)));
    return radius * cos(6.283185307179586 * attni_random_unit(random));
}

#endif
