/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_bound.h: how large rounding errors may be, from the sizes and magnitudes of a call.
 *
 * Let u be 2^-24 (float32) or 2^-53 (float64), E and S the lengths of the two sums of attention, s
 * at least any |score| and v at least any |value|. Then, as sdpa.h promises,
 *
 *     |error of the output| <= 8 (E + S + 16) u (1 + s) v
 *
 * Multi-head attention adds the sums of the projections, with their lengths in the first factor and
 * magnitudes carried through the absolute values of the weights; w is at least any element of
 * |out_proj.weight| |context| + |out_proj.bias|:
 *
 *     |error of the weights| <= 8 (qdim + kdim + D + T + 16) u (1 + s)
 *     |error of the output|  <= 8 (qdim + kdim + vdim + D + T + H Dv + 16) u (1 + s) w
 *
 * For gradients, as backward.h promises, let r be at least any sum |dO| times any |value|, w a weight,
 * and R the rows of the call that add to one element of a gradient, through all heads and batches
 * that repeat. Weights of a row sum to 1, and no weight exceeds 1, so that with T = E + S + Ev + R
 *
 *     |error of a score's gradient| <= 8 (T + 16) u (1 + s) 2 r w
 *     |error of dQ|    <= 8 (T + 16) u (1 + s) 2 r scale |key|
 *     |error of dK|    <= 8 (T + 16) u (1 + s) 2 r R scale |query|
 *     |error of dV|    <= 8 (T + 16) u (1 + s) R |dO|
 *     |error of dmask| <= 8 (T + 16) u (1 + s) 2 r R
 *
 * A float64 result is compared with values computed in float64 as well, so there the bound counts
 * twice.
 */
#ifndef GOLDEN_BOUND_H
#define GOLDEN_BOUND_H

#include <stdint.h>

#include <attention/attention.h>

/* Largest |element| of a view, infinite ones left out; 0 if it is empty. */
double golden_magnitude(const attn_tensor *view);

/* Largest Euclidean norm of a row (last axis). */
double golden_row_norm(const attn_tensor *view);

/* Largest sum of the magnitudes of a row (last axis). */
double golden_row_sum(const attn_tensor *view);

/* Largest element of |x| |weight|^T + |bias|: x (..., in), weight (out, in), bias (out) or NULL. */
double golden_projected_magnitude(const attn_tensor *x, const attn_tensor *weight,
                                  const attn_tensor *bias);

/* 8 * terms * u * (1 + score) * magnitude, twice that for float64. */
double golden_rounding_bound(int32_t dtype, int64_t terms, double score, double magnitude);

#endif
