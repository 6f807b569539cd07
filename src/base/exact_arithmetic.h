/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exact_arithmetic.h: refuses to be compiled with arithmetic that only looks like IEEE 754's. Masks
 * are -infinity, empty rows and NaN are told by comparison, and every bound of the headers counts
 * roundings. The build includes it before every source.
 */
#ifndef ATTNI_BASE_EXACT_ARITHMETIC_H
#define ATTNI_BASE_EXACT_ARITHMETIC_H

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error \
    "libattention computes wrong numbers with -ffast-math, -Ofast and the like: compile it with -fno-fast-math"
#endif

#endif
