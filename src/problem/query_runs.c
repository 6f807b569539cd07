/* SPDX-License-Identifier: BSD-3-Clause
 *
 * query_runs.c: calls with as many query rows for each of their sequences.
 */
#include "problem/query_runs.h"

#include "problem/batch_sequence.h"
#include "tensor/element.h"

enum { ROW_AXIS = 2 }; /* of (batch, head, row, column) */

attni_query_runs attni_query_runs_of(const attni_sdpa_problem *problem) {
    return (attni_query_runs){.problem = problem};
}

/* Moves an operand to its sequence `first`. */
static void move_batches(attni_operand *operand, int64_t first) {
    if (operand->is_present) {
        operand->data =
            attni_advance(operand->data, first * operand->strides[0] * operand->element_bytes);
    }
}

/* Gives an operand of rows of all sequences a batch axis: as many rows each, from the first one's
 * on. Axis 0 is that of batches, row_axis that of rows. */
static void cut_rows(char **data, int64_t *strides, int32_t row_axis, int64_t element_bytes,
                     attni_interval rows) {
    *data = attni_advance(*data, rows.begin * strides[row_axis] * element_bytes);
    strides[0] = (rows.end - rows.begin) * strides[row_axis];
}

static void cut_operand(attni_operand *operand, int32_t row_axis, attni_interval rows) {
    if (operand->is_present) {
        cut_rows(&operand->data, operand->strides, row_axis, operand->element_bytes, rows);
    }
}

/* Keys' padding has batches and no rows; every other mask lies as the rows do. */
static void cut_mask(attni_mask *mask, bool is_of_keys, int64_t first, attni_interval rows) {
    const int64_t element_bytes = (int64_t)attn_dtype_size_bytes(mask->dtype);
    char *data = (char *)(uintptr_t)mask->data;
    if (is_of_keys) {
        data = attni_advance(data, first * mask->strides[0] * element_bytes);
    } else {
        cut_rows(&data, mask->strides, ROW_AXIS, element_bytes, rows);
    }
    mask->data = data;
}

attni_sdpa_problem attni_run_of(const attni_sdpa_problem *problem, int64_t first, int64_t sequences,
                                attni_interval rows_of_first) {
    attni_sdpa_problem run = *problem;
    run.query_starts.is_present = false;
    run.num_batches = sequences;
    run.batch_shape[0] = sequences;
    run.tgt_len = rows_of_first.end - rows_of_first.begin;
    run.first_batch = first;
    attni_operand *const of_rows[] = {&run.query, &run.output, &run.lse, &run.weights, &run.scores};
    for (int32_t i = 0; i < 5; ++i) {
        cut_operand(of_rows[i], ROW_AXIS, rows_of_first);
    }
    for (int32_t i = 0; i < ATTNI_MAX_MASKS; ++i) {
        if (run.masks[i].kind != ATTN_MASK_NONE) {
            cut_mask(&run.masks[i], i == ATTNI_KEY_PADDING_MASK, first, rows_of_first);
        }
    }
    attni_operand *const of_batches[] = {&run.key,         &run.value,      &run.query_offset,
                                         &run.key_lengths, &run.mask_start, &run.key_starts,
                                         &run.pages.starts};
    for (int32_t i = 0; i < 7; ++i) {
        move_batches(of_batches[i], first);
    }
    if (run.blocks.block_columns > 0) {
        run.blocks.data += first * run.blocks.strides[0];
    }
    if (!run.pages.starts.is_present) {
        move_batches(&run.pages.table, first);
    }
    return run;
}

static bool is_as_long(attni_interval rows, attni_interval next) {
    return next.begin == rows.end && next.end - next.begin == rows.end - rows.begin;
}

bool attni_next_run(attni_query_runs *runs, attni_sdpa_problem *run) {
    const attni_sdpa_problem *problem = runs->problem;
    const attni_operand *starts = &problem->query_starts;
    runs->first = runs->next;
    if (!starts->is_present) {
        *run = *problem;
        runs->next = 1;
        return runs->first == 0;
    }
    /* One start for all: nobody has a row. */
    if (runs->first >= problem->num_batches || starts->strides[0] == 0) {
        return false;
    }
    const attni_interval first = attni_rows_between(starts, runs->first, problem->tgt_len);
    attni_interval last = first;
    for (++runs->next; runs->next < problem->num_batches; ++runs->next) {
        const attni_interval next = attni_rows_between(starts, runs->next, problem->tgt_len);
        if (!is_as_long(last, next)) {
            break;
        }
        last = next;
    }
    runs->rows_of_first = first;
    *run = attni_run_of(problem, runs->first, runs->next - runs->first, first);
    return true;
}
