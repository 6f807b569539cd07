/* SPDX-License-Identifier: BSD-3-Clause
 *
 * packed_elements.hpp: elements of caches that are several values. A view's shape and strides count
 * elements, as attention/tensor.h says: 64 values are an axis of 32 int4x2, or of 2 q8_0.
 */
#ifndef ATTENTION_PACKED_ELEMENTS_HPP
#define ATTENTION_PACKED_ELEMENTS_HPP

#include <cstdint>

#include "float16.hpp"

namespace attention {

/* Two values from -7 to 7, two's complement, the first in the low half. */
struct int4x2 {
    std::uint8_t bits = 0;
};

/* Two values from 0 to 15, the first in the low half. */
struct uint4x2 {
    std::uint8_t bits = 0;
};

/* ggml's block of 32 values: values[i] * scale. */
struct q8_0 {
    float16 scale;
    std::int8_t values[32] = {};
};

/* Likewise: (the low half of bits[i] - 8) * scale is value i, the high half's is value 16 + i. Only
 * read. */
struct q4_0 {
    float16 scale;
    std::uint8_t bits[16] = {};
};

static_assert(sizeof(int4x2) == 1 && sizeof(uint4x2) == 1, "an element is a byte");
static_assert(sizeof(q8_0) == 34 && sizeof(q4_0) == 18, "an element is ggml's block");

} // namespace attention

#endif
