/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_starts.c: a forward call whose rows are those of sequences of different lengths, one behind
 * the other. Projections and norms take them as one batch, since a row's results are its own.
 */
#include "base/checked_size.h"
#include "multihead/mha_layer.h"
#include "problem/key_source.h"
#include "problem/sequence_check.h"
#include "tensor/element.h"

static const char name[] = "attention.query_starts";

attn_status attni_mha_check_starts(attni_mha_problem *problem) {
    problem->has_sequences = problem->is_batched || problem->has_starts;
    problem->num_sequences = problem->batch;
    if (!problem->has_starts) {
        return ATTN_OK;
    }
    const attn_tensor *starts = problem->attention.query_starts;
    attni_input_views inputs;
    attni_start_inputs(&inputs);
    ATTNI_TRY(attni_take_starts(name, starts, problem->data_rule, &problem->query_starts, &inputs,
                                ATTNI_QUERY_PLACES));
    problem->num_sequences = starts->shape[0] - 1;
    return problem->data_rule == ATTNI_DATA_REQUIRED
               ? attni_check_starts(name, &problem->query_starts, problem->num_sequences,
                                    problem->tgt_len)
               : ATTN_OK;
}

attni_interval attni_mha_rows_of(const attni_mha_problem *problem, int64_t sequence, int64_t rows) {
    return problem->has_starts ? attni_rows_between(&problem->query_starts, sequence, rows)
                               : (attni_interval){0, rows};
}

attni_interval attni_mha_all_rows(const attni_mha_problem *problem) {
    const attni_operand *starts = &problem->query_starts;
    const int64_t total = problem->tgt_len;
    if (!problem->has_starts) {
        return (attni_interval){0, total};
    }
    const int64_t last = problem->num_sequences * starts->strides[0];
    const int64_t begin = attni_read_index(starts->data, 0, starts->dtype);
    const int64_t end = attni_read_index(starts->data, last, starts->dtype);
    attni_interval rows = {attni_clamp(begin, 0, total), 0};
    rows.end = attni_clamp(end, rows.begin, total);
    return rows;
}
