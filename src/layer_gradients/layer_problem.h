/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer_problem.h: the gradients of one call of a layer in canonical form, and how they are
 * computed. Data and nothing else.
 */
#ifndef ATTNI_LAYER_GRADIENTS_LAYER_PROBLEM_H
#define ATTNI_LAYER_GRADIENTS_LAYER_PROBLEM_H

#include <attention/multihead_backward.h>

#include "gradients/gradients_plan.h"
#include "multihead/mha_layer.h"

/* Projections, and of them those of inputs; each has a gradient of its rows. */
enum { ATTNI_OF_CONTEXT = ATTNI_NUM_SUMMED };

/* A checked call. Tensors that are not wanted have rank 0. */
typedef struct attni_layer_problem {
    attni_mha_problem call; /* whose output is the gradient of the output */
    attn_mha_gradients given;
    attn_sdpa_gradients attention; /* as given; all NULL if nothing was */
    bool accumulates;
    attn_tensor inputs[ATTNI_NUM_SUMMED]; /* (N, rows, features) */
    attn_tensor slots[ATTNI_NUM_SLOTS];   /* in the slots' own shapes */
    attn_tensor mask;                     /* as the attention inside sees it */

    bool wants_heads[ATTNI_NUM_SUMMED]; /* gradients of what is projected */
    bool wants_extra[2];                /* of bias_k and bias_v */
    bool wants_attention;
} attni_layer_problem;

/* The gradients of one projection y = x W^T + b: dx = dy W, dW = dy^T x, db = sum of dy's rows. Of
 * tensors of the pass's own the addresses are known when it runs. */
typedef struct attni_layer_product {
    attn_tensor rows;          /* x: (N, rows, in) */
    attn_tensor gradient;      /* dy: (N, rows, out) */
    attn_tensor rows_gradient; /* dx; rank 0: not wanted */
    attn_tensor weight;        /* dW: (out, in), likewise */
    attn_tensor bias;          /* db: (out), likewise */
    attni_gemm_call to_rows;
    attni_gemm_call to_weight;
    bool adds_to_rows; /* dx is the caller's, and added to what is there */
    bool copies_gradient;
    /* What is rounded, or added to what is there, is summed elsewhere first: a sum that began with
     * what is there would lose its small terms beside it, one by one. */
    bool has_rows_apart, has_weight_apart;

    /* In the scratch memory of the step: */
    size_t gradient_offset; /* dy as one matrix of the score type */
    size_t turned_offset;   /* W as products with dy read it */
    size_t kept_offset;     /* a byte for each row of x: whether it is in any sum */
    size_t packed_offset;   /* x as products with dy read it */
    size_t results_offset;  /* dx, if it is apart */
    size_t sums_offset;     /* dW likewise */
    size_t rows_scratch_offset;
    size_t weight_scratch_offset;
} attni_layer_product;

/* Depends on shapes, strides, options and the context. */
typedef struct attni_layer_plan {
    attni_mha_plan call; /* heads and positions; its layout is the beginning of this one's */
    attn_tensor heads[ATTNI_NUM_PROJECTIONS]; /* gradients of query, key, value, context */
    size_t heads_offset[ATTNI_NUM_PROJECTIONS];
    attn_tensor extra[2]; /* of the extra keys and values */
    size_t extra_offset[2];
    size_t norm_sums_offset[2]; /* of queries and keys: double */
    size_t shared_offset;       /* of the steps, one after the other */
    attni_layer_product products[ATTNI_NUM_PROJECTIONS];

    attni_gradients_problem attention;
    attni_gradients_plan attention_plan;
    attni_gradients_problem extra_attention;
    attni_gradients_plan extra_plan;
    size_t extra_attention_offset; /* in the scratch memory of the step */
    bool wants_threads;
    attni_layout layout;
} attni_layer_plan;

#endif
