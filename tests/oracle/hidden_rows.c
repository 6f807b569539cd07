/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hidden_rows.c: fills rows that no query sees.
 */
#include "hidden_rows.h"

#include <math.h>

#include "support/oracle_tensor.h"

const char *const hidden_names[NUM_HIDDEN_LEVELS] = {"nan", "infinite", "ordinary"};

/* Whether the element at a position in C order lies in a hidden row. */
static int is_hidden(const attn_tensor *rows, const unsigned char *hidden, int64_t at) {
    const int64_t *last = rows->shape + rows->rank - 1;
    const int64_t row = at / last[0], keys = last[-1], heads = rows->rank > 2 ? last[-2] : 1;
    return hidden[row / keys / heads * keys + row % keys];
}

static double filler(int level, double ordinary, random_state *random) {
    if (level == HIDDEN_NAN) {
        return NAN;
    }
    const int64_t drawn = random_between(random, 0, 7);
    return drawn == 0 ? INFINITY : drawn == 1 ? -INFINITY : ordinary;
}

/* A dense float64 tensor of the shape. */
static attn_tensor dense_tensor(const attn_tensor *rows, double *values) {
    attn_tensor dense = *rows;
    int64_t stride = 1;
    dense.data = values;
    dense.dtype = ATTN_DTYPE_FLOAT64;
    for (int32_t axis = dense.rank - 1; axis >= 0; --axis) {
        dense.strides[axis] = stride;
        stride *= dense.shape[axis];
    }
    return dense;
}

attn_tensor fill_hidden_rows(const attn_tensor *rows, const unsigned char *hidden, int level,
                             random_state *random) {
    double *values = oracle_expand(rows, rows->rank, rows->shape);
    const int64_t count = oracle_count(rows->rank, rows->shape);
    int64_t index[ATTN_MAX_RANK] = {0};
    for (int64_t at = 0; at < count && level != HIDDEN_ORDINARY; ++at) {
        if (is_hidden(rows, hidden, at)) {
            oracle_store(rows, index, filler(level, values[at], random));
        }
        oracle_next_index(rows->rank, rows->shape, index);
    }
    /* Elements with a place in memory of their own get back what they have. */
    for (int64_t at = 0; at < count; ++at) {
        if (is_hidden(rows, hidden, at)) {
            values[at] = 0;
        } else {
            oracle_store(rows, index, values[at]);
        }
        oracle_next_index(rows->rank, rows->shape, index);
    }
    return dense_tensor(rows, values);
}
