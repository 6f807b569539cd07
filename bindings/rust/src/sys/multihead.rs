// SPDX-License-Identifier: BSD-3-Clause
//! `attention/multihead.h`.

use std::os::raw::{c_char, c_void};

use super::context::attn_context;
use super::kv::attn_kv;
use super::rope::attn_rope_params;
use super::sdpa::{attn_sdpa_params, attn_sdpa_report};
use super::tensor::attn_tensor;

pub const ATTN_QK_NORM_NONE: i32 = 0;
pub const ATTN_QK_NORM_HEAD: i32 = 1;
pub const ATTN_QK_NORM_ALL_HEADS: i32 = 2;

#[repr(C)]
pub struct attn_mha {
    opaque: [u8; 0],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct attn_mha_config {
    pub struct_size: u64,
    pub embed_dim: i64,
    pub num_heads: i64,
    pub kdim: i64,
    pub vdim: i64,
    pub qdim: i64,
    pub num_kv_heads: i64,
    pub head_dim: i64,
    pub value_head_dim: i64,
    pub dtype: i32,
    pub no_bias: i32,
    pub add_bias_kv: i32,
    pub add_zero_attn: i32,
    pub batch_first: i32,
    pub parameter_dtype: i32,
    pub qk_norm: i32,
    pub reserved: i32,
    pub qk_norm_epsilon: f64,
    pub qk_norm_weight_offset: f64,
}

#[repr(C)]
pub struct attn_mha_load_params {
    pub struct_size: u64,
    pub scale: *const attn_tensor,
}

#[repr(C)]
pub struct attn_mha_init_params {
    pub struct_size: u64,
    pub seed: u64,
}

#[repr(C)]
pub struct attn_mha_params {
    pub struct_size: u64,
    pub key_padding_mask_kind: i32,
    pub reserved: i32,
    pub key_padding_mask: *const attn_tensor,
    pub attention: *const attn_sdpa_params,
    pub cache: *const attn_kv,
    pub rope: *const attn_rope_params,
    pub saved: *mut c_void,
    pub saved_bytes: u64,
}

#[repr(C)]
pub struct attn_mha_report {
    pub struct_size: u64,
    pub projection_gemm: i32,
    pub depends_on_blas_threads: i32,
    pub workspace_bytes: u64,
    pub kernels: *const c_char,
    pub attention: *mut attn_sdpa_report,
}

#[repr(C)]
pub struct attn_mha_outputs {
    pub struct_size: u64,
    pub output: attn_tensor,
    pub lse: attn_tensor,
    pub weights: attn_tensor,
    pub averaged_weights: attn_tensor,
    pub scores: attn_tensor,
}

default_is_zero_but_for_its_size!(
    attn_mha_config,
    attn_mha_load_params,
    attn_mha_init_params,
    attn_mha_params,
    attn_mha_report,
    attn_mha_outputs,
);

extern "C" {
    pub fn attn_mha_create(
        context: *mut attn_context,
        config: *const attn_mha_config,
        layer: *mut *mut attn_mha,
    ) -> i32;
    pub fn attn_mha_describe(layer: *const attn_mha, config: *mut attn_mha_config) -> i32;
    pub fn attn_mha_destroy(layer: *mut attn_mha);
    pub fn attn_mha_parameter_count(layer: *const attn_mha, count: *mut i64) -> i32;
    pub fn attn_mha_parameter_describe(
        layer: *const attn_mha,
        index: i64,
        name: *mut *const c_char,
        shape: *mut attn_tensor,
    ) -> i32;
    pub fn attn_mha_load_parameter(
        context: *mut attn_context,
        layer: *mut attn_mha,
        name: *const c_char,
        values: *const attn_tensor,
        params: *const attn_mha_load_params,
    ) -> i32;
    pub fn attn_mha_read_parameter(
        context: *mut attn_context,
        layer: *const attn_mha,
        name: *const c_char,
        values: *const attn_tensor,
    ) -> i32;
    pub fn attn_mha_init_parameters(
        context: *mut attn_context,
        layer: *mut attn_mha,
        params: *const attn_mha_init_params,
    ) -> i32;
    pub fn attn_mha_forward(
        context: *mut attn_context,
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        output: *const attn_tensor,
        workspace: *mut c_void,
        workspace_bytes: usize,
    ) -> i32;
    pub fn attn_mha_explain(
        context: *mut attn_context,
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        output: *const attn_tensor,
        report: *mut attn_mha_report,
    ) -> i32;
    pub fn attn_mha_describe_outputs(
        layer: *const attn_mha,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_mha_params,
        outputs: *mut attn_mha_outputs,
    ) -> i32;
}
