/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_products.h: the gradients of projections, dx = dy W, dW = dy^T x and db = sum of dy's rows.
 *
 * A row of x whose row of dy is 0 throughout is in no sum, whatever it holds: positions that nobody
 * sees may be NaN, and 0 times that would be, too.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_PRODUCTS_H
#define ATTNI_LAYER_GRADIENTS_LAYER_PRODUCTS_H

#include "layer_gradients/layer_problem.h"

/* Plans a product whose tensors are set, and adds the scratch memory it needs to that of a step. */
void attni_layer_product_plan(const attn_context *context, const attni_layer_problem *problem,
                              int32_t projection, attni_layer_product *product, attni_layout *step);

/* Whether the context's threads will share the work. */
bool attni_layer_products_want_threads(const attni_layer_product *products, int32_t count);

/* Computes projections [first, first + count) of a plan whose addresses are complete. */
attn_status attni_layer_products_run(attn_context *context, const attni_layer_problem *problem,
                                     attni_layer_plan *plan, int32_t first, int32_t count,
                                     char *scratch);

#endif
