/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope_angles.c: where rows stand, and the cosines and sines of their angles. Angles are float64's
 * for every type: float32 would lose a position's last bits after some thousand.
 */
#include "rotary/rope_angles.h"

#include <math.h>

#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "tensor/element.h"

bool attni_rope_computes_angles(const attni_rope_problem *problem) {
    return problem->source == ATTNI_ROPE_BASE || problem->source == ATTNI_ROPE_FREQUENCIES;
}

void attni_rope_frequencies(const attni_rope_problem *problem, int64_t first_pair,
                            int64_t num_pairs, double *frequencies) {
    const attn_tensor *table = &problem->frequencies;
    for (int64_t i = 0; i < num_pairs && attni_rope_computes_angles(problem); ++i) {
        const int64_t pair = first_pair + i;
        frequencies[i] = problem->source == ATTNI_ROPE_FREQUENCIES
                             ? attni_read_real(table->data, pair * table->strides[0], table->dtype)
                             : pow(problem->base, -(double)pair / (double)problem->num_pairs);
    }
}

/* Where an option's elements of a batch begin. */
static int64_t batch_offset(const attni_rope_problem *problem, const attni_rope_option *option,
                            int64_t batch) {
    return attni_offset_of(batch, problem->batch_rank, problem->input.shape, option->strides);
}

int64_t attni_rope_start_of(const attni_rope_problem *problem, int64_t index) {
    const attn_tensor *starts = &problem->starts.tensor;
    const int64_t start = attni_read_index(starts->data, index * starts->strides[0], starts->dtype);
    return attni_clamp(start, 0, problem->num_rows);
}

/* The last sequence that begins at the row or before it; the first where none does. */
static int64_t sequence_of(const attni_rope_problem *problem, int64_t row) {
    int64_t first = 0;
    int64_t end = problem->starts.num_sequences;
    while (end - first > 1) {
        const int64_t middle = first + (end - first) / 2;
        if (attni_rope_start_of(problem, middle) <= row) {
            first = middle;
        } else {
            end = middle;
        }
    }
    return first;
}

/* The number of a row of input in a sequence that ends with its last one. Rows of no sequence stand
 * anywhere. */
static int64_t ragged_position_of(const attni_rope_problem *problem, int64_t row) {
    const attni_rope_option *lengths = &problem->lengths;
    if (problem->starts.num_sequences == 0) {
        return 0;
    }
    const int64_t sequence = sequence_of(problem, row);
    const int64_t length = attni_read_index(lengths->tensor.data, sequence * lengths->strides[0],
                                            lengths->tensor.dtype);
    return attni_max(0, length) - attni_rope_start_of(problem, sequence + 1) + row;
}

static int64_t position_of(const attni_rope_problem *problem, int64_t group, int64_t row) {
    const attni_rope_option *positions = &problem->positions;
    const attni_rope_option *lengths = &problem->lengths;
    if (positions->is_given) {
        const int64_t offset =
            batch_offset(problem, positions, group) + row * positions->strides[problem->batch_rank];
        return attni_read_index(positions->tensor.data, offset, positions->tensor.dtype);
    }
    if (lengths->is_given && problem->starts.is_given) {
        return ragged_position_of(problem, row);
    }
    if (lengths->is_given) {
        const int64_t offset = batch_offset(problem, lengths, group);
        const int64_t length =
            attni_read_index(lengths->tensor.data, offset, lengths->tensor.dtype);
        return attni_max(0, length) - problem->num_rows + row;
    }
    return row;
}

/* Where a table has the row of input's row. A position is clamped though it was checked: another
 * thread may have written it since. */
static int64_t table_offset(const attni_rope_problem *problem, const attni_rope_option *table,
                            int64_t group, int64_t row, int64_t position) {
    if (problem->source == ATTNI_ROPE_LOOKED_UP) {
        return attni_clamp(position, 0, problem->table_rows - 1) * table->strides[0];
    }
    return batch_offset(problem, table, group) + row * table->strides[problem->batch_rank];
}

static void take_table(const attni_rope_problem *problem, const attni_kernel_set *set,
                       const attni_rope_option *table, int64_t row, int64_t position,
                       const attni_rope_block *block, char *to) {
    const int32_t dtype = table->tensor.dtype;
    const double factor = table == &problem->sin ? problem->sine_factor : problem->cosine_factor;
    const int32_t last = problem->source == ATTNI_ROPE_LOOKED_UP ? 1 : problem->batch_rank + 1;
    const int64_t stride = table->strides[last];
    const int64_t offset = table_offset(problem, table, block->group, row, position);
    const int64_t first = offset + block->first_pair * stride;
    const char *data = table->tensor.data;
    const char *from = data + first * (int64_t)attn_dtype_size_bytes(dtype);
    attni_take_row(set, to, from, dtype, stride, block->num_pairs);
    if (factor != 1) {
        attni_kernels_of(set, problem->score_dtype)->scale(to, block->num_pairs, factor);
    }
}

void attni_rope_fill(const attni_rope_problem *problem, const attni_kernel_set *set,
                     const attni_rope_block *block, const double *frequencies, char *cosines,
                     char *sines) {
    const attni_feature_kernels *kernels = attni_feature_kernels_of(set, problem->score_dtype);
    const int64_t row_bytes =
        block->num_pairs * (int64_t)attn_dtype_size_bytes(problem->score_dtype);
    for (int64_t r = 0; r < block->num_rows; ++r) {
        const int64_t row = block->first_row + r;
        char *c = cosines + r * row_bytes;
        char *s = sines + r * row_bytes;
        const int64_t position = position_of(problem, block->group, row);
        if (attni_rope_computes_angles(problem)) {
            kernels->turns(c, s, (double)position, frequencies, block->num_pairs,
                           problem->cosine_factor, problem->sine_factor);
        } else {
            take_table(problem, set, &problem->cos, row, position, block, c);
            take_table(problem, set, &problem->sin, row, position, block, s);
        }
    }
}
