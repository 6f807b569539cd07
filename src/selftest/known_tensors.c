/* SPDX-License-Identifier: BSD-3-Clause
 *
 * known_tensors.c: what the checks of attention share: tensors, and comparing a number.
 */
#include <math.h>
#include <string.h>

#include "selftest/known_results.h"

enum { MOST_TENSORS = 20 };

attn_status attni_selftest_place(attn_context *context, const attni_selftest_shape *shapes,
                                 int32_t count, attn_tensor *tensors, attni_workspace *memory) {
    attni_layout layout = {0};
    size_t offsets[MOST_TENSORS];
    for (int32_t i = 0; i < count; ++i) {
        int64_t elements;
        ATTNI_TRY(
            attn_tensor_init(&tensors[i], NULL, shapes[i].dtype, shapes[i].rank, shapes[i].shape));
        ATTNI_TRY(attn_tensor_count(&tensors[i], &elements));
        offsets[i] = attni_layout_add(&layout, elements, attn_dtype_size_bytes(shapes[i].dtype));
    }
    ATTNI_TRY(attni_workspace_acquire(&layout, attni_context_allocator(context), NULL, memory));
    memset(memory->base, 0, layout.bytes);
    for (int32_t i = 0; i < count; ++i) {
        tensors[i].data = memory->base + offsets[i];
    }
    return ATTN_OK;
}

attn_status attni_selftest_compare(const char *what, int32_t dtype, int64_t row, int64_t col,
                                   double expected, double got, double bound) {
    if (got == expected || fabs(got - expected) <= bound) {
        return ATTN_OK;
    }
    return attni_fail(ATTN_ERROR_SELFTEST, "%s, %s: expected %.9g at (%d, %d), got %.9g", what,
                      attni_selftest_type_name(dtype), expected, (int)row, (int)col, got);
}
