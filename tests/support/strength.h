/* SPDX-License-Identifier: BSD-3-Clause
 *
 * strength.h: how much of the product of their options tests run. ATTENTION_TEST_STRENGTH says it:
 * builds that slow every call down many times, with counters, sanitizers or an emulator, run each
 * setting, and others which settings together give wrong numbers.
 */
#ifndef ATTENTION_TESTS_STRENGTH_H
#define ATTENTION_TESTS_STRENGTH_H

#include <stdlib.h>
#include <string.h>

/* 2: every two settings of two options meet in a call. 1: every setting is in a few calls. */
static inline int test_strength(void) {
    const char *text = getenv("ATTENTION_TEST_STRENGTH");
    return text != NULL && strcmp(text, "1") == 0 ? 1 : 2;
}

/* How often a test does what it draws at random: most times, at strength 1 a fifth of that. */
static inline int test_repeats(int most) {
    return test_strength() == 1 ? (most + 4) / 5 : most;
}

#endif
