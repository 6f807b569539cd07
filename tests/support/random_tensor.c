/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random_tensor.c: lays tensors out, fills them, and watches their memory.
 */
#include "support/random_tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/guarded_memory.h"
#include "support/oracle_tensor.h"

const char *const tensor_layout_names[LAYOUT_NUM_INPUT] = {
    "contiguous", "sequence_first", "packed",         "step_two",      "transposed",
    "reversed",   "unaligned",      "repeated_first", "repeated_rows", "repeated_columns",
};

enum {
    GAP_OF_INPUT = 0xff,  /* NaN, true, -1 */
    GAP_OF_OUTPUT = 0x5a, /* a finite number no test computes */
    MARGIN_BYTES = 96
};

/* The axes from the one that varies fastest in memory to the slowest. */
static void memory_order(int32_t rank, enum tensor_layout layout, int32_t *order) {
    for (int32_t axis = 0; axis < rank; ++axis) {
        order[axis] = rank - 1 - axis;
    }
    const int32_t first_swapped = layout == LAYOUT_TRANSPOSED ? 0 : 1;
    if ((layout == LAYOUT_TRANSPOSED || layout == LAYOUT_SEQUENCE_FIRST) &&
        first_swapped + 1 < rank) {
        const int32_t axis = order[first_swapped];
        order[first_swapped] = order[first_swapped + 1];
        order[first_swapped + 1] = axis;
    }
}

static int is_repeated(int32_t rank, int32_t axis, enum tensor_layout layout) {
    switch (layout) {
    case LAYOUT_REPEATED_FIRST:
        return axis == 0 && rank >= 3;
    case LAYOUT_REPEATED_ROWS:
        return axis == rank - 2;
    case LAYOUT_REPEATED_COLUMNS:
        return axis == rank - 1;
    default:
        return 0;
    }
}

/* Elements from one index of the fastest axis to the next, and how much longer than its elements
 * that axis is in memory. */
static int64_t fastest_step(enum tensor_layout layout) {
    return layout == LAYOUT_STEP_TWO ? 2 : 1;
}

static int64_t fastest_pitch(enum tensor_layout layout) {
    return layout == LAYOUT_PACKED ? 3 : fastest_step(layout);
}

static void set_strides(attn_tensor *view, enum tensor_layout layout) {
    int32_t order[ATTN_MAX_RANK] = {0};
    int64_t stride = fastest_step(layout);
    memory_order(view->rank, layout, order);
    for (int32_t at = 0; at < view->rank; ++at) {
        const int32_t axis = order[at];
        const int64_t length = view->shape[axis] > 0 ? view->shape[axis] : 1;
        view->strides[axis] = layout == LAYOUT_REVERSED ? -stride : stride;
        if (is_repeated(view->rank, axis, layout)) {
            view->strides[axis] = 0;
        } else {
            stride = at == 0 ? length * fastest_pitch(layout) : stride * length;
        }
    }
}

/* Elements from the lowest to the highest one, and the position of element 0 among them. */
static void measure(const attn_tensor *view, int64_t *span, int64_t *origin) {
    *span = oracle_count(view->rank, view->shape) > 0;
    *origin = 0;
    for (int32_t axis = 0; axis<view->rank && * span> 0; ++axis) {
        *span += (view->shape[axis] - 1) * llabs(view->strides[axis]);
        *origin += view->strides[axis] < 0 ? (view->shape[axis] - 1) * -view->strides[axis] : 0;
    }
}

static void mark_owned(watched_tensor *tensor) {
    const attn_tensor *view = &tensor->view;
    const size_t element_bytes = attn_dtype_size_bytes(view->dtype);
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        memset(tensor->is_owned + (oracle_address(view, index) - tensor->memory), 1, element_bytes);
    } while (oracle_next_index(view->rank, view->shape, index));
}

static attn_tensor *pool_add(tensor_pool *pool, int is_output, int32_t dtype, int32_t rank,
                             const int64_t *shape, enum tensor_layout layout) {
    if (pool->count == POOL_CAPACITY) {
        fputs("a test call has more tensors than POOL_CAPACITY\n", stderr);
        abort();
    }
    watched_tensor *tensor = &pool->tensors[pool->count++];
    *tensor = (watched_tensor){.view = {.dtype = dtype, .rank = rank}, .is_output = is_output};
    for (int32_t axis = 0; axis < rank; ++axis) {
        tensor->view.shape[axis] = shape[axis];
    }
    set_strides(&tensor->view, layout);
    int64_t span, origin;
    measure(&tensor->view, &span, &origin);
    if (span == 0) {
        return &tensor->view;
    }
    const size_t element_bytes = attn_dtype_size_bytes(dtype);
    const size_t margin = is_output ? MARGIN_BYTES : 0, shift = layout == LAYOUT_UNALIGNED;
    tensor->bytes = margin + shift + (size_t)span * element_bytes + margin;
    /* Either end of a tensor is as often the watched one. */
    tensor->memory =
        guarded_take(tensor->bytes, (pool->count + span) % 2 ? GUARDED_PAST : GUARDED_BEGIN);
    tensor->before = oracle_allocate((int64_t)tensor->bytes, 1);
    tensor->is_owned = oracle_allocate((int64_t)tensor->bytes, 1);
    memset(tensor->memory, is_output ? GAP_OF_OUTPUT : GAP_OF_INPUT, tensor->bytes);
    tensor->view.data = tensor->memory + margin + shift + (size_t)origin * element_bytes;
    mark_owned(tensor);
    return &tensor->view;
}

attn_tensor *pool_input(tensor_pool *pool, int32_t dtype, int32_t rank, const int64_t *shape,
                        enum tensor_layout layout) {
    return pool_add(pool, 0, dtype, rank, shape, layout);
}

attn_tensor *pool_output(tensor_pool *pool, int32_t dtype, int32_t rank, const int64_t *shape,
                         enum tensor_layout layout) {
    return pool_add(pool, 1, dtype, rank, shape, layout);
}

void pool_begin(tensor_pool *pool) {
    for (int t = 0; t < pool->count; ++t) {
        const watched_tensor *tensor = &pool->tensors[t];
        if (tensor->bytes > 0) {
            memcpy(tensor->before, tensor->memory, tensor->bytes);
        }
        if (tensor->bytes > 0 && !tensor->is_output) {
            guarded_set_read_only(tensor->memory, 1);
        }
    }
}

/* The first byte that was written and may not be: of an output, elements may if `outputs_may`. */
static int find_written(const tensor_pool *pool, int outputs_may, const char *why, char *message,
                        size_t message_bytes) {
    for (int t = 0; t < pool->count; ++t) {
        const watched_tensor *tensor = &pool->tensors[t];
        for (size_t byte = 0; byte < tensor->bytes; ++byte) {
            const int may_change = outputs_may && tensor->is_output && tensor->is_owned[byte];
            if (!may_change && tensor->memory[byte] != tensor->before[byte]) {
                snprintf(message, message_bytes,
                         "%s %d of the call: byte %zu of %zu was written, but %s",
                         tensor->is_output ? "output" : "input", t, byte, tensor->bytes, why);
                return 1;
            }
        }
    }
    return 0;
}

int pool_check(const tensor_pool *pool, char *message, size_t message_bytes) {
    return find_written(pool, 1, "belongs to no output element", message, message_bytes);
}

int pool_check_untouched(const tensor_pool *pool, char *message, size_t message_bytes) {
    return find_written(pool, 0, "the call was refused", message, message_bytes);
}

static void release(watched_tensor *tensor) {
    if (tensor->memory != NULL && !tensor->is_output) {
        guarded_set_read_only(tensor->memory, 0);
    }
    guarded_give_back(tensor->memory);
}

void pool_destroy(tensor_pool *pool) {
    for (int t = 0; t < pool->count; ++t) {
        release(&pool->tensors[t]);
        free(pool->tensors[t].before);
        free(pool->tensors[t].is_owned);
    }
    pool->count = 0;
}

void random_fill(const attn_tensor *tensor, random_state *random, double lowest, double highest,
                 double step) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(tensor->rank, tensor->shape) == 0) {
        return;
    }
    do {
        const double number = random_real(random, lowest, highest);
        oracle_store(tensor, index, step > 0 ? step * round(number / step) : number);
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

void random_fill_bool(const attn_tensor *tensor, random_state *random, double probability_of_zero) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(tensor->rank, tensor->shape) == 0) {
        return;
    }
    do {
        const int is_zero = random_real(random, 0, 1) < probability_of_zero;
        *oracle_address(tensor, index) =
            is_zero ? 0 : (unsigned char)random_between(random, 1, 255);
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

void random_fill_integers(const attn_tensor *tensor, random_state *random, int64_t lowest,
                          int64_t highest) {
    int64_t index[ATTN_MAX_RANK] = {0};
    if (oracle_count(tensor->rank, tensor->shape) == 0) {
        return;
    }
    do {
        oracle_store_integer(tensor, index, random_between(random, lowest, highest));
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

int random_index(const attn_tensor *tensor, random_state *random, int64_t *index) {
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        if (tensor->shape[axis] == 0) {
            return 0;
        }
        index[axis] = random_between(random, 0, tensor->shape[axis] - 1);
    }
    return 1;
}
