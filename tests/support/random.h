/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random.h: numbers that look random and are the same on every machine for the same seed
 * (splitmix64).
 */
#ifndef ATTENTION_TESTS_RANDOM_H
#define ATTENTION_TESTS_RANDOM_H

#include <stdint.h>

typedef struct random_state {
    uint64_t state;
} random_state;

/* Any seed is good; neighbouring seeds give unrelated sequences. */
random_state random_seeded(uint64_t seed);

uint64_t random_bits(random_state *random);

/* Uniform among lowest, ..., highest (both included). */
int64_t random_between(random_state *random, int64_t lowest, int64_t highest);

/* Uniform in [lowest, highest). */
double random_real(random_state *random, double lowest, double highest);

#endif
