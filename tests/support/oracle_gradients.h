/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle_gradients.h: the text of attention/backward.h in float64, on the plain arrays of
 * oracle_attention.h.
 *
 * THE ERROR BOUND goes on from that of compare.h, with P, d_j and u as there and e_x the error of x:
 *
 *   weights        softmax: exp(s_j - lse) from scores that are off by d_j and an lse that is off by
 *                  its own bound: between exp(s_j - lse -+ (d_j + e_lse + u (|s_j| + |lse|))), and 8
 *                  u relative for exp. Others: as the forward pass has them.
 *   dP             a dot product of Ev terms, one addition more beside a gradient of weights.
 *   their mean     a dot product of dO and the output as it was stored, or of P and a gradient of
 *                  weights; two additions, and it is rounded to the row's type.
 *   dS             3 roundings; products of errors by bound_product.
 *   softcap        1 - (c / cap)^2 from a c that is off by its bound; 4 u.
 *   dQ, dK, dV     dot products of as many terms as there are keys, or rows.
 */
#ifndef ATTENTION_TESTS_ORACLE_GRADIENTS_H
#define ATTENTION_TESTS_ORACLE_GRADIENTS_H

#include "support/oracle_attention.h"

/* What a backward pass is given, in float64. */
typedef struct oracle_given {
    const double *output;       /* (B, H, L, Ev) */
    const double *output_error; /* likewise, or NULL: 0 */
    const double *lse;          /* (B, H, L), or NULL: 0 */
    const double *weights;      /* (B, H, L, T), or NULL: 0 */
    double output_unit;         /* how far the call's output was rounded where it was stored, */
    double output_step;         /* and however small it was */
} oracle_given;

typedef struct oracle_gradients {
    oracle_array query;  /* (B, H, L, E) */
    oracle_array key;    /* (B, H, T, E) */
    oracle_array value;  /* (B, H, T, Ev) */
    oracle_array scores; /* (B, H, L, T): of what is added to a score behind softcap */
    oracle_array sinks;  /* (B, H, L): what a row adds to its head's; without sinks 0 */
} oracle_gradients;

oracle_gradients oracle_attention_gradients(const oracle_problem *problem,
                                            const oracle_given *given);
void oracle_gradients_destroy(oracle_gradients *gradients);

#endif
