/* SPDX-License-Identifier: BSD-3-Clause
 *
 * compare.h: how far a result may be from the exact one, and the comparison of whole tensors.
 *
 * THE ERROR BOUND. It is derived, term by term, from the arithmetic that any reasonable
 * implementation does in its element type with unit roundoff u (2^-24 or 2^-53), not tuned to an
 * observed error. Every constant below counts roundings.
 *
 *   dot product    n products and n - 1 additions in any order, fused or not, are off by at most
 *                  n u sum |x||y|. Two more roundings for a scale (of 1/sqrt(E), of the product)
 *                  and two for a change of base of the exponential make it n + 4. Inputs that
 *                  carry errors ex, ey add sum (|x| + ex)(|y| + ey) - |x||y|.
 *   softcap        c tanh(s / c) never magnifies an error. Its own: u |s| for the quotient, since
 *                  the slope is at most 1, and 8 u |result| for tanh (four units in the last
 *                  place, each up to 2 u) and the product.
 *   ALiBi, bias,   at most three additions and a product, one more with a bias:
 *   masks          3 u (|score| + |slope (p - j)| + |masks|), with a bias
 *                  4 u (|score| + |slope (p - j)| + |bias| + |masks|). A sum of finite numbers
 *                  that exceeds the largest one is that.
 *   softmax        The difference to the row's maximum m is rounded: u |score - m|. Let d_j be
 *                  the error of score j so far. Then weight j lies between
 *                  exp(s_j - d_j) / sum_k exp(s_k + d_k) and exp(s_j + d_j) / sum_k exp(s_k - d_k),
 *                  an interval that stays meaningful where d_j is large: a key masked by -1e30
 *                  has a huge d_j and weighs 0 all the same. To it come (T + 8) u relative:
 *                  T additions of positive numbers, four units for exp, and the division. What
 *                  is below the smallest normal number may become 0.
 *   lse            the same interval of the sum, (T + 8) u, and 4 u (|m| + |lse|) for the
 *                  logarithm and the last addition.
 *   sigmoid        Its relative slope is at most 1, so the weight grows at most by the factor
 *                  exp(d_j), and never above 1; 8 u relative.
 *   linear         the weight is the score; u |score| more for storing it.
 *   weights * v    sum of (|w| + ew)(|v| + ev) - |w||v|, and (T + 4) u sum (|w| + ew)(|v| + ev)
 *                  for the product.
 *   mean of heads  mean of the errors and (H + 2) u mean (|w| + ew).
 *   projection     a dot product with one term more for the bias. In multi-head attention the
 *                  errors of the projected query, key and value are inputs to the scores, those
 *                  of the context to the output projection.
 *
 *   storing        a result of 16 bits is rounded once, at the end: half a step between neighbours
 *                  of the type, at the largest size that the errors before it allow. What may lie
 *                  half a step beyond the type's largest number may be infinite.
 *
 * The oracle computes in float64 with errors of the very same form, so u stands for the tested
 * type's roundoff plus 2^-53. Nothing is allowed where nothing is rounded: hidden weights, empty
 * rows and S = 0 must be exactly 0 (lse -inf). Rounding errors mostly cancel, so results use some
 * percent of the bound; compare_stats records how much.
 *
 * Three things the headers leave open are not compared, only counted:
 *   - a row that hides a key or value by a dense mask alone, which is not finite (see sdpa.h);
 *   - hidden positions of a row of weights that is NaN: "hidden positions get 0" or "its row NaN";
 *   - an output where a visible value that is not finite has a weight that may be computed as 0,
 *     since a matrix product may skip 0 * NaN.
 */
#ifndef ATTENTION_TESTS_COMPARE_H
#define ATTENTION_TESTS_COMPARE_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "support/oracle_tensor.h"

typedef struct bound_rounding {
    double unit;     /* roundoff of the tested type and of the oracle together */
    double smallest; /* smallest normal number of the tested type */
    double largest;  /* largest number of the tested type */
} bound_rounding;

/* For what is computed from a query of this type: 16 bits are computed with in float32. */
bound_rounding bound_rounding_of(int32_t dtype);

/* |x|, |y| with errors: what the errors of the factors do to their product. */
double bound_product(double x, double x_error, double y, double y_error);

/* `magnitude` is the sum of the absolute products, errors of the factors included. */
double bound_dot(bound_rounding rounding, int64_t terms, double magnitude);

double bound_softcap(bound_rounding rounding, double score_error, double score, double capped);
double bound_added(bound_rounding rounding, int additions, double magnitude);

/* x + y; where both are finite and their sum exceeds `largest`, that with its sign. */
double finite_sum(double x, double y, double largest);
double bound_sigmoid(bound_rounding rounding, double weight, double score_error);

/*
 * One row of a softmax: `count` positions (a sink is one of them), the logarithms of their exact
 * weights (-inf: weight 0), the errors of their scores, the difference to the maximum included.
 * Writes the errors of the weights; returns that of the lse but for bound_logarithm.
 */
double bound_softmax_row(bound_rounding rounding, int64_t count, const double *log_weight,
                         const double *score_error, double *weight_error);
double bound_logarithm(bound_rounding rounding, double maximum, double lse);

/* What comparisons have seen. */
typedef struct compare_stats {
    double
        largest_ratio; /* largest error / bound where the bound is neither an underflow nor loose */
    int64_t num_elements;
    int64_t num_not_finite; /* of these, NaN or infinite as they had to be */
    int64_t num_loose;      /* of these, with a bound above a hundredth of 1 + |expected| */
    int64_t num_open;       /* of these, left open by the headers and not compared */
} compare_stats;

/*
 * Compares every element of `actual` with the expected values, given in the C order of actual's
 * shape. Where the expected value is NaN the actual one must be; where it is infinite it must be
 * the same; what the headers leave open is only counted. Returns 0, or 1 with one line in `message`
 * that names the first bad element: index, expected, bound, actual.
 */
int compare_tensor(const char *name, const attn_tensor *actual, const oracle_array *expected,
                   compare_stats *stats, char *message, size_t message_bytes);

/* The same for two tensors of one shape and type, whose elements must have the same bits. */
int compare_same_bits(const char *name, const attn_tensor *actual, const attn_tensor *expected,
                      char *message, size_t message_bytes);

#endif
