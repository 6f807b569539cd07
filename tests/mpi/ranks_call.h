/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_call.h: a small call over many ranks, which a test may change before it is made.
 */
#ifndef TESTS_MPI_RANKS_CALL_H
#define TESTS_MPI_RANKS_CALL_H

#include "ranks_program.h"

enum { HEADS = 4, ROWS = 8, KEYS = 8, FEATURES = 4, ELEMENTS = HEADS * ROWS * FEATURES };

/* A call with the tensors of its backward pass. */
typedef struct ranks_call {
    float query[ELEMENTS], key[ELEMENTS], value[ELEMENTS], output[ELEMENTS], lse[HEADS * ROWS];
    float output_gradient[ELEMENTS], query_gradient[ELEMENTS], key_gradient[ELEMENTS];
    float value_gradient[ELEMENTS];
    attn_tensor query_view, key_view, value_view, output_view, lse_view;
    attn_tensor output_gradient_view, query_gradient_view, key_gradient_view, value_gradient_view;
    attn_sdpa_gradients gradients; /* of query, key and value */
    attn_sdpa_params params;
    attn_mpi_params mpi_params;
} ranks_call;

/* All ranks have the same numbers, and what is written holds 77. */
void ranks_call_prepare(ranks_call *made, int32_t scheme);

attn_status ranks_call_run(ranks_call *made, attn_context *context, MPI_Comm comm);
attn_status ranks_call_explain(ranks_call *made, attn_mpi_report *report);
void ranks_call_assert_untouched(const ranks_call *made);

/* Runs forward with lse, so that a backward pass may follow. */
void ranks_call_prepare_backward(ranks_call *made, int32_t scheme, attn_context *context);
attn_status ranks_call_run_backward(ranks_call *made, attn_context *context, MPI_Comm comm);
attn_status ranks_call_explain_backward(ranks_call *made, attn_mpi_report *report);
void ranks_call_assert_gradients_untouched(const ranks_call *made);

/* A context of one thread. */
attn_context *ranks_one_thread(void);

#endif
