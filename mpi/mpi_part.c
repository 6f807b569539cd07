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

/* The arguments of a part's call. */
typedef struct part_arguments {
    attn_tensor query, key, value, mask, bias, offsets, lengths, starts;
    attn_sdpa_params params;
} part_arguments;

/* The part's rows, where the mask has a row for each, and its keys' columns. */
static const attn_tensor *cut_mask(const attn_tensor *mask, const attni_mpi_part *part,
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

/* Storage NULL: views without data, which have the same shapes. */
static void describe_numbers(const attni_mpi_call *call, const attni_mpi_part *part,
                             int64_t *offsets, int64_t *lengths, int64_t *starts,
                             part_arguments *arguments) {
    const position_source source = positions_of(call);
    const int64_t shift = source.shift + part->rows.first - part->keys.first;
    attn_sdpa_params *const params = &arguments->params;
    if (source.numbers != NULL) {
        arguments->offsets =
            attni_mpi_numbers_shifted(source.numbers, shift, INT64_MIN, INT64_MAX, offsets);
    } else {
        arguments->offsets = (attn_tensor){.data = offsets, .dtype = ATTN_DTYPE_INT64};
        if (offsets != NULL) {
            *offsets = shift;
        }
    }
    params->align_end = 0;
    params->query_offset = &arguments->offsets;
    if (call->has_lengths) {
        arguments->lengths = attni_mpi_numbers_shifted(&call->lengths, -part->keys.first, 0,
                                                       part->keys.count, lengths);
        params->key_lengths = &arguments->lengths;
    }
    if (call->has_starts) {
        arguments->starts = attni_mpi_numbers_shifted(&call->starts, -part->keys.first, INT64_MIN,
                                                      INT64_MAX, starts);
        params->mask_start = &arguments->starts;
    }
}

static void describe_part(const attni_mpi_call *call, const attni_mpi_part *part,
                          const attn_tensor *key, const attn_tensor *value, int64_t *offsets,
                          int64_t *lengths, int64_t *starts, part_arguments *arguments) {
    attn_sdpa_params *const params = &arguments->params;
    arguments->query = attni_mpi_slice(&call->query, -2, part->rows.local, part->rows.count);
    arguments->key = attni_mpi_slice(key, -2, part->keys.local, part->keys.count);
    arguments->value = attni_mpi_slice(value, -2, part->keys.local, part->keys.count);
    *params = call->params;
    params->mask = cut_mask(params->mask, part, !call->has_starts, &arguments->mask);
    params->bias = cut_mask(params->bias, part, true, &arguments->bias);
    params->sinks = part->counts_sinks ? params->sinks : NULL;
    params->lse = NULL;
    describe_numbers(call, part, offsets, lengths, starts, arguments);
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

attn_status attni_mpi_part_plan(const attni_mpi_call *call, const attni_mpi_part *part,
                                const attn_tensor *key, const attn_tensor *value,
                                attni_mpi_part_scratch *scratch) {
    part_arguments arguments;
    size_t bytes;
    describe_part(call, part, key, value, NULL, NULL, NULL, &arguments);
    attni_mpi_partial result = attni_mpi_partial_shape(call, part->rows.count, call->score_dtype);
    if (call->is_softmax) {
        arguments.params.lse = &result.lse;
    }
    ATTNI_MPI_TRY(attn_sdpa_workspace_bytes(call->context, &arguments.query, &arguments.key,
                                            &arguments.value, &arguments.params, &result.output,
                                            &bytes));
    if ((int64_t)bytes > scratch->workspace_bytes) {
        scratch->workspace_bytes = (int64_t)bytes;
    }
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
    part_arguments arguments;
    describe_part(call, part, key, value, (int64_t *)(block + scratch->offsets_at),
                  (int64_t *)(block + scratch->lengths_at), (int64_t *)(block + scratch->starts_at),
                  &arguments);
    if (call->is_softmax) {
        arguments.params.lse = lse;
    }
    return attn_sdpa(call->context, &arguments.query, &arguments.key, &arguments.value,
                     &arguments.params, output, block + scratch->workspace_at,
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
