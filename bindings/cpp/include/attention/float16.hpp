/* SPDX-License-Identifier: BSD-3-Clause
 *
 * float16.hpp: numbers of 16 bits. They are stored; to compute with one, make it a float.
 */
#ifndef ATTENTION_FLOAT16_HPP
#define ATTENTION_FLOAT16_HPP

#include <cmath>
#include <cstdint>
#include <cstring>

/* What C++23 has is an element type too, where the compiler has it. */
#if defined(__STDCPP_BFLOAT16_T__) && defined(__STDCPP_FLOAT16_T__)
#include <stdfloat>
#define ATTENTION_HAS_STDFLOAT 1
#endif

namespace attention {

namespace detail {

inline std::uint32_t bits_of(float number) {
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

} // namespace detail

/* The upper half of a float. Made of one it is the nearest, the even one of two as near. */
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;
    explicit bfloat16(float number) {
        const std::uint32_t wide = detail::bits_of(number);
        const std::uint32_t rounded =
            std::isnan(number) ? wide | 0x400000U : wide + 0x7fffU + (wide >> 16 & 1U);
        bits = static_cast<std::uint16_t>(rounded >> 16);
    }
    static bfloat16 from_bits(std::uint16_t bits) {
        bfloat16 made;
        made.bits = bits;
        return made;
    }
    explicit operator float() const {
        return detail::float_of(std::uint32_t{bits} << 16);
    }
};

/* IEEE 754's binary16. Made of a float it is the nearest, the even one of two as near, and infinite
 * from 65520 on. */
struct float16 {
    std::uint16_t bits = 0;

    float16() = default;
    explicit float16(float number) {
        const std::uint32_t wide = detail::bits_of(number), size = wide & 0x7fffffffU;
        std::uint32_t rounded;
        if (std::isnan(number)) {
            rounded = 0x7e00U;
        } else if (size >= 0x477ff000U) {
            rounded = 0x7c00U;
        } else if (size < 113U << 23) { /* a multiple of 2^-24: adding 1/2 rounds to one */
            rounded = detail::bits_of(detail::float_of(size) + 0.5F) - detail::bits_of(0.5F);
        } else {
            rounded = (size - (112U << 23) + 0xfffU + (size >> 13 & 1U)) >> 13;
        }
        bits =
            static_cast<std::uint16_t>(wide >> 16 & 0x8000U) | static_cast<std::uint16_t>(rounded);
    }
    static float16 from_bits(std::uint16_t bits) {
        float16 made;
        made.bits = bits;
        return made;
    }
    explicit operator float() const {
        const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
        float size;
        if (exponent == 0x1f) {
            size = detail::float_of(0x7f800000U | static_cast<std::uint32_t>(fraction) << 13);
        } else if (exponent == 0) {
            size = std::ldexp(static_cast<float>(fraction), -24);
        } else {
            size = std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
        }
        return std::copysign(size, (bits & 0x8000) != 0 ? -1.0F : 1.0F);
    }
};

/* Bits that are kept as integers, as the numbers they are: for views, which take the address. */
template <class T> T *numbers_of(std::uint16_t *bits) {
    static_assert(sizeof(T) == sizeof *bits, "numbers of 16 bits");
    return reinterpret_cast<T *>(bits);
}
template <class T> const T *numbers_of(const std::uint16_t *bits) {
    static_assert(sizeof(T) == sizeof *bits, "numbers of 16 bits");
    return reinterpret_cast<const T *>(bits);
}

static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2, "an element is its 16 bits");

} // namespace attention

#endif
