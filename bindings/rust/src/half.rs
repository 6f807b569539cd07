// SPDX-License-Identifier: BSD-3-Clause
//! Numbers of 16 bits. They are stored; to compute with one, make it an `f32`.

use std::slice;

/// A bfloat16, the upper half of an `f32`: its bits.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// IEEE 754's binary16: its bits.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct F16(pub u16);

impl Bf16 {
    /// The nearest bfloat16, of two as near the one whose last bit is 0.
    pub fn from_f32(number: f32) -> Self {
        let bits = number.to_bits();
        let rounded = if number.is_nan() {
            bits | 0x40_0000
        } else {
            bits + 0x7fff + (bits >> 16 & 1)
        };
        Bf16((rounded >> 16) as u16)
    }

    /// Exactly the number.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl F16 {
    /// The nearest float16, of two as near the one whose last bit is 0; infinite from 65520 on.
    pub fn from_f32(number: f32) -> Self {
        let bits = number.to_bits();
        let size = bits & 0x7fff_ffff;
        let rounded = if number.is_nan() {
            0x7e00
        } else if size >= 0x477f_f000 {
            0x7c00
        } else if size < 113 << 23 {
            // A multiple of 2^-24: adding 1/2 rounds to one.
            (f32::from_bits(size) + 0.5).to_bits() - 0.5f32.to_bits()
        } else {
            (size - (112 << 23) + 0xfff + (size >> 13 & 1)) >> 13
        };
        F16((bits >> 16 & 0x8000 | rounded) as u16)
    }

    /// Exactly the number.
    pub fn to_f32(self) -> f32 {
        let moved = u32::from(self.0 & 0x7fff) << 13;
        let size = match self.0 & 0x7c00 {
            // Read as a normal number a subnormal one is by 2^-14 too large.
            0 => f32::from_bits(moved + (113 << 23)) - f32::from_bits(113 << 23),
            0x7c00 => f32::from_bits(moved + (224 << 23)),
            _ => f32::from_bits(moved + (112 << 23)),
        };
        f32::from_bits(size.to_bits() | u32::from(self.0 & 0x8000) << 16)
    }
}

macro_rules! half {
    ($half:ident) => {
        impl $half {
            /// Bits that are kept as integers, as the numbers they are.
            pub fn of_bits(bits: &[u16]) -> &[Self] {
                // SAFETY: transparent, and every u16 is a number.
                unsafe { slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
            }

            /// As [`of_bits`](Self::of_bits), for an output.
            pub fn of_bits_mut(bits: &mut [u16]) -> &mut [Self] {
                // SAFETY: as in of_bits.
                unsafe { slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), bits.len()) }
            }
        }

        impl From<$half> for f32 {
            fn from(number: $half) -> f32 {
                number.to_f32()
            }
        }
    };
}

half!(Bf16);
half!(F16);
