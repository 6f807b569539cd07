/* SPDX-License-Identifier: BSD-3-Clause
 *
 * batch_visibility.c: reads the options that differ from batch to batch.
 */
#include "problem/batch_visibility.h"

#include "base/checked_size.h"
#include "tensor/element.h"

/* An option of indices with the batch axes; `absent` if it was not given. */
static int64_t batch_option(const attni_sdpa_problem *problem, const attni_operand *operand,
                            int64_t batch, int64_t absent) {
    return operand->is_present
               ? attni_read_index(operand->data,
                                  attni_offset_of(batch, problem->batch_rank, problem->batch_shape,
                                                  operand->strides),
                                  operand->dtype)
               : absent;
}

/* Lengths were checked, but another thread may have written them since: a wrong number of keys is
 * its own affair, keys that are not there would be everybody's. */
attni_visibility attni_batch_visibility(const attni_sdpa_problem *problem, int64_t batch) {
    const int64_t length = batch_option(problem, &problem->key_lengths, batch, problem->src_len);
    const int64_t key_length = attni_clamp(length, 0, problem->src_len);
    const int64_t first_position = problem->aligns_end ? key_length - problem->tgt_len : 0;
    return (attni_visibility){
        .is_causal = problem->is_causal,
        .window_left = problem->window_left,
        .window_right = problem->window_right,
        .query_offset = batch_option(problem, &problem->query_offset, batch, first_position),
        .key_length = key_length,
    };
}
