/* SPDX-License-Identifier: BSD-3-Clause
 *
 * half_numbers.h: the numbers of 16 bits by their definition: sign, exponent, mantissa. A type's
 * numbers grow with their bits, which count the steps from 0.
 */
#ifndef ATTENTION_TESTS_HALF_NUMBERS_H
#define ATTENTION_TESTS_HALF_NUMBERS_H

#include <stdint.h>

#include <attention/tensor.h>

/* The number that bits of ATTN_DTYPE_BFLOAT16 or ATTN_DTYPE_FLOAT16 stand for. */
double half_number(int32_t dtype, uint16_t bits);

/* The bits of the nearest number, the even ones of two that are as near; of infinity from half a
 * step beyond the largest number on; of a NaN for NaN. */
uint16_t half_nearest(int32_t dtype, double number);

/* Whether a dtype is one of the two. */
int half_is(int32_t dtype);

/* The largest number of a floating-point type. */
double largest_of_dtype(int32_t dtype);

/* Half of a step between neighbours of the type at `number`: what storing it may change. */
double half_step(int32_t dtype, double number);

#endif
