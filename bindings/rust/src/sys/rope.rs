// SPDX-License-Identifier: BSD-3-Clause
//! `attention/rope.h`.

use super::context::attn_context;
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_rope_params {
    pub struct_size: u64,
    pub rotary_dim: i64,
    pub base: f64,
    pub magnitude: f64,
    pub interleaved: i32,
    pub inverse: i32,
    pub frequencies: *const attn_tensor,
    pub cos: *const attn_tensor,
    pub sin: *const attn_tensor,
    pub positions: *const attn_tensor,
    pub lengths: *const attn_tensor,
}

default_is_zero_but_for_its_size!(attn_rope_params,);

extern "C" {
    pub fn attn_rope(
        context: *mut attn_context,
        input: *const attn_tensor,
        params: *const attn_rope_params,
        output: *const attn_tensor,
    ) -> i32;
}
