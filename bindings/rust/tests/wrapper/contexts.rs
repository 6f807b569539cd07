// SPDX-License-Identifier: BSD-3-Clause
//! Contexts, their threads and memory, and the self-test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::{panic, ptr, thread};

use attention::{
    sdpa, selftest, Context, ContextConfig, Engine, ForwardOptions, Gemm, MultiheadConfig, Result,
    SdpaOptions, Status, ThreadPool, View, ViewMut,
};

use crate::{attend, make_layer, numbers, status_of, D, HEADS, L};

/// The system's allocator, counting what is out and refusing on demand.
struct Counting {
    live: AtomicUsize,
    is_empty: AtomicBool,
}

// SAFETY: memory is that of System.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.is_empty.load(SeqCst) {
            return ptr::null_mut();
        }
        self.live.fetch_add(layout.size(), SeqCst);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size(), SeqCst);
        System.dealloc(memory, layout)
    }
}

#[test]
fn memory_is_that_of_the_context() -> Result<()> {
    static COUNTING: Counting = Counting {
        live: AtomicUsize::new(0),
        is_empty: AtomicBool::new(false),
    };
    let context = ContextConfig::new().allocator(&COUNTING).build()?;
    let mut layer = MultiheadConfig::new(HEADS * D, HEADS)
        .context(&context)
        .build()?;
    layer.init_parameters(1)?;
    drop(context);
    let live = COUNTING.live.load(SeqCst);
    assert!(live > 4 * 64 * 4, "{}", live);
    attend(&layer, ForwardOptions::new())?;
    COUNTING.is_empty.store(true, SeqCst);
    let outcome = attend(&layer, ForwardOptions::new());
    assert_eq!(status_of(outcome), Status::Memory);
    drop(layer);
    assert_eq!(COUNTING.live.load(SeqCst), 0);
    Ok(())
}

#[test]
fn context_tells_what_it_runs_with() -> Result<()> {
    let context = ContextConfig::new()
        .num_threads(2)
        .gemm(Gemm::Native)
        .float32_weights(true)
        .build()?;
    context.start()?;
    let info = context.info()?;
    assert_eq!((info.num_threads, info.gemm), (2, Gemm::Native));
    assert_eq!(info.attention_gemm, Gemm::Native);
    assert!(!info.kernels.is_empty());
    Ok(())
}

/// A thread for every other task, counting the tasks.
struct EveryOther {
    tasks: AtomicUsize,
    refuses: AtomicBool,
}

// SAFETY: the scope ends after both loops, which share the indices out.
unsafe impl ThreadPool for EveryOther {
    fn run(&self, count: i64, task: &(dyn Fn(i64) + Sync)) -> bool {
        if self.refuses.load(SeqCst) {
            return false;
        }
        self.tasks.fetch_add(count as usize, SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| (1..count).step_by(2).for_each(task));
            (0..count).step_by(2).for_each(task);
        });
        true
    }
}

#[test]
fn work_is_done_by_the_thread_pool() -> Result<()> {
    static POOL: EveryOther = EveryOther {
        tasks: AtomicUsize::new(0),
        refuses: AtomicBool::new(false),
    };
    const ROWS: usize = 512;
    let context = ContextConfig::new().thread_pool(&POOL, 2).build()?;
    assert_eq!(context.info()?.num_threads, 2);
    let data = numbers(ROWS * D);
    let view = View::new(&data, &[ROWS, D])?;
    let attended = |options: SdpaOptions| -> Result<Vec<f32>> {
        let mut output = vec![0.0f32; ROWS * D];
        let mut target = ViewMut::new(&mut output, &[ROWS, D])?;
        sdpa(&view, &view, &view, &mut target, options)?;
        Ok(output)
    };
    let on_pool = attended(SdpaOptions::new().context(&context))?;
    assert_eq!(on_pool, attended(SdpaOptions::new())?);
    assert!(POOL.tasks.load(SeqCst) > 1);
    POOL.refuses.store(true, SeqCst);
    let refused = attended(SdpaOptions::new().context(&context));
    assert_eq!(status_of(refused), Status::Thread);
    Ok(())
}

#[test]
fn selftest_tells_of_each_check() {
    let mut told = Vec::new();
    let tell = |check, outcome: Result<()>| told.push((check, outcome));
    assert_eq!(selftest(&Context::default(), tell), Ok(()));
    assert!(told.len() >= 4 && told.iter().all(|(_, outcome)| outcome.is_ok()));
    let panicking = || selftest(&Context::default(), |check, _| panic!("{}", check));
    assert!(panic::catch_unwind(panicking).is_err());
}

#[test]
fn threads_share_a_layer_and_a_context() -> Result<()> {
    let layer = make_layer()?;
    let context = ContextConfig::new()
        .num_threads(2)
        .engine(Engine::Fused)
        .build()?;
    let options = || ForwardOptions::new().attention(SdpaOptions::new().context(&context));
    let expected = attend(&layer, options())?;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let output = attend(&layer, options());
                    assert_eq!(output.as_ref(), Ok(&expected));
                }
            });
        }
    });
    Ok(())
}

#[test]
fn context_forces_its_engine() -> Result<()> {
    let context = ContextConfig::new().engine(Engine::Fused).build()?;
    let data = [1.0f64; L * D];
    let view = View::new(&data, &[L, D])?;
    let mut output = [0.0f64; L * D];
    let mut output = ViewMut::new(&mut output, &[L, D])?;
    let options = SdpaOptions::new().context(&context);
    assert_eq!(
        status_of(sdpa(&view, &view, &view, &mut output, options)),
        Status::Unsupported
    );
    Ok(())
}
