/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quantize_row.c: scales of blocks of a row, then its elements. Quotients are float64, so that an
 * element is the nearest to the number and not to a rounded quotient.
 */
#include "cache/quantize_row.h"

#include <math.h>
#include <string.h>

#include "base/checked_size.h"
#include "kernels/stored_rows.h"
#include "tensor/element.h"

enum {
    PIECE = 128,       /* values; whole elements of every type */
    BLOCK_VALUES = 32, /* of ATTN_DTYPE_Q8_0, which begins with a scale of */
    SCALE_BYTES = 2,   /* bytes */
    Q8_LARGEST = 127
};

/* The elements that are written. */
typedef struct element_range {
    double lowest;
    double highest;
    double largest; /* distance from the zero that stands for one that is not given */
} element_range;

static element_range range_of(int32_t dtype) {
    switch (dtype) {
    case ATTN_DTYPE_INT8:
        return (element_range){-127, 127, 127};
    case ATTN_DTYPE_UINT8:
        return (element_range){0, 255, 127};
    case ATTN_DTYPE_INT4X2:
        return (element_range){-7, 7, 7};
    default:
        return (element_range){0, 15, 7};
    }
}

/* `count` new numbers from column `first` on. */
static void read_numbers(const attni_kernel_set *set, const attni_new_rows *part,
                         const attni_source_rows *from, int64_t first, int64_t count, float *to) {
    const char *data =
        attni_advance(from->data, first * from->col_stride * part->from.element_bytes);
    if (part->from.dtype != ATTN_DTYPE_FLOAT64) {
        attni_take_row(set, to, data, part->from.dtype, from->col_stride, count);
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        to[i] = (float)attni_read_real(data, i * from->col_stride, ATTN_DTYPE_FLOAT64);
    }
}

/* ---- scales that new rows bring ---- */

/* Of a block's numbers, 0 counted among them. */
typedef struct number_range {
    double lowest;
    double highest;
    bool is_finite;
} number_range;

static void widen_range(number_range *range, const float *numbers, int64_t count) {
    float lowest = (float)range->lowest, highest = (float)range->highest, zeros = 0;
    for (int64_t i = 0; i < count; ++i) {
        lowest = numbers[i] < lowest ? numbers[i] : lowest;
        highest = numbers[i] > highest ? numbers[i] : highest;
        zeros += numbers[i] * 0; /* 0 of finite numbers only */
    }
    range->lowest = (double)lowest;
    range->highest = (double)highest;
    range->is_finite = range->is_finite && zeros == 0;
}

/* Stores a number of 0 and up, rounded up, and returns what is stored. */
static double write_rounded_up(char *data, int64_t offset, int32_t dtype, double number) {
    attni_write_real(data, offset, dtype, number);
    const double stored = attni_read_real(data, offset, dtype);
    if (!(stored < number)) {
        return stored;
    }
    char *at = data + offset * (int64_t)attn_dtype_size_bytes(dtype);
    if (dtype == ATTN_DTYPE_FLOAT32) {
        uint32_t bits;
        memcpy(&bits, at, sizeof bits);
        ++bits;
        memcpy(at, &bits, sizeof bits);
    } else {
        uint16_t bits;
        memcpy(&bits, at, sizeof bits);
        ++bits;
        memcpy(at, &bits, sizeof bits);
    }
    return attni_read_real(data, offset, dtype);
}

static void write_block(const attni_sdpa_problem *cache, const attni_new_rows *part,
                        const attni_number_row *at, int64_t col, number_range range) {
    const attni_block_numbers *scales = &part->quantization.scale;
    const attni_block_numbers *zeros = &part->quantization.zero;
    const element_range elements = range_of(part->to.dtype);
    const bool has_zero = zeros->dtype != 0;
    const double exact = !range.is_finite ? (double)NAN
                         : has_zero
                             ? (range.highest - range.lowest) / (elements.highest - elements.lowest)
                             : fmax(range.highest, -range.lowest) / elements.largest;
    const double scale = write_rounded_up(scales->data, attni_number_offset(cache, scales, at, col),
                                          scales->dtype, exact);
    if (has_zero) {
        const double zero =
            scale > 0 ? rint(elements.lowest - range.lowest / scale) : elements.lowest;
        attni_write_real(zeros->data, attni_number_offset(cache, zeros, at, col), zeros->dtype,
                         zero);
    }
}

static void write_scales(const attni_kernel_set *set, const attni_sdpa_problem *cache,
                         const attni_new_rows *part, const attni_source_rows *from,
                         const attni_number_row *at) {
    const attni_block_numbers *scales = &part->quantization.scale;
    const int64_t block = attni_min(part->features, scales->steps[cache->batch_rank + 2]);
    float numbers[PIECE];
    for (int64_t first = 0; first < part->features; first += block) {
        number_range range = {0, 0, true};
        for (int64_t done = 0; done < block;) {
            const int64_t count = attni_min(PIECE, block - done);
            read_numbers(set, part, from, first + done, count, numbers);
            widen_range(&range, numbers, count);
            done += count;
        }
        write_block(cache, part, at, first, range);
    }
}

/* ---- elements ---- */

/* The element nearest to number / scale + zero, ties to even. Adding 1.5 * 2^52 rounds to an
 * integer. */
static int quantized(float number, float scale, float zero, const element_range *elements) {
    const double magic = 0x1.8p52;
    double element = (double)number / (double)scale + (double)zero;
    if (number != number || !(scale != 0)) {
        element = (double)zero;
    }
    element = element > elements->highest ? elements->highest : element;
    element = element >= elements->lowest ? element : elements->lowest;
    return (int)(element + magic - magic);
}

static void write_elements(const attni_new_rows *part, const attni_source_rows *to, int64_t first,
                           int64_t count, const int *levels) {
    const bool is_packed = attn_dtype_values(part->to.dtype) == 2;
    unsigned char *at = (unsigned char *)to->data;
    if (!is_packed) {
        for (int64_t i = 0; i < count; ++i) {
            at[(first + i) * to->col_stride] = (unsigned char)levels[i];
        }
        return;
    }
    for (int64_t i = 0; i < count; i += 2) {
        at[(first + i) / 2 * to->col_stride] =
            (unsigned char)((levels[i] & 15) | (levels[i + 1] & 15) << 4);
    }
}

static void quantize_scaled(const attni_kernel_set *set, const attni_sdpa_problem *cache,
                            const attni_new_rows *part, const attni_source_rows *from,
                            const attni_source_rows *to, const attni_number_row *at) {
    const element_range elements = range_of(part->to.dtype);
    float numbers[PIECE], scales[PIECE], zeros[PIECE];
    int levels[PIECE] = {0};
    for (int64_t first = 0; first < part->features; first += PIECE) {
        const int64_t count = attni_min(PIECE, part->features - first);
        read_numbers(set, part, from, first, count, numbers);
        attni_lay_out_numbers(cache, &part->quantization.scale, at, first, count, 1, scales);
        attni_lay_out_numbers(cache, &part->quantization.zero, at, first, count,
                              attni_middle_of(part->to.dtype), zeros);
        for (int64_t i = 0; i < count; ++i) {
            levels[i] = quantized(numbers[i], scales[i], zeros[i], &elements);
        }
        write_elements(part, to, first, count, levels);
    }
}

/* ---- blocks with their own scale ---- */

static float largest_magnitude(const float *numbers, int64_t count) {
    number_range range = {0, 0, true};
    widen_range(&range, numbers, count);
    return range.is_finite ? (float)fmax(range.highest, -range.lowest) : NAN;
}

/* ggml's rule: the reciprocal of the scale before that is rounded, ties away from zero. */
static void write_q8_0(unsigned char *block, const float *numbers) {
    const float scale = largest_magnitude(numbers, BLOCK_VALUES) / Q8_LARGEST;
    const float inverse = scale > 0 ? 1 / scale : 0;
    attni_write_real((char *)block, 0, ATTN_DTYPE_FLOAT16, (double)scale);
    for (int64_t i = 0; i < BLOCK_VALUES; ++i) {
        const float nearest = roundf(numbers[i] * inverse);
        const float most = nearest > Q8_LARGEST ? Q8_LARGEST : nearest;
        const float least = most < -Q8_LARGEST ? -Q8_LARGEST : most;
        block[SCALE_BYTES + i] = (unsigned char)(least == least ? (int)least : 0);
    }
}

static void quantize_q8_0(const attni_kernel_set *set, const attni_new_rows *part,
                          const attni_source_rows *from, const attni_source_rows *to) {
    float numbers[BLOCK_VALUES];
    for (int64_t first = 0; first < part->features; first += BLOCK_VALUES) {
        const int64_t element = first / BLOCK_VALUES * to->col_stride;
        read_numbers(set, part, from, first, BLOCK_VALUES, numbers);
        write_q8_0((unsigned char *)to->data + element * part->to.element_bytes, numbers);
    }
}

void attni_quantize_row(const attni_kernel_set *set, const attni_sdpa_problem *cache,
                        const attni_new_rows *part, const attni_source_rows *from,
                        const attni_source_rows *to, const attni_number_row *at) {
    if (part->to.dtype == ATTN_DTYPE_Q8_0) {
        quantize_q8_0(set, part, from, to);
        return;
    }
    if (part->writes_scale) {
        write_scales(set, cache, part, from, at);
    }
    quantize_scaled(set, cache, part, from, to, at);
}
