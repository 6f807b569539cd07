/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantized_kernels.c: integers become vectors of float32 as whole vectors where they lie side by
 * side; halves of bytes, and elements that lie apart, go through a piece of memory.
 */
#include "kernels/quantized_kernels.h"

#include "base/half_precision.h"
#include "kernels/integers.h"
#include "kernels/kernel_tables.h"

enum {
    PIECE = 64,        /* values */
    BLOCK_VALUES = 32, /* of ggml's blocks, which begin with a scale of */
    SCALE_BYTES = 2,   /* bytes */
    Q8_BYTES = SCALE_BYTES + BLOCK_VALUES,
    Q4_BYTES = SCALE_BYTES + BLOCK_VALUES / 2,
    Q4_ZERO = 8
};

INLINE void scale_bytes(float *to, const uint8_t *from, int64_t n, const float *scales,
                        const float *zeros, const int has_sign) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(to + j, (load_bytes(from + j, has_sign) - load(zeros + j)) * load(scales + j));
    }
    for (; j < n; ++j) {
        const int element = has_sign ? (int8_t)from[j] : from[j];
        to[j] = ((float)element - zeros[j]) * scales[j];
    }
}

/* `count` bytes that lie `stride` apart, side by side. */
static const uint8_t *gather(uint8_t *to, const uint8_t *from, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = from[i * stride];
    }
    return to;
}

INLINE void dequantize_bytes(float *to, const uint8_t *from, int64_t stride, int64_t n,
                             const float *scales, const float *zeros, const int has_sign) {
    uint8_t piece[PIECE];
    const int64_t width = stride == 1 ? n : PIECE;
    for (int64_t j = 0; j < n; j += width) {
        const int64_t count = n - j < width ? n - j : width;
        const uint8_t *bytes = from + j * stride;
        bytes = stride == 1 ? bytes : gather(piece, bytes, stride, count);
        scale_bytes(to + j, bytes, count, scales + j, zeros + j, has_sign);
    }
}

static void dequantize_int8(float *to, const void *from, int64_t stride, int64_t n,
                            const float *scales, const float *zeros) {
    dequantize_bytes(to, from, stride, n, scales, zeros, 1);
}

static void dequantize_uint8(float *to, const void *from, int64_t stride, int64_t n,
                             const float *scales, const float *zeros) {
    dequantize_bytes(to, from, stride, n, scales, zeros, 0);
}

/* Halves of bytes, the low one first; those with a sign are shifted to the top and back. */
INLINE void unpack_halves(uint8_t *to, const uint8_t *from, int64_t stride, int64_t count,
                          const int has_sign) {
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t byte = from[i * stride];
        const int low = byte & 15, high = byte >> 4;
        to[2 * i] = (uint8_t)(has_sign ? (low ^ 8) - 8 : low);
        to[2 * i + 1] = (uint8_t)(has_sign ? (high ^ 8) - 8 : high);
    }
}

INLINE void dequantize_halves(float *to, const uint8_t *from, int64_t stride, int64_t n,
                              const float *scales, const float *zeros, const int has_sign) {
    uint8_t piece[PIECE] = {0};
    for (int64_t j = 0; j < n; j += PIECE) {
        const int64_t count = n - j < PIECE ? n - j : PIECE;
        const uint8_t *bytes = from + j / 2 * stride;
        if (stride == 1) {
            unpack_halves(piece, bytes, 1, count / 2, has_sign);
        } else {
            unpack_halves(piece, bytes, stride, count / 2, has_sign);
        }
        scale_bytes(to + j, piece, count, scales + j, zeros + j, 1);
    }
}

static void dequantize_int4x2(float *to, const void *from, int64_t stride, int64_t n,
                              const float *scales, const float *zeros) {
    dequantize_halves(to, from, stride, n, scales, zeros, 1);
}

static void dequantize_uint4x2(float *to, const void *from, int64_t stride, int64_t n,
                               const float *scales, const float *zeros) {
    dequantize_halves(to, from, stride, n, scales, zeros, 0);
}

static float scale_of(const uint8_t *block) {
    uint16_t half;
    memcpy(&half, block, sizeof half);
    return attni_widen_float16(half);
}

static void dequantize_q8_0(float *to, const void *from, int64_t stride, int64_t n,
                            const float *scales, const float *zeros) {
    (void)scales;
    (void)zeros;
    for (int64_t j = 0; j < n; j += BLOCK_VALUES) {
        const uint8_t *block = (const uint8_t *)from + j / BLOCK_VALUES * stride * Q8_BYTES;
        const vector scale = broadcast(scale_of(block));
        for (int64_t i = 0; i < BLOCK_VALUES; i += LANES) {
            store(to + j + i, load_bytes(block + SCALE_BYTES + i, 1) * scale);
        }
    }
}

static void dequantize_q4_0(float *to, const void *from, int64_t stride, int64_t n,
                            const float *scales, const float *zeros) {
    (void)scales;
    (void)zeros;
    for (int64_t j = 0; j < n; j += BLOCK_VALUES) {
        const uint8_t *block = (const uint8_t *)from + j / BLOCK_VALUES * stride * Q4_BYTES;
        const vector scale = broadcast(scale_of(block));
        int8_t values[BLOCK_VALUES];
        for (int64_t i = 0; i < BLOCK_VALUES / 2; ++i) {
            const uint8_t byte = block[SCALE_BYTES + i];
            values[i] = (int8_t)((byte & 15) - Q4_ZERO);
            values[i + BLOCK_VALUES / 2] = (int8_t)((byte >> 4) - Q4_ZERO);
        }
        for (int64_t i = 0; i < BLOCK_VALUES; i += LANES) {
            store(to + j + i, load_bytes(values + i, 1) * scale);
        }
    }
}

const attni_quantized_kernels TABLE_NAME(quantized_kernels) = {
    .int8 = dequantize_int8,
    .uint8 = dequantize_uint8,
    .int4x2 = dequantize_int4x2,
    .uint4x2 = dequantize_uint4x2,
    .q8_0 = dequantize_q8_0,
    .q4_0 = dequantize_q4_0,
};
