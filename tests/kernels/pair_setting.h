/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair_setting.h: what the tests of pair kernels add to panels: the sets that have them, pairs of
 * bfloat16 as memory holds them, and how far their sums may be off.
 */
#ifndef TESTS_KERNELS_PAIR_SETTING_H
#define TESTS_KERNELS_PAIR_SETTING_H

#include <stdbool.h>
#include <stdint.h>

#include "panel_setting.h"

/* Runs a check with every number of vectors and placement of every set that multiplies pairs; the
 * setting's storage is bfloat16. Without such a set it says so and skips the test. */
void for_every_pair_panel(panel_check check);

/* `count` pairs of the engine's own memory, which are NaN. */
uint32_t *place_own_pairs(panel_setting *setting, int64_t count);

/* The bits of element i at any alignment. */
uint16_t get_half(const void *from, int64_t i);
void set_half(void *to, int64_t i, uint16_t half);

/* A number as a bfloat16 holds it, and the numbers of a pair: 0 is the first, in the lower half. */
uint16_t half_of(double number);
uint32_t pair_of_halves(uint16_t first, uint16_t second);
uint16_t half_of_pair(uint32_t pair, int64_t which);
double number_of_pair(uint32_t pair, int64_t which);

/* A pair of whole numbers of up to 8, whose products and sums need no rounding, or of any in
 * [-2, 2). */
uint32_t random_pair(panel_setting *setting, bool is_whole);

/* Any 32 bits. */
uint32_t random_word(panel_setting *setting);

/* Fails the test unless two pairs have the same bits. */
void assert_same_pair(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                      uint32_t actual, uint32_t expected);

/*
 * The error of a sum of num_pairs pairs of products of this magnitude, begun with a product and
 * multiplied with a number of up to 1. Products of two bfloat16 are exact. A pair takes two
 * roundings to nearest, or, with the instruction of ARM, that of its own sum to odd, which is off
 * by as much as two of them, and such a one of the sum so far: 2 num_pairs + 2 at most on the way
 * of any term. The two other products take one each, and what roundings do to one another less
 * than one. What is subnormal counts as 0: a product, a pair's sum or a sum.
 */
double pair_sum_bound(int64_t num_pairs, double magnitude);

/* Whether subnormal numbers must count as 0. The formula that stands for the instruction in tests
 * leaves that to the processor. */
bool drops_subnormals(const panel_setting *setting);

#endif
