// SPDX-License-Identifier: BSD-3-Clause
//! `attention/sdpa.h`.

use std::os::raw::{c_char, c_void};

use super::context::attn_context;
use super::kv::attn_kv;
use super::tensor::attn_tensor;

pub const ATTN_SDPA_SET_SCALE: i32 = 1;
pub const ATTN_SDPA_SET_WINDOW: i32 = 2;

pub const ATTN_SDPA_PACK_QUERY: i32 = 1;
pub const ATTN_SDPA_PACK_KEY: i32 = 2;
pub const ATTN_SDPA_PACK_VALUE: i32 = 4;
pub const ATTN_SDPA_PACK_OUTPUT: i32 = 8;

pub const ATTN_NORMALIZER_SOFTMAX: i32 = 0;
pub const ATTN_NORMALIZER_SIGMOID: i32 = 1;
pub const ATTN_NORMALIZER_LINEAR: i32 = 2;

pub const ATTN_SCORE_SCALED: i32 = 0;
pub const ATTN_SCORE_CAPPED: i32 = 1;
pub const ATTN_SCORE_MASKED: i32 = 2;

pub const ATTN_BLOCK_HIDDEN: i32 = 0;
pub const ATTN_BLOCK_VISIBLE: i32 = 1;
pub const ATTN_BLOCK_MASKED: i32 = 2;

#[repr(C)]
pub struct attn_sdpa_report {
    pub struct_size: u64,
    pub engine: i32,
    pub gemm: i32,
    pub depends_on_blas_threads: i32,
    pub packs: i32,
    pub row_block: i64,
    pub num_blocks: i64,
    pub workspace_bytes: u64,
    pub kernels: *const c_char,
    pub reason: *const c_char,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct attn_dropout {
    pub struct_size: u64,
    pub probability: f64,
    pub seed: u64,
    pub offset: u64,
    pub batch: i64,
    pub head: i64,
    pub row: i64,
    pub column: i64,
}

#[repr(C)]
pub struct attn_sdpa_params {
    pub struct_size: u64,
    pub set: i32,
    pub is_causal: i32,
    pub scale: f64,
    pub softcap: f64,
    pub window_left: i64,
    pub window_right: i64,
    pub enable_gqa: i32,
    pub align_end: i32,
    pub normalizer: i32,
    pub mask_kind: i32,
    pub mask: *const attn_tensor,
    pub bias: *const attn_tensor,
    pub query_offset: *const attn_tensor,
    pub key_lengths: *const attn_tensor,
    pub alibi_slopes: *const attn_tensor,
    pub sinks: *const attn_tensor,
    pub lse: *const attn_tensor,
    pub weights: *const attn_tensor,
    pub report: *mut attn_sdpa_report,
    pub kv: *const attn_kv,
    pub query_starts: *const attn_tensor,
    pub scores: *const attn_tensor,
    pub scores_stage: i32,
    pub reserved: i32,
    pub mask_start: *const attn_tensor,
    pub position_bias: *const attn_tensor,
    pub block_mask: *const attn_tensor,
    pub block_rows: i64,
    pub block_columns: i64,
    pub dropout: *const attn_dropout,
}

#[repr(C)]
pub struct attn_sdpa_outputs {
    pub struct_size: u64,
    pub output: attn_tensor,
    pub lse: attn_tensor,
    pub weights: attn_tensor,
    pub averaged_weights: attn_tensor,
    pub scores: attn_tensor,
}

default_is_zero_but_for_its_size!(
    attn_dropout,
    attn_sdpa_report,
    attn_sdpa_params,
    attn_sdpa_outputs,
);

extern "C" {
    pub fn attn_sdpa(
        context: *mut attn_context,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        output: *const attn_tensor,
        workspace: *mut c_void,
        workspace_bytes: usize,
    ) -> i32;
    pub fn attn_sdpa_explain(
        context: *mut attn_context,
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        output: *const attn_tensor,
        report: *mut attn_sdpa_report,
    ) -> i32;
    pub fn attn_sdpa_describe_outputs(
        query: *const attn_tensor,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_sdpa_params,
        outputs: *mut attn_sdpa_outputs,
    ) -> i32;
}
