/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_element.c: elements of integers, as tensor.h has them.
 */
#include "quantized_element.h"

#include <string.h>

#include "support/half_numbers.h"
#include "support/oracle_tensor.h"

int32_t quantized_random_level(random_state *random, int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_INT8:
    case ATTN_DTYPE_Q8_0:
        return (int32_t)random_between(random, -128, 127);
    case ATTN_DTYPE_UINT8:
        return (int32_t)random_between(random, 0, 255);
    case ATTN_DTYPE_UINT4X2:
        return (int32_t)random_between(random, 0, 15);
    default:
        return (int32_t)random_between(random, -8, 7);
    }
}

void quantized_store_level(const attn_tensor *tensor, const int64_t *index, int32_t level) {
    const int32_t values = attn_dtype_values(tensor->dtype);
    const int64_t in_element = index[tensor->rank - 1] % values;
    int64_t element[4] = {0};
    memcpy(element, index, (size_t)tensor->rank * sizeof *index);
    element[tensor->rank - 1] /= values;
    unsigned char *at = oracle_address(tensor, element);
    switch (tensor->dtype) {
    case ATTN_DTYPE_Q8_0:
        at[2 + in_element] = (unsigned char)level;
        break;
    case ATTN_DTYPE_Q4_0: {
        unsigned char *byte = &at[2 + in_element % 16];
        const int shift = in_element < 16 ? 0 : 4;
        *byte = (unsigned char)((*byte & ~(15 << shift)) | (level + 8) << shift);
        break;
    }
    case ATTN_DTYPE_INT4X2:
    case ATTN_DTYPE_UINT4X2: {
        const int shift = in_element == 0 ? 0 : 4;
        *at = (unsigned char)((*at & ~(15 << shift)) | (level & 15) << shift);
        break;
    }
    default:
        *at = (unsigned char)level;
    }
}

double quantized_store_block_scale(random_state *random, const attn_tensor *tensor,
                                   const int64_t *index) {
    int64_t element[4] = {0};
    memcpy(element, index, (size_t)tensor->rank * sizeof *index);
    const int is_first = element[tensor->rank - 1] % 32 == 0;
    element[tensor->rank - 1] /= 32;
    unsigned char *at = oracle_address(tensor, element);
    const double unit = tensor->dtype == ATTN_DTYPE_Q8_0 ? 0x1p-7 : 0x1p-3;
    uint16_t half;
    if (is_first) {
        half = half_nearest(ATTN_DTYPE_FLOAT16, unit * random_real(random, 0.5, 1.5));
        memcpy(at, &half, sizeof half);
    }
    memcpy(&half, at, sizeof half);
    return half_number(ATTN_DTYPE_FLOAT16, half);
}

void quantized_copy_element(const attn_tensor *to, const int64_t *to_index, const attn_tensor *from,
                            const int64_t *from_index) {
    const int32_t values = attn_dtype_values(to->dtype);
    int64_t target[4] = {0}, source[4] = {0};
    memcpy(target, to_index, (size_t)to->rank * sizeof *target);
    memcpy(source, from_index, (size_t)from->rank * sizeof *source);
    target[to->rank - 1] /= values;
    source[from->rank - 1] /= values;
    memcpy(oracle_address(to, target), oracle_address(from, source),
           attn_dtype_size_bytes(to->dtype));
}
