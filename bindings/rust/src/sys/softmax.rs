// SPDX-License-Identifier: BSD-3-Clause
//! `attention/softmax.h`.

pub const ATTN_MASK_NONE: i32 = 0;
pub const ATTN_MASK_ADDITIVE: i32 = 1;
pub const ATTN_MASK_BOOL_INCLUDE: i32 = 2;
pub const ATTN_MASK_BOOL_EXCLUDE: i32 = 3;
