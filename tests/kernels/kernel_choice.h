/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kernel_choice.h: the kernels under test one after the other, and numbers of their element type.
 */
#ifndef TESTS_KERNELS_KERNEL_CHOICE_H
#define TESTS_KERNELS_KERNEL_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernel_select.h"
#include "support/random.h"

/* One set for one element type. */
typedef struct kernel_choice {
    const char *name;
    int32_t dtype;
    const attni_row_kernels *kernels;
    const attni_product_kernels *product;
    const attni_gradient_kernels *gradient;
} kernel_choice;

/* Choice `index`, counted from 0, of all sets this CPU runs and both element types; false past the
 * last. */
bool choose_kernels(int index, kernel_choice *choice);

/* "avx2 float32", for messages; static memory. */
const char *choice_text(const kernel_choice *choice);

/* ---- numbers of an element type; they travel as double ---- */

int64_t real_bytes(int32_t dtype);

/* `value` rounded to the type. */
double rounded_to(int32_t dtype, double value);

/* Element i of a row at any alignment. */
double row_get(const char *row, int64_t i, int32_t dtype);
void row_set(char *row, int64_t i, int32_t dtype, double value);

/* The smallest normal number, and the unit roundoff (2^-24 or 2^-53). */
double smallest_normal(int32_t dtype);
double unit_roundoff(int32_t dtype);

/* |actual - exact| in units in the last place of `exact` in the type. */
double error_in_ulp(int32_t dtype, double actual, long double exact);

/* Same number, sign of zero included; NaN is the same as any NaN. */
bool is_same_number(double a, double b);

/* Mostly numbers of everyday size; else NaN, infinities, zeroes, the smallest and the largest
 * numbers, all of the type. */
double random_number(random_state *random, int32_t dtype);

/* The lengths that matter to any vector width and block size up to 1025: 0 to 66, then around 128,
 * 256, 512 and 1024; -1 past the last. */
int64_t row_length(int index);

#endif
