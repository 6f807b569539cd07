/* SPDX-License-Identifier: BSD-3-Clause
 *
 * described_outputs.h: what attn_sdpa_describe_outputs and attn_mha_describe_outputs must say of
 * the outputs of a call, from the tensors that the call is given.
 */
#ifndef ATTENTION_TESTS_DESCRIBED_OUTPUTS_H
#define ATTENTION_TESTS_DESCRIBED_OUTPUTS_H

#include <attention/tensor.h>

#include "call_run.h"

/* What a describing function filled in. */
typedef struct described_outputs {
    attn_tensor output, lse, weights, averaged_weights, scores;
} described_outputs;

/* The sizes of the attention. */
typedef struct described_sizes {
    int32_t dtype, score_dtype; /* of query and of its scores */
    int32_t lead_rank;          /* axes before the rows: batch axes and, last, the heads */
    int64_t lead[ATTN_MAX_RANK];
    int64_t rows, columns; /* of the weights */
    int has_lse;           /* the normalizer has one */
} described_sizes;

/*
 * 1, with the outcome's message, unless the output has query's dtype and `output`'s shape, the
 * weights are (lead..., rows, columns), with heads and as their mean, scores are the same with heads
 * and of the score type, and lse is (lead..., rows) of the score type, or zeros where the normalizer has none; each contiguous and without data.
 */
int described_wrongly(const described_outputs *described, const attn_tensor *output,
                      const described_sizes *sizes, call_outcome *outcome);

#endif
