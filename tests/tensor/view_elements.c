/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view_elements.c: indices counted like the digits of an odometer, addresses added up.
 */
#include "view_elements.h"

#include <stdio.h>

int64_t element_bytes_of(int32_t dtype) {
    static const int64_t bytes[] = {0, 4, 8, 1, 8, 2, 2, 4, 1, 1, 1, 1, 1, 34, 18, 1};
    return bytes[dtype];
}

int64_t elements_of(const attn_tensor *view) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        count *= view->shape[axis];
    }
    return count;
}

bool next_element(const attn_tensor *view, int64_t *index) {
    for (int32_t axis = view->rank - 1; axis >= 0; --axis) {
        if (++index[axis] < view->shape[axis]) {
            return true;
        }
        index[axis] = 0;
    }
    return false;
}

char *element_at(const attn_tensor *view, const int64_t *index) {
    int64_t offset = 0;
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        offset += index[axis] * view->strides[axis];
    }
    return (char *)view->data + offset * element_bytes_of(view->dtype);
}

attn_tensor random_view(random_state *random, void *data, view_limits limits) {
    attn_tensor view = {.data = data};
    view.dtype = (int32_t)random_between(random, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_UINT4X2);
    view.rank = (int32_t)random_between(random, limits.lowest_rank, limits.highest_rank);
    for (int32_t axis = 0; axis < ATTN_MAX_RANK; ++axis) {
        const bool is_empty = random_between(random, 0, 39) == 0;
        view.shape[axis] = axis >= view.rank ? -7
                           : is_empty        ? 0
                                             : random_between(random, 1, limits.longest);
        view.strides[axis] = random_between(random, -limits.stride, limits.stride);
        if (view.shape[axis] < 2 && random_between(random, 0, 3) == 0) {
            view.strides[axis] = random_between(random, 0, 1) == 0 ? INT64_MAX : -INT64_MAX;
        }
    }
    return view;
}

const char *view_text(const attn_tensor *view) {
    static const char *const names[] = {"invalid", "float32",  "float64",     "bool",
                                        "int64",   "bfloat16", "float16",     "int32",
                                        "int8",    "uint8",    "float8_e4m3", "float8_e5m2",
                                        "int4x2",  "q8_0",     "q4_0",        "uint4x2"};
    static char texts[2][400];
    static int turn;
    char *text = texts[turn ^= 1];
    int length = snprintf(text, sizeof texts[0], "%s (", names[view->dtype]);
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        length += snprintf(text + length, sizeof texts[0] - (size_t)length, "%lld%s",
                           (long long)view->shape[axis], axis + 1 < view->rank ? ", " : "");
    }
    length += snprintf(text + length, sizeof texts[0] - (size_t)length, ") by (");
    for (int32_t axis = 0; axis < view->rank; ++axis) {
        length += snprintf(text + length, sizeof texts[0] - (size_t)length, "%lld%s",
                           (long long)view->strides[axis], axis + 1 < view->rank ? ", " : "");
    }
    snprintf(text + length, sizeof texts[0] - (size_t)length, ")");
    return text;
}
