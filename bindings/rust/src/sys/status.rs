// SPDX-License-Identifier: BSD-3-Clause
//! `attention/status.h`.

use std::os::raw::c_char;

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

extern "C" {
    pub fn attn_last_error() -> *const c_char;
    pub fn attn_status_name(status: i32) -> *const c_char;
    pub fn attn_status_text(status: i32) -> *const c_char;
}
