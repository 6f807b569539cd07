/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gradients_clear.c: goes through tensors, never through the call's rows and heads, of which there
 * may be more than any memory has room for where nothing is computed of them.
 */
#include "gradients/gradients_clear.h"

#include "problem/batch_sequence.h"
#include "tensor/element.h"

/* Not an empty one, so that its number of elements fits. */
static void clear_tensor(const attn_tensor *tensor) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        count *= tensor->shape[axis];
    }
    for (int64_t number = 0; number < count; ++number) {
        attni_write_real(tensor->data,
                         attni_offset_of(number, tensor->rank, tensor->shape, tensor->strides),
                         tensor->dtype, 0);
    }
}

/* Rows of no sequence stay as they are. */
static void clear_sequences(const attni_gradients_problem *problem,
                            const attni_wanted_gradient *wanted) {
    const int32_t axis = wanted->tensor.rank - 2;
    const int64_t row_bytes =
        wanted->tensor.strides[axis] * (int64_t)attn_dtype_size_bytes(wanted->tensor.dtype);
    for (int64_t batch = 0; batch < problem->call.num_batches; ++batch) {
        const attni_interval rows =
            attni_rows_between(wanted->starts, batch, wanted->tensor.shape[axis]);
        attn_tensor of_sequence = wanted->tensor;
        of_sequence.data = attni_advance(of_sequence.data, rows.begin * row_bytes);
        of_sequence.shape[axis] = rows.end - rows.begin;
        clear_tensor(&of_sequence);
    }
}

void attni_gradients_clear(const attni_gradients_problem *problem) {
    for (int32_t i = 0; i < problem->num_wanted; ++i) {
        const attni_wanted_gradient *wanted = &problem->wanted[i];
        const bool is_added = wanted->which < ATTNI_NUM_SUMMED ? problem->adds_to[wanted->which]
                                                               : problem->accumulates;
        if (is_added) {
            continue;
        }
        if (wanted->starts != NULL) {
            clear_sequences(problem, wanted);
        } else {
            clear_tensor(&wanted->tensor);
        }
    }
}
