// SPDX-License-Identifier: BSD-3-Clause
//! `attention/context.h`.

use std::os::raw::{c_char, c_void};

pub const ATTN_ENGINE_AUTO: i32 = 0;
pub const ATTN_ENGINE_BLAS: i32 = 1;
pub const ATTN_ENGINE_FUSED: i32 = 2;

pub const ATTN_GEMM_AUTO: i32 = 0;
pub const ATTN_GEMM_BLAS: i32 = 1;
pub const ATTN_GEMM_NATIVE: i32 = 2;

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

#[repr(C)]
pub struct attn_context {
    opaque: [u8; 0],
}

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

default_is_zero_but_for_its_size!(attn_context_config, attn_context_info,);

extern "C" {
    pub fn attn_context_create(
        config: *const attn_context_config,
        context: *mut *mut attn_context,
    ) -> i32;
    pub fn attn_context_start(context: *mut attn_context) -> i32;
    pub fn attn_context_destroy(context: *mut attn_context);
    pub fn attn_context_describe(context: *mut attn_context, info: *mut attn_context_info) -> i32;
}
