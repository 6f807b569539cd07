// SPDX-License-Identifier: BSD-3-Clause
//! The C ABI as it is: the declarations this crate uses, under their C names.
//!
//! The headers in `attention/` are the manual. The test `abi` compares every struct and constant
//! with them.
#![allow(non_camel_case_types, missing_docs)]

use std::os::raw::{c_char, c_void};

pub const ATTN_MAX_RANK: usize = 8;

pub const ATTN_OK: i32 = 0;
pub const ATTN_ERROR_NULL: i32 = 1;
pub const ATTN_ERROR_VALUE: i32 = 2;
pub const ATTN_ERROR_SHAPE: i32 = 3;
pub const ATTN_ERROR_DTYPE: i32 = 4;
pub const ATTN_ERROR_OVERLAP: i32 = 5;
pub const ATTN_ERROR_OVERFLOW: i32 = 6;
pub const ATTN_ERROR_PARAMETER: i32 = 7;
pub const ATTN_ERROR_WORKSPACE: i32 = 8;
pub const ATTN_ERROR_MEMORY: i32 = 9;
pub const ATTN_ERROR_THREAD: i32 = 10;
pub const ATTN_ERROR_UNSUPPORTED: i32 = 11;
pub const ATTN_ERROR_BLAS: i32 = 12;
pub const ATTN_ERROR_SELFTEST: i32 = 13;

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

pub const ATTN_ENGINE_AUTO: i32 = 0;
pub const ATTN_ENGINE_BLAS: i32 = 1;
pub const ATTN_ENGINE_FUSED: i32 = 2;

pub const ATTN_GEMM_AUTO: i32 = 0;
pub const ATTN_GEMM_BLAS: i32 = 1;
pub const ATTN_GEMM_NATIVE: i32 = 2;

pub const ATTN_MASK_NONE: i32 = 0;
pub const ATTN_MASK_ADDITIVE: i32 = 1;
pub const ATTN_MASK_BOOL_INCLUDE: i32 = 2;
pub const ATTN_MASK_BOOL_EXCLUDE: i32 = 3;

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

pub const ATTN_QK_NORM_NONE: i32 = 0;
pub const ATTN_QK_NORM_HEAD: i32 = 1;
pub const ATTN_QK_NORM_ALL_HEADS: i32 = 2;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct attn_tensor {
    pub data: *mut c_void,
    pub dtype: i32,
    pub rank: i32,
    pub shape: [i64; ATTN_MAX_RANK],
    pub strides: [i64; ATTN_MAX_RANK],
}

#[repr(C)]
pub struct attn_context {
    opaque: [u8; 0],
}

#[repr(C)]
pub struct attn_mha {
    opaque: [u8; 0],
}

pub type attn_task_fn = unsafe extern "C" fn(data: *mut c_void, index: i64);
pub type attn_parallel_for_fn = unsafe extern "C" fn(
    state: *mut c_void,
    count: i64,
    task: attn_task_fn,
    data: *mut c_void,
) -> i32;
pub type attn_allocate_fn =
    unsafe extern "C" fn(state: *mut c_void, bytes: usize, alignment: usize) -> *mut c_void;
pub type attn_deallocate_fn =
    unsafe extern "C" fn(state: *mut c_void, memory: *mut c_void, bytes: usize, alignment: usize);
pub type attn_selftest_visit_fn = unsafe extern "C" fn(
    state: *mut c_void,
    check: *const c_char,
    status: i32,
    detail: *const c_char,
);

#[repr(C)]
pub struct attn_context_config {
    pub struct_size: u64,
    pub num_threads: i32,
    pub parallel_for_width: i32,
    pub engine: i32,
    pub gemm: i32,
    pub kernels: *const c_char,
    pub parallel_for: Option<attn_parallel_for_fn>,
    pub parallel_for_state: *mut c_void,
    pub allocate: Option<attn_allocate_fn>,
    pub deallocate: Option<attn_deallocate_fn>,
    pub allocator_state: *mut c_void,
    pub float32_weights: i32,
    pub reserved: i32,
}

#[repr(C)]
pub struct attn_context_info {
    pub struct_size: u64,
    pub num_threads: i32,
    pub engine: i32,
    pub gemm: i32,
    pub attention_gemm: i32,
    pub projection_gemm: i32,
    pub blas_is_serial: i32,
    pub kernels: *const c_char,
    pub blas: *const c_char,
}

#[repr(C)]
pub struct attn_selftest_params {
    pub struct_size: u64,
    pub visit: Option<attn_selftest_visit_fn>,
    pub visit_state: *mut c_void,
}

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

#[repr(C)]
pub struct attn_merge_params {
    pub struct_size: u64,
    pub sinks: *const attn_tensor,
}

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

#[repr(C)]
pub struct attn_rms_norm_params {
    pub struct_size: u64,
    pub weight: *const attn_tensor,
    pub epsilon: f64,
    pub weight_offset: f64,
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

macro_rules! default_is_zero_but_for_its_size {
    ($($name:ident),* $(,)?) => {$(
        impl Default for $name {
            fn default() -> Self {
                // SAFETY: numbers, pointers that may be NULL and options of function pointers,
                // for all of which zero bytes are a value.
                let mut made: Self = unsafe { std::mem::zeroed() };
                made.struct_size = std::mem::size_of::<Self>() as u64;
                made
            }
        }
    )*};
}

default_is_zero_but_for_its_size!(
    attn_dropout,
    attn_context_config,
    attn_context_info,
    attn_selftest_params,
    attn_kv,
    attn_kv_append_params,
    attn_sdpa_report,
    attn_sdpa_params,
    attn_sdpa_outputs,
    attn_sdpa_gradients,
    attn_sdpa_backward_report,
    attn_merge_params,
    attn_rope_params,
    attn_rms_norm_params,
    attn_mha_config,
    attn_mha_load_params,
    attn_mha_init_params,
    attn_mha_params,
    attn_mha_report,
    attn_mha_outputs,
);

extern "C" {
    pub fn attn_last_error() -> *const c_char;
    pub fn attn_status_name(status: i32) -> *const c_char;
    pub fn attn_status_text(status: i32) -> *const c_char;

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

    pub fn attn_context_create(
        config: *const attn_context_config,
        context: *mut *mut attn_context,
    ) -> i32;
    pub fn attn_context_start(context: *mut attn_context) -> i32;
    pub fn attn_context_destroy(context: *mut attn_context);
    pub fn attn_context_describe(context: *mut attn_context, info: *mut attn_context_info) -> i32;

    pub fn attn_selftest(context: *mut attn_context, params: *const attn_selftest_params) -> i32;

    pub fn attn_kv_append(
        context: *mut attn_context,
        kv: *const attn_kv,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: *const attn_kv_append_params,
    ) -> i32;

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

    pub fn attn_sdpa_merge(
        context: *mut attn_context,
        count: i64,
        outputs: *const attn_tensor,
        lses: *const attn_tensor,
        params: *const attn_merge_params,
        output: *const attn_tensor,
        lse: *const attn_tensor,
    ) -> i32;
    pub fn attn_rope(
        context: *mut attn_context,
        input: *const attn_tensor,
        params: *const attn_rope_params,
        output: *const attn_tensor,
    ) -> i32;
    pub fn attn_rms_norm(
        context: *mut attn_context,
        input: *const attn_tensor,
        params: *const attn_rms_norm_params,
        output: *const attn_tensor,
    ) -> i32;

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
