/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block_mask_check.c: the shape and the elements of a mask by blocks.
 */
#include "problem/block_mask_check.h"

#include "base/checked_size.h"
#include "problem/batch_sequence.h"
#include "tensor/element.h"

static attn_status check_lengths(const attni_sdpa_request *request) {
    const attn_sdpa_params *params = request->params;
    const bool is_present = params->block_mask != NULL;
    const bool is_rows = is_present ? params->block_rows < 1 : params->block_rows != 0;
    const int64_t wrong = is_rows ? params->block_rows : params->block_columns;
    if (is_rows || (is_present ? params->block_columns < 1 : params->block_columns != 0)) {
        return attni_fail(ATTN_ERROR_VALUE, "%sblock_%s: expected %s block_mask, got %lld",
                          request->option_prefix, is_rows ? "rows" : "columns",
                          is_present ? "1 and up with a" : "0 without a", (long long)wrong);
    }
    return ATTN_OK;
}

/* Rows of blocks: with ragged queries as many as the mask has. */
static attn_status count_rows(const char *name, const attn_tensor *tensor,
                              const attni_sdpa_problem *problem, int64_t block_rows,
                              int64_t *rows) {
    *rows = attni_divide_up(problem->tgt_len, block_rows);
    if (!problem->query_starts.is_present) {
        return ATTN_OK;
    }
    const int64_t own = tensor->rank > 1 ? tensor->shape[tensor->rank - 2] : 1;
    if (own == 0 && *rows > 0) {
        return attni_fail(ATTN_ERROR_SHAPE,
                          "%s: expected rows of blocks for those of query, got none", name);
    }
    *rows = own;
    return ATTN_OK;
}

/* Columns of blocks: where sequences share rows of key as many as the mask has, if they reach S. */
static int64_t count_columns(const attn_tensor *tensor, const attni_sdpa_problem *problem,
                             int64_t block_columns) {
    const int64_t needed = attni_divide_up(problem->src_len, block_columns);
    const bool has_own = problem->key_starts.is_present || problem->pages.starts.is_present;
    return has_own ? attni_max(needed, tensor->shape[tensor->rank - 1]) : needed;
}

/* Axes that repeat are looked at once. */
static int64_t looked_at(const attn_tensor *tensor, int32_t axis) {
    return attni_stride(tensor, axis) == 0 ? attni_min(1, tensor->shape[axis])
                                           : tensor->shape[axis];
}

/* The largest of `count` elements. */
static unsigned char largest_of(const unsigned char *row, int64_t count, int64_t stride) {
    unsigned char largest = 0;
    if (stride == 1) {
        for (int64_t i = 0; i < count; ++i) {
            largest = row[i] > largest ? row[i] : largest;
        }
        return largest;
    }
    for (int64_t i = 0; i < count; ++i) {
        largest = row[i * stride] > largest ? row[i * stride] : largest;
    }
    return largest;
}

attn_status attni_check_blocks(const char *name, const attn_tensor *tensor) {
    const int32_t last = tensor->rank - 1;
    int64_t shape[ATTN_MAX_RANK];
    int64_t strides[ATTN_MAX_RANK];
    int64_t num_rows = 1;
    for (int32_t axis = 0; axis < last; ++axis) {
        shape[axis] = looked_at(tensor, axis);
        strides[axis] = attni_stride(tensor, axis);
        num_rows *= shape[axis];
    }
    for (int64_t row = 0; row < num_rows; ++row) {
        const int64_t offset = attni_offset_of(row, last, shape, strides);
        const unsigned char largest =
            largest_of((const unsigned char *)attni_advance(tensor->data, offset),
                       looked_at(tensor, last), attni_stride(tensor, last));
        if (largest > ATTN_BLOCK_MASKED) {
            return attni_fail(ATTN_ERROR_UNSUPPORTED,
                              "%s: expected elements of enum attn_block (0 to %d), got %d", name,
                              (int)ATTN_BLOCK_MASKED, (int)largest);
        }
    }
    return ATTN_OK;
}

attn_status attni_check_block_mask(const attni_sdpa_request *request, const char *name,
                                   attni_sdpa_problem *problem) {
    const attn_tensor *tensor = request->params->block_mask;
    ATTNI_TRY(check_lengths(request));
    if (tensor == NULL) {
        return ATTN_OK;
    }
    attni_block_mask blocks = {.data = tensor->data,
                               .block_rows = request->params->block_rows,
                               .block_columns = request->params->block_columns};
    ATTNI_TRY(attni_check_tensor(name, tensor, request->option_data));
    ATTNI_TRY(attni_check_dtype(name, tensor, ATTN_DTYPE_UINT8));
    ATTNI_TRY(attni_check_rank(name, tensor, 1, ATTN_MAX_RANK));
    ATTNI_TRY(count_rows(name, tensor, problem, blocks.block_rows, &blocks.num_rows));
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < problem->batch_rank; ++axis) {
        axes[axis] = (attni_axis){NULL, problem->batch_shape[axis]};
    }
    attni_axis *matrix = axes + problem->batch_rank;
    matrix[0] = (attni_axis){"Hq", problem->num_heads};
    matrix[1] = (attni_axis){"rows of blocks", blocks.num_rows};
    matrix[2] =
        (attni_axis){"columns of blocks", count_columns(tensor, problem, blocks.block_columns)};
    /* Without a head axis in the call a mask has none to broadcast along. */
    const int32_t hidden = problem->has_heads ? 0 : 1;
    ATTNI_TRY(attni_broadcast_strides(name, tensor, axes + hidden, problem->batch_rank + 3 - hidden,
                                      blocks.strides + hidden));
    problem->blocks = blocks;
    return ATTN_OK;
}

attn_status attni_check_block_rows(const attni_sdpa_problem *problem) {
    const attni_operand *starts = &problem->query_starts;
    const attni_block_mask *blocks = &problem->blocks;
    const bool has_rows = blocks->block_columns > 0 && starts->is_present && blocks->num_rows > 1 &&
                          starts->strides[0] != 0;
    for (int64_t batch = 0; has_rows && batch < problem->num_batches; ++batch) {
        const attni_interval rows = attni_rows_between(starts, batch, problem->tgt_len);
        const int64_t needed = attni_divide_up(rows.end - rows.begin, blocks->block_rows);
        if (needed > blocks->num_rows) {
            return attni_fail(ATTN_ERROR_VALUE,
                              "block_mask: expected %lld rows of blocks or more for the %lld rows "
                              "of sequence %lld, got %lld",
                              (long long)needed, (long long)(rows.end - rows.begin),
                              (long long)batch, (long long)blocks->num_rows);
        }
    }
    return ATTN_OK;
}
