/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_dropout.c: Philox by its definition, with 64-bit products.
 */
#include "support/oracle_dropout.h"

#include <math.h>

void oracle_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    for (uint32_t round = 0; round < 10; ++round) {
        const uint64_t a = (uint64_t)c[0] * 0xD2511F53U, b = (uint64_t)c[2] * 0xCD9E8D57U;
        const uint32_t next[4] = {
            (uint32_t)(b >> 32) ^ c[1] ^ (key[0] + round * 0x9E3779B9U), (uint32_t)b,
            (uint32_t)(a >> 32) ^ c[3] ^ (key[1] + round * 0xBB67AE85U), (uint32_t)a};
        for (int i = 0; i < 4; ++i) {
            c[i] = next[i];
        }
    }
    for (int i = 0; i < 4; ++i) {
        words[i] = c[i];
    }
}

static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

double oracle_dropout_factor(const attn_dropout *dropout, int64_t batch, int64_t head, int64_t row,
                             int64_t column) {
    const uint64_t key = dropout->seed ^ mixed(dropout->offset);
    const uint64_t b = (uint64_t)(batch + dropout->batch);
    const int64_t j = column + dropout->column;
    const uint32_t counter[4] = {(uint32_t)(j / 4), (uint32_t)(row + dropout->row),
                                 (uint32_t)(head + dropout->head) + ((uint32_t)(b & 0xffff) << 16),
                                 (uint32_t)(b >> 16)};
    const uint32_t keys[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    uint32_t words[4];
    oracle_philox(counter, keys, words);
    const double threshold = fmin(floor(dropout->probability * 4294967296.0 + 0.5), 4294967295.0);
    return words[j % 4] >= threshold ? 1 / (1 - dropout->probability) : 0;
}
