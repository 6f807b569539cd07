/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_part.c: a part as a call of the core library. Positions become those among the part's keys by
 * a shift of query_offset, lengths and mask_start; masks are cut to the part.
 */
#include "mpi_part.h"

#include "mpi_copy.h"

/* Where p(row 0 of the whole) is read from: numbers (or NULL for 0) and what is added to them. */
typedef struct position_source {
    const attni_mpi_numbers *numbers;
    int64_t shift;
} position_source;

static position_source positions_of(const attni_mpi_call *call) {
    if (call->has_offsets) {
        return (position_source){&call->offsets, 0};
    }
    if (call->params.align_end == 0) {
        return (position_source){NULL, 0};
    }
    if (call->has_lengths) {
        return (position_source){&call->lengths, -call->num_rows};
    }
    return (position_source){NULL, call->num_keys - call->num_rows};
}

bool attni_mpi_part_is_visible(const attni_mpi_call *call, const attni_mpi_stretch *rows,
                               const attni_mpi_stretch *keys) {
    if (rows->count == 0 || keys->count == 0) {
        return false;
    }
    const attn_sdpa_params *const params = &call->params;
    const position_source source = positions_of(call);
    int64_t lowest = 0, highest = 0;
    if (source.numbers != NULL) {
        lowest = source.numbers->lowest;
        highest = source.numbers->highest;
    }
    lowest = attni_mpi_saturated_sum(lowest, source.shift + rows->first);
    highest = attni_mpi_saturated_sum(highest, source.shift + rows->first + rows->count - 1);
    const bool has_window = params->set & ATTN_SDPA_SET_WINDOW;
    if (params->is_causal && keys->first > highest) {
        return false;
    }
    if (has_window && params->window_right >= 0 &&
        keys->first > attni_mpi_saturated_sum(highest, params->window_right)) {
        return false;
    }
    if (has_window && params->window_left >= 0 &&
        keys->first + keys->count - 1 < attni_mpi_saturated_sum(lowest, -params->window_left)) {
        return false;
    }
    return !call->has_lengths || keys->first < call->lengths.highest;
}

const attn_tensor *attni_mpi_part_mask(const attn_tensor *mask, const attni_mpi_part *part,
                                       bool cuts_columns, attn_tensor *view) {
    if (mask == NULL) {
        return NULL;
    }
    *view = *mask;
    if (view->rank >= 2 && view->shape[view->rank - 2] != 1) {
        *view = attni_mpi_slice(view, -2, part->rows.local, part->rows.count);
    }
    if (cuts_columns && view->rank >= 1 && view->shape[view->rank - 1] != 1) {
        *view = attni_mpi_slice(view, -1, part->keys.first, part->keys.count);
    }
    return view;
}

static int64_t divide_up(int64_t count, int64_t size) {
    return count / size + (count % size != 0);
}

/* The blocks of a part, which begins where blocks do. */
static const attn_tensor *cut_blocks(const attn_sdpa_params *params, const attni_mpi_part *part,
                                     attn_tensor *view) {
    if (params->block_mask == NULL) {
        return NULL;
    }
    const attni_mpi_part in_blocks = {
        .rows = {.local = part->rows.local / params->block_rows,
                 .count = divide_up(part->rows.count, params->block_rows)},
        .keys = {.first = part->keys.first / params->block_columns,
                 .count = divide_up(part->keys.count, params->block_columns)}};
    return attni_mpi_part_mask(params->block_mask, &in_blocks, true, view);
}

/* Where weights of the part stand among those of the whole, which drops the same. */
static const attn_dropout *place_dropout(const attni_mpi_call *call, const attni_mpi_part *part,
                                         attn_dropout *dropout) {
    if (call->params.dropout == NULL) {
        return NULL;
    }
    *dropout = call->dropout;
    dropout->row = attni_mpi_saturated_sum(dropout->row, part->rows.first);
    dropout->column = attni_mpi_saturated_sum(dropout->column, part->keys.first);
    return dropout;
}

static int64_t *numbers_at(char *block, int64_t offset) {
    return block != NULL ? (int64_t *)(block + offset) : NULL;
}

static void describe_numbers(const attni_mpi_call *call, const attni_mpi_part *part,
                             const attni_mpi_part_scratch *scratch, char *block,
                             attni_mpi_part_call *described) {
    const position_source source = positions_of(call);
    const int64_t shift = source.shift + part->rows.first - part->keys.first;
    int64_t *const offsets = numbers_at(block, scratch->offsets_at);
    attn_sdpa_params *const params = &described->params;
    if (source.numbers != NULL) {
        described->offsets =
            attni_mpi_numbers_shifted(source.numbers, shift, INT64_MIN, INT64_MAX, offsets);
    } else {
        described->offsets = (attn_tensor){.data = offsets, .dtype = ATTN_DTYPE_INT64};
        if (offsets != NULL) {
            *offsets = shift;
        }
    }
    params->align_end = 0;
    params->query_offset = &described->offsets;
    if (call->has_lengths) {
        described->lengths =
            attni_mpi_numbers_shifted(&call->lengths, -part->keys.first, 0, part->keys.count,
                                      numbers_at(block, scratch->lengths_at));
        params->key_lengths = &described->lengths;
    }
    if (call->has_starts) {
        described->starts =
            attni_mpi_numbers_shifted(&call->starts, -part->keys.first, INT64_MIN, INT64_MAX,
                                      numbers_at(block, scratch->starts_at));
        params->mask_start = &described->starts;
    }
}

void attni_mpi_part_describe(const attni_mpi_call *call, const attni_mpi_part *part,
                             const attn_tensor *key, const attn_tensor *value,
                             const attni_mpi_part_scratch *scratch, char *block,
                             attni_mpi_part_call *described) {
    attn_sdpa_params *const params = &described->params;
    described->query = attni_mpi_slice(&call->query, -2, part->rows.local, part->rows.count);
    described->key = attni_mpi_slice(key, -2, part->keys.local, part->keys.count);
    described->value = attni_mpi_slice(value, -2, part->keys.local, part->keys.count);
    *params = call->params;
    params->mask = attni_mpi_part_mask(params->mask, part, !call->has_starts, &described->mask);
    params->bias = attni_mpi_part_mask(params->bias, part, true, &described->bias);
    params->block_mask = cut_blocks(&call->params, part, &described->blocks);
    params->dropout = place_dropout(call, part, &described->dropout);
    params->sinks = NULL;
    params->lse = NULL;
    describe_numbers(call, part, scratch, block, described);
}

attni_mpi_partial attni_mpi_partial_shape(const attni_mpi_call *call, int64_t rows, int32_t dtype) {
    attn_tensor output = call->output;
    output.shape[output.rank - 2] = rows;
    attn_tensor lse = output;
    lse.rank -= 1;
    return (attni_mpi_partial){attni_mpi_contiguous(&output, dtype, NULL),
                               attni_mpi_contiguous(&lse, call->score_dtype, NULL)};
}

attni_mpi_partial attni_mpi_partial_rows(const attni_mpi_partial *partial, int64_t first,
                                         int64_t count) {
    return (attni_mpi_partial){attni_mpi_slice(&partial->output, -2, first, count),
                               attni_mpi_slice(&partial->lse, -1, first, count)};
}

void attni_mpi_part_need(attni_mpi_part_scratch *scratch, size_t workspace_bytes) {
    if ((int64_t)workspace_bytes > scratch->workspace_bytes) {
        scratch->workspace_bytes = (int64_t)workspace_bytes;
    }
}

attn_status attni_mpi_part_plan(const attni_mpi_call *call, const attni_mpi_part *part,
                                const attn_tensor *key, const attn_tensor *value,
                                attni_mpi_part_scratch *scratch) {
    attni_mpi_part_call described;
    size_t bytes;
    attni_mpi_part_describe(call, part, key, value, scratch, NULL, &described);
    described.params.sinks = part->counts_sinks ? call->params.sinks : NULL;
    attni_mpi_partial result = attni_mpi_partial_shape(call, part->rows.count, call->score_dtype);
    if (call->is_softmax) {
        described.params.lse = &result.lse;
    }
    ATTNI_MPI_TRY(attn_sdpa_workspace_bytes(call->context, &described.query, &described.key,
                                            &described.value, &described.params, &result.output,
                                            &bytes));
    attni_mpi_part_need(scratch, bytes);
    return ATTN_OK;
}

void attni_mpi_part_layout(const attni_mpi_call *call, attni_mpi_layout *layout,
                           attni_mpi_part_scratch *scratch) {
    const position_source source = positions_of(call);
    const int64_t num_offsets = source.numbers != NULL ? source.numbers->count : 1;
    scratch->offsets_at = attni_mpi_layout_add(layout, num_offsets, sizeof(int64_t));
    scratch->lengths_at = attni_mpi_layout_add(layout, call->lengths.count, sizeof(int64_t));
    scratch->starts_at = attni_mpi_layout_add(layout, call->starts.count, sizeof(int64_t));
    /* One byte at least: no workspace would have the core library allocate. */
    scratch->workspace_at = attni_mpi_layout_add(layout, scratch->workspace_bytes + 1, 1);
}

attn_status attni_mpi_part_run(const attni_mpi_call *call, const attni_mpi_part *part,
                               const attn_tensor *key, const attn_tensor *value,
                               const attni_mpi_part_scratch *scratch, char *block,
                               const attn_tensor *output, const attn_tensor *lse) {
    attni_mpi_part_call described;
    attni_mpi_part_describe(call, part, key, value, scratch, block, &described);
    described.params.sinks = part->counts_sinks ? call->params.sinks : NULL;
    if (call->is_softmax) {
        described.params.lse = lse;
    }
    return attn_sdpa(call->context, &described.query, &described.key, &described.value,
                     &described.params, output, block + scratch->workspace_at,
                     (size_t)scratch->workspace_bytes);
}

attn_status attni_mpi_partial_merge(const attni_mpi_call *call, const attni_mpi_partial *part,
                                    const attni_mpi_partial *sum) {
    const attn_tensor outputs[] = {sum->output, part->output};
    const attn_tensor lses[] = {sum->lse, part->lse};
    return attn_sdpa_merge(call->context, 2, outputs, call->is_softmax ? lses : NULL, NULL,
                           &sum->output, call->is_softmax ? &sum->lse : NULL);
}

attn_status attni_mpi_partial_store(const attni_mpi_call *call, const attni_mpi_partial *partial,
                                    const attni_mpi_partial *stored) {
    if (call->has_lse) {
        attni_mpi_copy(&partial->lse, &stored->lse);
    }
    return attn_sdpa_merge(call->context, 1, &partial->output, NULL, NULL, &stored->output, NULL);
}

void attni_mpi_publish(const attni_mpi_call *call, const attni_mpi_partial *stored) {
    attni_mpi_copy(&stored->output, &call->output);
    if (call->has_lse) {
        attni_mpi_copy(&stored->lse, &call->lse);
    }
}
