// SPDX-License-Identifier: BSD-3-Clause
//! `attention/backward.h`.

use std::os::raw::{c_char, c_void};

use super::context::attn_context;
use super::sdpa::attn_sdpa_params;
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_sdpa_gradients {
    pub struct_size: u64,
    pub accumulate: i32,
    pub reserved: i32,
    pub output: *const attn_tensor,
    pub lse: *const attn_tensor,
    pub weights: *const attn_tensor,
    pub query: *const attn_tensor,
    pub key: *const attn_tensor,
    pub value: *const attn_tensor,
    pub mask: *const attn_tensor,
    pub bias: *const attn_tensor,
    pub position_bias: *const attn_tensor,
    pub alibi_slopes: *const attn_tensor,
    pub sinks: *const attn_tensor,
}

#[repr(C)]
pub struct attn_sdpa_backward_report {
    pub struct_size: u64,
    pub whole_heads: i32,
    pub staged: i32,
    pub num_items: i64,
    pub row_block: i64,
    pub key_block: i64,
    pub workspace_bytes: u64,
    pub kernels: *const c_char,
    pub reason: *const c_char,
}

default_is_zero_but_for_its_size!(attn_sdpa_gradients, attn_sdpa_backward_report,);

extern "C" {
    pub fn attn_sdpa_backward(
        context: *mut attn_context,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        output: *const attn_tensor,
        gradients: *const attn_sdpa_gradients,
        workspace: *mut c_void,
        workspace_bytes: usize,
    ) -> i32;
    pub fn attn_sdpa_backward_workspace_bytes(
        context: *mut attn_context,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        output: *const attn_tensor,
        gradients: *const attn_sdpa_gradients,
        bytes: *mut usize,
    ) -> i32;
    pub fn attn_sdpa_backward_explain(
        context: *mut attn_context,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        output: *const attn_tensor,
        gradients: *const attn_sdpa_gradients,
        report: *mut attn_sdpa_backward_report,
    ) -> i32;
}
