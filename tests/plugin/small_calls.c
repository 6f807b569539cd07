/* SPDX-License-Identifier: BSD-3-Clause
 *
 * small_calls.c: see small_calls.h.
 */
#include "small_calls.h"

#include <stdlib.h>
#include <string.h>

enum { HEADS = 8, ROWS = 128, COLS = 32, COUNT = HEADS * ROWS * COLS };

static double read_element(const void *elements, int32_t dtype, int index) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)((const float *)elements)[index]
                                       : ((const double *)elements)[index];
}

static void fill(void *elements, int32_t dtype, double value) {
    for (int i = 0; i < COUNT; ++i) {
        if (dtype == ATTN_DTYPE_FLOAT32) {
            ((float *)elements)[i] = (float)value;
        } else {
            ((double *)elements)[i] = value;
        }
    }
}

static bool holds(const void *elements, int32_t dtype, double value) {
    for (int i = 0; i < COUNT; ++i) {
        const double difference = read_element(elements, dtype, i) - value;
        if (!(difference > -1e-6 && difference < 1e-6)) {
            return false;
        }
    }
    return true;
}

bool computes_attention(attn_context *context, int32_t dtype) {
    void *input = malloc(COUNT * sizeof(double));
    void *output = malloc(COUNT * sizeof(double));
    const int64_t shape[] = {HEADS, ROWS, COLS};
    attn_tensor x;
    attn_tensor y;
    bool computes = input != NULL && output != NULL;
    if (computes) {
        fill(input, dtype, 0.5);
        fill(output, dtype, 0);
        computes = attn_tensor_init(&x, input, dtype, 3, shape) == ATTN_OK &&
                   attn_tensor_init(&y, output, dtype, 3, shape) == ATTN_OK &&
                   attn_sdpa(context, &x, &x, &x, NULL, &y, NULL, 0) == ATTN_OK &&
                   holds(output, dtype, 0.5);
    }
    free(input);
    free(output);
    return computes;
}

bool refuses_with_detail(const char *detail) {
    return attn_context_create(NULL, NULL) == ATTN_ERROR_NULL &&
           strcmp(attn_last_error(), detail) == 0;
}
