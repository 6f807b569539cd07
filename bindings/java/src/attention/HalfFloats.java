// SPDX-License-Identifier: BSD-3-Clause
package attention;

/**
 * Numbers of 16 bits, each a short of its bits, from and to floats; float16's are what Float has from
 * JDK 20 on. A float becomes the nearest number, of two as near the one whose last bit is 0.
 */
public final class HalfFloats {
    private HalfFloats() {}

    /** A bfloat16 is the upper half of a float. */
    public static float bfloat16ToFloat(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    public static short floatToBfloat16(float number) {
        final int bits = Float.floatToRawIntBits(number);
        final int rounded = Float.isNaN(number) ? bits | 0x400000 : bits + 0x7fff + (bits >>> 16 & 1);
        return (short) (rounded >>> 16);
    }

    /** A float16 is IEEE 754's binary16. */
    public static float float16ToFloat(short bits) {
        final int moved = (bits & 0x7fff) << 13;
        final int sign = (bits & 0x8000) << 16;
        final int size =
                switch (bits & 0x7c00) {
                    // Read as a normal number a subnormal one is by 2^-14 too large.
                    case 0 -> Float.floatToRawIntBits(
                            Float.intBitsToFloat(moved + (113 << 23)) - Float.intBitsToFloat(113 << 23));
                    case 0x7c00 -> moved + (224 << 23);
                    default -> moved + (112 << 23);
                };
        return Float.intBitsToFloat(size | sign);
    }

    /** Infinite from 65520 on. */
    public static short floatToFloat16(float number) {
        final int bits = Float.floatToRawIntBits(number);
        final int size = bits & 0x7fffffff;
        final int rounded;
        if (Float.isNaN(number)) {
            rounded = 0x7e00;
        } else if (size >= 0x477ff000) {
            rounded = 0x7c00;
        } else if (size < 113 << 23) { // a multiple of 2^-24: adding 1/2 rounds to one
            rounded = Float.floatToRawIntBits(Float.intBitsToFloat(size) + 0.5f) - Float.floatToRawIntBits(0.5f);
        } else {
            rounded = size - (112 << 23) + 0xfff + (size >>> 13 & 1) >>> 13;
        }
        return (short) (bits >>> 16 & 0x8000 | rounded);
    }
}
