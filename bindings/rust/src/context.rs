// SPDX-License-Identifier: BSD-3-Clause
//! The settings calls run under.

use std::ffi::CString;
use std::mem::size_of;
use std::ptr::{self, NonNull};

use crate::error::{check, Error, Result, Status};
use crate::setters::setters;
use crate::sys;

/// How the attention core is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Engine {
    /// The library chooses.
    #[default]
    Auto = sys::ATTN_ENGINE_AUTO,
    /// Scores and outputs by matrix products.
    Blas = sys::ATTN_ENGINE_BLAS,
    /// Tiles of scores that never leave the cache; `f32` only.
    Fused = sys::ATTN_ENGINE_FUSED,
}

/// Who computes matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Gemm {
    /// The faster one.
    #[default]
    Default = sys::ATTN_GEMM_DEFAULT,
    /// BLAS for all of them.
    Blas = sys::ATTN_GEMM_BLAS,
    /// The library itself for all of them: the same bits with any BLAS.
    Native = sys::ATTN_GEMM_NATIVE,
}

/// What a [`Context`] is made of. The default: the machine's threads, the fastest kernels.
#[derive(Debug, Clone, Default)]
pub struct ContextOptions {
    num_threads: i32,
    engine: Engine,
    gemm: Gemm,
    kernels: Option<String>,
}

impl ContextOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// 1 to 1024; 0: the CPUs this process may use.
        num_threads: i32,
        /// How the attention core is computed.
        engine: Engine,
        /// Who computes matrix products.
        gemm: Gemm,
    }

    /// Kernels by name; those there are: `attn info`.
    #[must_use]
    pub fn kernels(mut self, name: &str) -> Self {
        self.kernels = Some(name.to_owned());
        self
    }

    /// Makes the context. No thread is started yet.
    pub fn build(self) -> Result<Context> {
        let kernels = self
            .kernels
            .map(|name| c_string("kernels", &name))
            .transpose()?;
        let params = sys::attn_context_params {
            struct_size: size_of::<sys::attn_context_params>() as u64,
            num_threads: self.num_threads,
            engine: self.engine as i32,
            gemm: self.gemm as i32,
            reserved: 0,
            kernels: kernels.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
            parallel_for: None,
            parallel_for_state: ptr::null_mut(),
            allocate: None,
            deallocate: None,
            allocator_state: ptr::null_mut(),
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers outlive the call, which copies the name.
        check(unsafe { sys::attn_context_create(&params, &mut raw) })?;
        Ok(Context {
            raw: NonNull::new(raw).expect("a context that was made"),
        })
    }
}

/// Threads, engine and kernels. Calls without one use the process's default context. Any number of
/// threads may use one at once.
#[derive(Debug)]
pub struct Context {
    raw: NonNull<sys::attn_context>,
}

// SAFETY: the library lets any thread use or destroy a context; only destroying is exclusive.
unsafe impl Send for Context {}
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by attn_context_create, destroyed once; no call can still borrow it.
        unsafe { sys::attn_context_destroy(self.raw.as_ptr()) }
    }
}

pub(crate) fn raw_context(context: Option<&Context>) -> *mut sys::attn_context {
    context.map_or(ptr::null_mut(), |context| context.raw.as_ptr())
}

pub(crate) fn c_string(argument: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(
            Status::Value,
            format!("{}: expected no NUL, got {:?}", argument, text),
        )
    })
}
