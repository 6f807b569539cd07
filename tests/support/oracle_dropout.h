/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_dropout.h: the text of attn_dropout in attention/sdpa.h, one weight at a time.
 */
#ifndef ATTENTION_TESTS_ORACLE_DROPOUT_H
#define ATTENTION_TESTS_ORACLE_DROPOUT_H

#include <stdint.h>

#include <attention/sdpa.h>

/* The four words of a counter and a key. */
void oracle_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]);

/* What a weight is multiplied with: 0, or 1 / (1 - probability). Without the origin, which is
 * added here. */
double oracle_dropout_factor(const attn_dropout *dropout, int64_t batch, int64_t head, int64_t row,
                             int64_t column);

#endif
