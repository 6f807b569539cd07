// SPDX-License-Identifier: BSD-3-Clause
//! `attention/selftest.h`.

use std::os::raw::{c_char, c_void};

use super::context::attn_context;

pub type attn_selftest_visit_fn = unsafe extern "C" fn(
    state: *mut c_void,
    check: *const c_char,
    status: i32,
    detail: *const c_char,
);

#[repr(C)]
pub struct attn_selftest_params {
    pub struct_size: u64,
    pub visit: Option<attn_selftest_visit_fn>,
    pub visit_state: *mut c_void,
}

default_is_zero_but_for_its_size!(attn_selftest_params,);

extern "C" {
    pub fn attn_selftest(context: *mut attn_context, params: *const attn_selftest_params) -> i32;
}
