// SPDX-License-Identifier: BSD-3-Clause
//! `attention/tensor.h`.

use std::os::raw::c_void;

pub const ATTN_MAX_RANK: usize = 8;

pub const ATTN_DTYPE_INVALID: i32 = 0;
pub const ATTN_DTYPE_FLOAT32: i32 = 1;
pub const ATTN_DTYPE_FLOAT64: i32 = 2;
pub const ATTN_DTYPE_BOOL: i32 = 3;
pub const ATTN_DTYPE_INT64: i32 = 4;
pub const ATTN_DTYPE_BFLOAT16: i32 = 5;
pub const ATTN_DTYPE_FLOAT16: i32 = 6;
pub const ATTN_DTYPE_INT32: i32 = 7;
pub const ATTN_DTYPE_INT8: i32 = 8;
pub const ATTN_DTYPE_UINT8: i32 = 9;
pub const ATTN_DTYPE_INT4X2: i32 = 12;
pub const ATTN_DTYPE_Q8_0: i32 = 13;
pub const ATTN_DTYPE_Q4_0: i32 = 14;
pub const ATTN_DTYPE_UINT4X2: i32 = 15;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct attn_tensor {
    pub data: *mut c_void,
    pub dtype: i32,
    pub rank: i32,
    pub shape: [i64; ATTN_MAX_RANK],
    pub strides: [i64; ATTN_MAX_RANK],
}

extern "C" {
    pub fn attn_tensor_transpose(
        tensor: *const attn_tensor,
        axis_a: i32,
        axis_b: i32,
        view: *mut attn_tensor,
    ) -> i32;
    pub fn attn_tensor_select(
        tensor: *const attn_tensor,
        axis: i32,
        index: i64,
        view: *mut attn_tensor,
    ) -> i32;
    pub fn attn_tensor_split_heads(
        tensor: *const attn_tensor,
        num_heads: i64,
        view: *mut attn_tensor,
    ) -> i32;
    pub fn attn_tensor_merge_heads(tensor: *const attn_tensor, view: *mut attn_tensor) -> i32;
}
