// SPDX-License-Identifier: BSD-3-Clause
//! `attention/kv.h`.

use super::context::attn_context;
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_kv {
    pub struct_size: u64,
    pub key: *const attn_tensor,
    pub value: *const attn_tensor,
    pub page_table: *const attn_tensor,
    pub page_starts: *const attn_tensor,
    pub starts: *const attn_tensor,
    pub lengths: *const attn_tensor,
    pub key_scale: *const attn_tensor,
    pub value_scale: *const attn_tensor,
    pub key_zero: *const attn_tensor,
    pub value_zero: *const attn_tensor,
}

#[repr(C)]
pub struct attn_kv_append_params {
    pub struct_size: u64,
    pub starts: *const attn_tensor,
    pub positions: *const attn_tensor,
}

default_is_zero_but_for_its_size!(attn_kv, attn_kv_append_params,);

extern "C" {
    pub fn attn_kv_append(
        context: *mut attn_context,
        kv: *const attn_kv,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_kv_append_params,
    ) -> i32;
}
