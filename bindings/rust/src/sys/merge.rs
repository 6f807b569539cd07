// SPDX-License-Identifier: BSD-3-Clause
//! `attention/merge.h`.

use super::context::attn_context;
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_merge_params {
    pub struct_size: u64,
    pub sinks: *const attn_tensor,
}

default_is_zero_but_for_its_size!(attn_merge_params,);

extern "C" {
    pub fn attn_sdpa_merge(
        context: *mut attn_context,
        count: i64,
        outputs: *const attn_tensor,
        lses: *const attn_tensor,
        params: *const attn_merge_params,
        output: *const attn_tensor,
        lse: *const attn_tensor,
    ) -> i32;
}
