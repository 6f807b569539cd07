/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random.c: the generator behind every test that draws its data.
 */
#include "support/random.h"

random_state random_seeded(uint64_t seed) {
    random_state random = {seed};
    random.state = random_bits(&random);
    return random;
}

uint64_t random_bits(random_state *random) {
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t bits = random->state;
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    return bits ^ (bits >> 31);
}

int64_t random_between(random_state *random, int64_t lowest, int64_t highest) {
    const uint64_t choices = (uint64_t)(highest - lowest) + 1;
    return lowest + (int64_t)(random_bits(random) % choices);
}

double random_real(random_state *random, double lowest, double highest) {
    const double fraction = (double)(random_bits(random) >> 11) * 0x1p-53;
    return lowest + fraction * (highest - lowest);
}
