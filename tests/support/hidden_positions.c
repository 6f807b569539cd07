/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hidden_positions.c: see hidden_positions.h.
 */
#include "support/hidden_positions.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is left of a page after `bytes`, which may be negative. */
static int64_t rest_of_page(int64_t bytes, int64_t page) {
    return ((-bytes) % page + page) % page;
}

static void fill(unsigned char *memory, int64_t count, int32_t dtype) {
    for (int64_t i = 0; i < count; ++i) {
        const int number = (int)(i % 7) - 3;
        if (dtype == ATTN_DTYPE_FLOAT32) {
            ((float *)(void *)memory)[i] = (float)number;
        } else if (dtype == ATTN_DTYPE_FLOAT64) {
            ((double *)(void *)memory)[i] = number;
        } else {
            memory[i] = number > 0;
        }
    }
}

static void give_up(const char *what) {
    fprintf(stderr, "hidden positions: %s\n", what);
    abort();
}

/* Opens the pages of positions [begin, end) of one head, whose position 0 is at `first`. */
static void show(unsigned char *first, const hidden_shape *shape, int64_t begin, int64_t end) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t row_bytes = shape->features * (int64_t)attn_dtype_size_bytes(shape->dtype);
    if (begin < 0 || begin > end || end > shape->positions) {
        give_up("positions outside the tensor");
    }
    if (begin == end) {
        return;
    }
    unsigned char *from = first + begin * row_bytes;
    const int64_t before = (int64_t)((uintptr_t)from % (uintptr_t)page);
    const int64_t bytes = (end - begin) * row_bytes;
    if (mprotect(from - before, (size_t)(before + bytes), PROT_READ | PROT_WRITE) != 0) {
        give_up("out of memory");
    }
    fill(from, (end - begin) * shape->features, shape->dtype);
}

hidden_positions hidden_positions_map(const hidden_shape *shape, enum hidden_edge edge) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t element = (int64_t)attn_dtype_size_bytes(shape->dtype);
    const int64_t row_bytes = shape->features * element;
    const int64_t edge_bytes = (edge == HIDDEN_BEGIN ? shape->begin : shape->end) * row_bytes;
    const int64_t edge_step =
        (edge == HIDDEN_BEGIN ? shape->begin_step : shape->end_step) * row_bytes;
    /* Whole pages and one more, so that no page that is opened holds another head's positions. */
    const int64_t head_bytes = (shape->positions * row_bytes / page + 2) * page;
    const int64_t batch_bytes = shape->heads * head_bytes + rest_of_page(edge_step, page);
    const int64_t lead = page + rest_of_page(edge_bytes, page);
    hidden_positions made = {.bytes = (size_t)(lead + shape->batches * batch_bytes + page)};
    made.base = mmap(NULL, made.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made.base == MAP_FAILED) {
        give_up("out of memory");
    }
    for (int64_t batch = 0; batch < shape->batches; ++batch) {
        for (int64_t head = 0; head < shape->heads; ++head) {
            show(made.base + lead + batch * batch_bytes + head * head_bytes, shape,
                 shape->begin + batch * shape->begin_step, shape->end + batch * shape->end_step);
        }
    }
    made.view = (attn_tensor){
        .data = made.base + lead,
        .dtype = shape->dtype,
        .rank = 4,
        .shape = {shape->batches, shape->heads, shape->positions, shape->features},
        .strides = {batch_bytes / element, head_bytes / element, shape->features, 1},
    };
    return made;
}

void hidden_positions_unmap(const hidden_positions *hidden) {
    munmap(hidden->base, hidden->bytes);
}
