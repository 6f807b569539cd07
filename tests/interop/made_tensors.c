/* SPDX-License-Identifier: BSD-3-Clause
 *
 * made_tensors.c: random numbers in, expected records out.
 */
#include "made_tensors.h"

#include <math.h>

#include "case_writer.h"
#include "support/half_numbers.h"

attn_tensor *made_input(tensor_pool *pool, random_state *random, int32_t dtype, int32_t rank,
                        const int64_t *shape) {
    attn_tensor *tensor = pool_input(pool, dtype, rank, shape, LAYOUT_CONTIGUOUS);
    random_fill(tensor, random, -2, 2, 0);
    return tensor;
}

void made_hide(const attn_tensor *tensor, random_state *random, double probability) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        if (random_real(random, 0, 1) < probability) {
            oracle_store(tensor, index, -INFINITY);
        }
    } while (oracle_next_index(tensor->rank, tensor->shape, index));
}

void made_result(FILE *file, const char *name, int32_t dtype, int32_t rank, const int64_t *shape,
                 const oracle_array *result) {
    double tolerance = 0;
    for (int64_t i = 0; i < result->count; ++i) {
        const double error = result->error[i], farthest = fabs(result->value[i]) + error;
        const double stored = half_is(dtype) ? half_step(dtype, farthest) : 0;
        tolerance = fmax(tolerance, error + stored);
    }
    case_write_expected(file, name, 1.01 * tolerance, rank, shape, result->value);
}
