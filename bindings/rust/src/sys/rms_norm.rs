// SPDX-License-Identifier: BSD-3-Clause
//! `attention/rms_norm.h`.

use super::context::attn_context;
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_rms_norm_params {
    pub struct_size: u64,
    pub weight: *const attn_tensor,
    pub epsilon: f64,
    pub weight_offset: f64,
}

default_is_zero_but_for_its_size!(attn_rms_norm_params,);

extern "C" {
    pub fn attn_rms_norm(
        context: *mut attn_context,
        input: *const attn_tensor,
        params: *const attn_rms_norm_params,
        output: *const attn_tensor,
    ) -> i32;
}
