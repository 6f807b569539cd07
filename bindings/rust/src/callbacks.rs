// SPDX-License-Identifier: BSD-3-Clause
//! What the library calls in the caller's program: an allocator and a thread pool.

use std::alloc::{GlobalAlloc, Layout};
use std::os::raw::c_void;
use std::ptr;

use crate::sys;

/// Threads of the caller's, on which the library computes: [`ContextConfig::thread_pool`].
///
/// [`ContextConfig::thread_pool`]: crate::ContextConfig::thread_pool
///
/// # Safety
///
/// `run` must call `task` exactly once with every index in `0..count`, in any order and on any
/// threads, the calling one included, and return `true` after all of them have returned; or call
/// none and return `false`, which fails the call of the library. It must not panic. It may be
/// called from several threads at once.
pub unsafe trait ThreadPool: Sync {
    /// Runs the pieces of one call's work.
    fn run(&self, count: i64, task: &(dyn Fn(i64) + Sync)) -> bool;
}

/// A `GlobalAlloc` as the library calls one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocator {
    pub(crate) allocate: sys::attn_allocate_fn,
    pub(crate) deallocate: sys::attn_deallocate_fn,
    pub(crate) state: *mut c_void,
}

/// A `ThreadPool` as the library calls one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool {
    pub(crate) parallel_for: sys::attn_parallel_for_fn,
    pub(crate) state: *mut c_void,
}

// SAFETY: both are shared references to statics that are Sync.
unsafe impl Send for Allocator {}
unsafe impl Sync for Allocator {}
unsafe impl Send for Pool {}
unsafe impl Sync for Pool {}

impl Allocator {
    pub(crate) fn new<A: GlobalAlloc + Sync>(allocator: &'static A) -> Self {
        Allocator {
            allocate: allocate::<A>,
            deallocate: deallocate::<A>,
            state: allocator as *const A as *mut c_void,
        }
    }
}

impl Pool {
    pub(crate) fn new<P: ThreadPool>(pool: &'static P) -> Self {
        Pool {
            parallel_for: parallel_for::<P>,
            state: pool as *const P as *mut c_void,
        }
    }
}

unsafe extern "C" fn allocate<A: GlobalAlloc>(
    state: *mut c_void,
    bytes: usize,
    alignment: usize,
) -> *mut c_void {
    match Layout::from_size_align(bytes, alignment) {
        // SAFETY: `state` is the static A; the library asks for no empty block.
        Ok(layout) => unsafe { (*(state as *const A)).alloc(layout) as *mut c_void },
        Err(_) => ptr::null_mut(),
    }
}

unsafe extern "C" fn deallocate<A: GlobalAlloc>(
    state: *mut c_void,
    memory: *mut c_void,
    bytes: usize,
    alignment: usize,
) {
    // SAFETY: `memory` came from `allocate` for the same, therefore valid, layout.
    unsafe {
        let layout = Layout::from_size_align_unchecked(bytes, alignment);
        (*(state as *const A)).dealloc(memory as *mut u8, layout);
    }
}

/// What a task gets; the library lets any thread use it.
struct TaskData(*mut c_void);

// SAFETY: see above.
unsafe impl Sync for TaskData {}

impl TaskData {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

unsafe extern "C" fn parallel_for<P: ThreadPool>(
    state: *mut c_void,
    count: i64,
    task: sys::attn_task_fn,
    data: *mut c_void,
) -> i32 {
    let data = TaskData(data);
    // SAFETY: the pool promises to call it as the library wants, while this function runs.
    let run_task = |index| unsafe { task(data.get(), index) };
    // SAFETY: `state` is the static P.
    let pool = unsafe { &*(state as *const P) };
    (!pool.run(count, &run_task)).into()
}
