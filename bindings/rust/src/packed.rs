// SPDX-License-Identifier: BSD-3-Clause
//! Elements of caches that are several values. The shape and strides of a view count elements: 64
//! values are an axis of 32 [`Int4x2`], or of 2 [`Q8_0`].

use crate::half::F16;

/// Two values from -7 to 7, two's complement, the first in the low half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Int4x2(pub u8);

/// Two values from 0 to 15, the first in the low half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Uint4x2(pub u8);

/// ggml's block of 32 values: `values[i]` * scale.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Q8_0 {
    /// What the integers are multiplied by.
    pub scale: F16,
    /// The integers.
    pub values: [i8; 32],
}

/// Likewise: (the low half of `bits[i]` - 8) * scale is value i, the high half's is value 16 + i.
/// Only read.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Q4_0 {
    /// What the integers are multiplied by.
    pub scale: F16,
    /// The integers, two in each byte.
    pub bits: [u8; 16],
}
