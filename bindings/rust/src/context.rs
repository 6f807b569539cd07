// SPDX-License-Identifier: BSD-3-Clause
//! The settings calls run under.

use std::alloc::GlobalAlloc;
use std::ffi::{CStr, CString};
use std::os::raw::c_char;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::callbacks::{Allocator, Pool, ThreadPool};
use crate::error::{check, Error, Result, Status};
use crate::setters::setters;
use crate::sys;

/// How the attention core is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Engine {
    /// The library chooses. In a report: an engine that only a newer library knows.
    #[default]
    Auto = sys::ATTN_ENGINE_AUTO,
    /// Scores and outputs by matrix products.
    Blas = sys::ATTN_ENGINE_BLAS,
    /// Tiles of scores that never leave the cache; not `f64`.
    Fused = sys::ATTN_ENGINE_FUSED,
}

/// Who computes matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Gemm {
    /// The faster one. In a report: one that only a newer library knows.
    #[default]
    Auto = sys::ATTN_GEMM_AUTO,
    /// BLAS for all of them.
    Blas = sys::ATTN_GEMM_BLAS,
    /// The library itself for all of them: the same bits with any BLAS.
    Native = sys::ATTN_GEMM_NATIVE,
}

impl Engine {
    pub(crate) fn from_code(code: i32) -> Engine {
        match code {
            sys::ATTN_ENGINE_BLAS => Engine::Blas,
            sys::ATTN_ENGINE_FUSED => Engine::Fused,
            _ => Engine::Auto,
        }
    }
}

impl Gemm {
    pub(crate) fn from_code(code: i32) -> Gemm {
        match code {
            sys::ATTN_GEMM_BLAS => Gemm::Blas,
            sys::ATTN_GEMM_NATIVE => Gemm::Native,
            _ => Gemm::Auto,
        }
    }
}

/// What a [`Context`] is made of. The default: the machine's threads, the fastest kernels.
#[derive(Debug, Clone, Default)]
pub struct ContextConfig {
    num_threads: i32,
    engine: Engine,
    gemm: Gemm,
    float32_weights: bool,
    kernels: Option<String>,
    allocator: Option<Allocator>,
    pool: Option<Pool>,
    parallel_for_width: i32,
}

impl ContextConfig {
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
        /// Where query, key and value are bfloat16 and the kernels multiply pairs of them, the
        /// weights of many rows are rounded to it; `true` keeps them `f32`.
        float32_weights: bool,
    }

    /// Kernels by name; those there are: `attn info`.
    #[must_use]
    pub fn kernels(mut self, name: &str) -> Self {
        self.kernels = Some(name.to_owned());
        self
    }

    /// Where the context, the layers made with it and its calls take their memory, instead of the C
    /// library's allocator.
    #[must_use]
    pub fn allocator<A: GlobalAlloc + Sync>(mut self, allocator: &'static A) -> Self {
        self.allocator = Some(Allocator::new(allocator));
        self
    }

    /// Whose threads compute, instead of threads of the library's. `width` pieces of work, 1 to
    /// 1024, are under way at a time; 0: as many as CPUs.
    #[must_use]
    pub fn thread_pool<P: ThreadPool>(mut self, pool: &'static P, width: i32) -> Self {
        self.pool = Some(Pool::new(pool));
        self.parallel_for_width = width;
        self
    }

    /// Makes the context. No thread is started yet.
    pub fn build(self) -> Result<Context> {
        let kernels = self
            .kernels
            .map(|name| c_string("kernels", &name))
            .transpose()?;
        let config = sys::attn_context_config {
            num_threads: self.num_threads,
            parallel_for_width: self.parallel_for_width,
            engine: self.engine as i32,
            gemm: self.gemm as i32,
            kernels: kernels.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
            parallel_for: self.pool.map(|pool| pool.parallel_for),
            parallel_for_state: self.pool.map_or(ptr::null_mut(), |pool| pool.state),
            allocate: self.allocator.map(|allocator| allocator.allocate),
            deallocate: self.allocator.map(|allocator| allocator.deallocate),
            allocator_state: self
                .allocator
                .map_or(ptr::null_mut(), |allocator| allocator.state),
            float32_weights: self.float32_weights.into(),
            ..Default::default()
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers outlive the call, which copies the name; the states are static.
        check(unsafe { sys::attn_context_create(&config, &mut raw) })?;
        let raw = NonNull::new(raw).expect("a context that was made");
        Ok(Context {
            handle: Some(Arc::new(Handle { raw })),
        })
    }
}

/// Threads, memory, engine and kernels; `Context::default()` is the process's default one. A clone
/// is the same context, which lives as long as one of them. Any number of threads may use one at
/// once.
#[derive(Debug, Clone, Default)]
pub struct Context {
    handle: Option<Arc<Handle>>,
}

#[derive(Debug)]
struct Handle {
    raw: NonNull<sys::attn_context>,
}

// SAFETY: the library lets any thread use or destroy a context; only destroying is exclusive.
unsafe impl Send for Handle {}
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by attn_context_create, destroyed once; no call can still borrow it.
        unsafe { sys::attn_context_destroy(self.raw.as_ptr()) }
    }
}

/// What a context runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextInfo {
    /// How many pieces of work are under way at a time.
    pub num_threads: i32,
    /// As set.
    pub engine: Engine,
    /// As set.
    pub gemm: Gemm,
    /// Who computes the products of [`Engine::Blas`].
    pub attention_gemm: Gemm,
    /// Who computes those of a layer's projections.
    pub projection_gemm: Gemm,
    /// BLAS admits one caller at a time.
    pub blas_is_serial: bool,
    /// The kernels in use.
    pub kernels: &'static str,
    /// What BLAS says of itself, "none" without one.
    pub blas: &'static str,
}

impl Context {
    /// Starts the threads now, which the first large call would do.
    pub fn start(&self) -> Result<()> {
        // SAFETY: the context lives, or is the default one.
        check(unsafe { sys::attn_context_start(self.as_raw()) })
    }

    /// What the context runs with.
    pub fn info(&self) -> Result<ContextInfo> {
        let mut info = sys::attn_context_info::default();
        // SAFETY: as in start; `info` knows its size.
        check(unsafe { sys::attn_context_describe(self.as_raw(), &mut info) })?;
        Ok(ContextInfo {
            num_threads: info.num_threads,
            engine: Engine::from_code(info.engine),
            gemm: Gemm::from_code(info.gemm),
            attention_gemm: Gemm::from_code(info.attention_gemm),
            projection_gemm: Gemm::from_code(info.projection_gemm),
            blas_is_serial: info.blas_is_serial != 0,
            kernels: static_text(info.kernels),
            blas: static_text(info.blas),
        })
    }

    pub(crate) fn as_raw(&self) -> *mut sys::attn_context {
        let handle = self.handle.as_ref();
        handle.map_or(ptr::null_mut(), |handle| handle.raw.as_ptr())
    }
}

/// A string of static memory, as the library's reports have them.
pub(crate) fn static_text(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: ends with its zero, and is never freed.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}

pub(crate) fn c_string(argument: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(
            Status::Value,
            format!("{}: expected no NUL, got {:?}", argument, text),
        )
    })
}
