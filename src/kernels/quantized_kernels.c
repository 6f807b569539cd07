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
    PIECE = 128,       /* values */
    HALVES = 16,       /* bytes that are cut in halves at a time */
    BLOCK_VALUES = 32, /* of ggml's blocks, which begin with a scale of */
    SCALE_BYTES = 2,   /* bytes */
    Q8_BYTES = SCALE_BYTES + BLOCK_VALUES,
    Q4_BYTES = SCALE_BYTES + BLOCK_VALUES / 2,
    Q4_ZERO = 8
};

INLINE void scale_bytes_alike(float *to, const uint8_t *from, int64_t n, float scale, float zero,
                              const int has_sign) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(to + j, (load_bytes(from + j, has_sign) - zero) * scale);
    }
    for (; j < n; ++j) {
        const int element = has_sign ? (int8_t)from[j] : from[j];
        to[j] = ((float)element - zero) * scale;
    }
}

INLINE void scale_bytes(float *to, const uint8_t *from, int64_t n, attni_value_numbers numbers,
                        const int has_sign) {
    const float *scales = numbers.scales;
    const float *zeros = numbers.zeros;
    if (numbers.alike > 1) {
        for (int64_t j = 0, i = 0; j < n; j += numbers.alike, ++i) {
            const int64_t count = n - j < numbers.alike ? n - j : numbers.alike;
            scale_bytes_alike(to + j, from + j, count, scales[i], zeros[i], has_sign);
            if (numbers.alike >= n) {
                break; /* the sum might not fit */
            }
        }
        return;
    }
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        store(to + j, (load_bytes(from + j, has_sign) - load(zeros + j)) * load(scales + j));
    }
    for (; j < n; ++j) {
        const int element = has_sign ? (int8_t)from[j] : from[j];
        to[j] = ((float)element - zeros[j]) * scales[j];
    }
}

/* Those of value `first` and on, which is the first of its number. */
INLINE attni_value_numbers numbers_from(attni_value_numbers numbers, int64_t first) {
    const int64_t offset = first / numbers.alike;
    return (attni_value_numbers){numbers.scales + offset, numbers.zeros + offset, numbers.alike};
}

/* Values that are taken at a time, at most PIECE: whole numbers' worth, or all of one number. */
INLINE int64_t values_of_piece(attni_value_numbers numbers) {
    return numbers.alike < PIECE ? PIECE / numbers.alike * numbers.alike : PIECE;
}

/* `count` bytes that lie `stride` apart, side by side. */
static const uint8_t *gather(uint8_t *to, const uint8_t *from, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = from[i * stride];
    }
    return to;
}

INLINE void dequantize_bytes(float *to, const uint8_t *from, int64_t stride, int64_t n,
                             attni_value_numbers numbers, const int has_sign) {
    uint8_t piece[PIECE];
    const int64_t width = stride == 1 ? n : values_of_piece(numbers);
    for (int64_t j = 0; j < n; j += width) {
        const int64_t count = n - j < width ? n - j : width;
        const uint8_t *bytes = from + j * stride;
        bytes = stride == 1 ? bytes : gather(piece, bytes, stride, count);
        scale_bytes(to + j, bytes, count, numbers_from(numbers, j), has_sign);
    }
}

static void dequantize_int8(float *to, const void *from, int64_t stride, int64_t n,
                            attni_value_numbers numbers) {
    dequantize_bytes(to, from, stride, n, numbers, 1);
}

static void dequantize_uint8(float *to, const void *from, int64_t stride, int64_t n,
                             attni_value_numbers numbers) {
    dequantize_bytes(to, from, stride, n, numbers, 0);
}

/* ---- halves of bytes ---- */

typedef uint8_t bytes16 __attribute__((vector_size(HALVES)));
typedef uint8_t bytes16_in_memory __attribute__((vector_size(HALVES), aligned(1), may_alias));

/* Moves 4 bits of two's complement to where 8 bits have their sign. */
INLINE bytes16 with_sign(bytes16 halves, const int has_sign) {
    return has_sign ? (halves ^ 8) - 8 : halves;
}

/* 16 bytes side by side: the low half of each and then the high one, as they follow each other, or
 * all low halves first. */
INLINE void unpack_16_bytes(uint8_t *to, const uint8_t *from, const int are_neighbours,
                            const int has_sign) {
    const bytes16 bytes = *(const bytes16_in_memory *)from;
    const bytes16 low = with_sign(bytes & 15, has_sign);
    const bytes16 high = with_sign(bytes >> 4, has_sign);
    bytes16_in_memory *halves = (bytes16_in_memory *)to;
    if (are_neighbours) {
        halves[0] = __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                            22, 7, 23);
        halves[1] = __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                            14, 30, 15, 31);
    } else {
        halves[0] = low;
        halves[1] = high;
    }
}

/* To room for whole 16 bytes. */
INLINE void unpack_bytes(uint8_t *to, const uint8_t *from, int64_t stride, int64_t count,
                         const int has_sign) {
    int64_t i = 0;
    for (; stride == 1 && i + HALVES <= count; i += HALVES) {
        unpack_16_bytes(to + 2 * i, from + i, 1, has_sign);
    }
    for (; i < count; i += HALVES) {
        uint8_t bytes[HALVES] = {0};
        gather(bytes, from + i * stride, stride, count - i < HALVES ? count - i : HALVES);
        unpack_16_bytes(to + 2 * i, bytes, 1, has_sign);
    }
}

INLINE void dequantize_halves(float *to, const uint8_t *from, int64_t stride, int64_t n,
                              attni_value_numbers numbers, const int has_sign) {
    uint8_t piece[PIECE] = {0};
    const int64_t width = values_of_piece(numbers);
    for (int64_t j = 0; j < n; j += width) {
        const int64_t count = n - j < width ? n - j : width;
        unpack_bytes(piece, from + j / 2 * stride, stride, count / 2, has_sign);
        scale_bytes(to + j, piece, count, numbers_from(numbers, j), 1);
    }
}

static void dequantize_int4x2(float *to, const void *from, int64_t stride, int64_t n,
                              attni_value_numbers numbers) {
    dequantize_halves(to, from, stride, n, numbers, 1);
}

static void dequantize_uint4x2(float *to, const void *from, int64_t stride, int64_t n,
                               attni_value_numbers numbers) {
    dequantize_halves(to, from, stride, n, numbers, 0);
}

/* ---- blocks with their own scale ---- */

static float scale_of(const uint8_t *block) {
    uint16_t half;
    memcpy(&half, block, sizeof half);
    return attni_widen_float16(half);
}

static void dequantize_q8_0(float *to, const void *from, int64_t stride, int64_t n,
                            attni_value_numbers numbers) {
    (void)numbers;
    for (int64_t j = 0; j < n; j += BLOCK_VALUES) {
        const uint8_t *block = (const uint8_t *)from + j / BLOCK_VALUES * stride * Q8_BYTES;
        const vector scale = broadcast(scale_of(block));
        for (int64_t i = 0; i < BLOCK_VALUES; i += LANES) {
            store(to + j + i, load_bytes(block + SCALE_BYTES + i, 1) * scale);
        }
    }
}

static void dequantize_q4_0(float *to, const void *from, int64_t stride, int64_t n,
                            attni_value_numbers numbers) {
    (void)numbers;
    for (int64_t j = 0; j < n; j += BLOCK_VALUES) {
        const uint8_t *block = (const uint8_t *)from + j / BLOCK_VALUES * stride * Q4_BYTES;
        const vector scale = broadcast(scale_of(block));
        uint8_t values[BLOCK_VALUES];
        unpack_16_bytes(values, block + SCALE_BYTES, 0, 0);
        for (int64_t i = 0; i < BLOCK_VALUES; i += LANES) {
            store(to + j + i, (load_bytes(values + i, 0) - (float)Q4_ZERO) * scale);
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
