/* SPDX-License-Identifier: BSD-3-Clause
 *
 * absurd_views.c: see absurd_views.h.
 */
#include "support/absurd_views.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <attention/status.h>

const int64_t absurd_lengths[NUM_ABSURD_LENGTHS] = {0,
                                                    1,
                                                    INT32_MAX - INT64_C(1),
                                                    INT32_MAX,
                                                    INT32_MAX + INT64_C(1),
                                                    INT64_C(1) << 40,
                                                    INT64_MAX / 8,
                                                    INT64_MAX / 4,
                                                    INT64_MAX};

int64_t absurd_combination(int64_t which, int count, int64_t *lengths) {
    int64_t all = 1;
    for (int i = 0; i < count; ++i) {
        lengths[i] = absurd_lengths[which / all % NUM_ABSURD_LENGTHS];
        all *= NUM_ABSURD_LENGTHS;
    }
    return all;
}

attn_tensor absurd_input(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view = {.data = data, .dtype = dtype, .rank = rank};
    for (int32_t axis = 0; axis < rank; ++axis) {
        view.shape[axis] = shape[axis];
    }
    return view;
}

attn_tensor absurd_output(void *data, int32_t dtype, int32_t rank, const int64_t *shape,
                          int64_t spacing) {
    attn_tensor view = absurd_input(data, dtype, rank, shape);
    attn_tensor room = view;
    attn_tensor strided;
    if (__builtin_mul_overflow(shape[rank - 1], spacing < 0 ? -spacing : spacing,
                               &room.shape[rank - 1]) ||
        attn_tensor_init(&strided, data, dtype, rank, room.shape) != ATTN_OK) {
        return view;
    }
    strided.shape[rank - 1] = shape[rank - 1];
    strided.strides[rank - 1] = spacing;
    return strided;
}

attn_status absurd_count_plan(attn_status status, size_t bytes, absurd_counts *counts) {
    if (status == ATTN_OK) {
        counts->planned++;
        assert_true(bytes < SIZE_MAX / 2);
        return status;
    }
    counts->refused++;
    assert_true(status == ATTN_ERROR_OVERFLOW || status == ATTN_ERROR_OVERLAP);
    assert_true(attn_last_error()[0] != '\0');
    return status;
}

void absurd_count_call(attn_status planned, attn_status status, absurd_counts *counts) {
    assert_true(status == planned || status == ATTN_ERROR_OVERLAP);
    assert_true(attn_last_error()[0] != '\0');
    counts->too_large += status == ATTN_ERROR_OVERFLOW;
    counts->no_workspace += strncmp(attn_last_error(), "workspace:", 10) == 0;
}
