// SPDX-License-Identifier: BSD-3-Clause
//! `attention/multihead_backward.h`.

use std::os::raw::c_void;

use super::backward::attn_sdpa_gradients;
use super::context::attn_context;
use super::multihead::{attn_mha, attn_mha_params};
use super::tensor::attn_tensor;

#[repr(C)]
pub struct attn_mha_gradients {
    pub struct_size: u64,
    pub accumulate: i32,
    pub reserved: i32,
    pub output: *const attn_tensor,
    pub query: *const attn_tensor,
    pub key: *const attn_tensor,
    pub value: *const attn_tensor,
    pub parameters: *const attn_tensor,
    pub num_parameters: i64,
    pub attention: *const attn_sdpa_gradients,
}

default_is_zero_but_for_its_size!(attn_mha_gradients);

extern "C" {
    pub fn attn_mha_saved_bytes(
        context: *mut attn_context,
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        bytes: *mut usize,
    ) -> i32;
    pub fn attn_mha_backward(
        context: *mut attn_context,
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        gradients: *const attn_mha_gradients,
        workspace: *mut c_void,
        workspace_bytes: usize,
    ) -> i32;
    pub fn attn_mha_backward_workspace_bytes(
        context: *mut attn_context,
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        gradients: *const attn_mha_gradients,
        bytes: *mut usize,
    ) -> i32;
}
