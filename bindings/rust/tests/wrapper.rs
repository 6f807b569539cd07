// SPDX-License-Identifier: BSD-3-Clause
//! What the wrapper adds to the library: views that stay inside their slices, errors, threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::{panic, ptr, thread};

use attention::{
    sdpa, selftest, Context, ContextConfig, Dtype, Engine, ForwardOptions, Gemm, Mask,
    MultiheadAttention, MultiheadConfig, Normalizer, Result, SdpaOptions, Status, View, ViewMut,
};

const L: usize = 3;
const HEADS: usize = 2;
const D: usize = 4;

fn numbers(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 37 + 11) % 64) as f32 / 32.0 - 1.0)
        .collect()
}

fn status_of<T>(result: Result<T>) -> Status {
    result.err().expect("a refusal").status()
}

fn make_layer() -> Result<MultiheadAttention> {
    let embed_dim = HEADS * D;
    let mut layer = MultiheadConfig::new(embed_dim, HEADS).bias(false).build()?;
    let weights = numbers(3 * embed_dim * embed_dim);
    layer.load_parameter(
        "in_proj_weight",
        &View::new(&weights, &[3 * embed_dim, embed_dim])?,
    )?;
    let weights = &weights[..embed_dim * embed_dim];
    layer.load_parameter(
        "out_proj.weight",
        &View::new(weights, &[embed_dim, embed_dim])?,
    )?;
    Ok(layer)
}

fn attend(layer: &MultiheadAttention, options: ForwardOptions) -> Result<Vec<f32>> {
    let data = numbers(L * HEADS * D);
    let mut output = vec![0.0f32; data.len()];
    let view = View::new(&data, &[L, HEADS * D])?;
    layer.forward(
        &view,
        &view,
        &view,
        &mut ViewMut::new(&mut output, &[L, HEADS * D])?,
        options,
    )?;
    Ok(output)
}

#[test]
fn view_that_leaves_its_slice_is_refused() {
    let data = numbers(12);
    let refused: [(usize, &[usize], &[isize]); 6] = [
        (0, &[13], &[1]),
        (1, &[12], &[1]),
        (0, &[2], &[-1]),
        (12, &[1], &[1]),
        (0, &[3, 4], &[5, 1]),
        (0, &[3, 3, 3], &[isize::MAX, isize::MAX, isize::MAX]),
    ];
    for (offset, shape, strides) in refused {
        let result = View::with_strides(&data, offset, shape, strides);
        assert_eq!(
            status_of(result),
            Status::Shape,
            "{} {:?} {:?}",
            offset,
            shape,
            strides
        );
    }
    assert!(View::with_strides(&data, 11, &[12], &[-1]).is_ok());
    assert!(View::with_strides(&data, 11, &[1000], &[0]).is_ok());
    assert!(View::with_strides(&data, 99, &[5, 0], &[7, 7]).is_ok());
}

#[test]
fn view_of_another_count_or_rank_is_refused() {
    let data = numbers(12);
    let error = View::new(&data, &[3, 5]).unwrap_err();
    assert_eq!(error.status(), Status::Shape);
    assert_eq!(
        error.to_string(),
        "data: expected the elements of shape [3, 5], got 12"
    );
    assert_eq!(status_of(View::new(&data[..1], &[1; 9])), Status::Value);
    assert_eq!(
        status_of(View::with_strides(&data, 0, &[3, 4], &[4])),
        Status::Value
    );
    assert_eq!(status_of(View::new(&data, &[usize::MAX, 2])), Status::Shape);
}

#[test]
fn heads_in_place_compute_what_heads_apart_do() -> Result<()> {
    let packed = numbers(L * HEADS * D);
    let mut apart = vec![0.0f32; packed.len()];
    for (i, element) in packed.iter().enumerate() {
        let (row, head, feature) = (i / (HEADS * D), i / D % HEADS, i % D);
        apart[(head * L + row) * D + feature] = *element;
    }
    let in_place = View::new(&packed, &[L, HEADS * D])?.split_heads(HEADS)?;
    assert_eq!(in_place.shape(), [HEADS as i64, L as i64, D as i64]);
    let apart = View::new(&apart, &[HEADS, L, D])?;

    let (mut output, mut expected) = (vec![0.0f32; packed.len()], vec![0.0f32; packed.len()]);
    let mut merged = ViewMut::new(&mut output, &[L, HEADS * D])?.split_heads(HEADS)?;
    sdpa(
        &in_place,
        &in_place,
        &in_place,
        &mut merged,
        SdpaOptions::new(),
    )?;
    let mut rows = ViewMut::new(&mut expected, &[L, HEADS, D])?.transpose(0, 1)?;
    sdpa(&apart, &apart, &apart, &mut rows, SdpaOptions::new())?;
    assert_eq!(output, expected);
    assert_eq!(
        in_place.merge_heads()?.shape(),
        [L as i64, (HEADS * D) as i64]
    );
    Ok(())
}

#[test]
fn views_backwards_read_what_a_reversed_copy_holds() -> Result<()> {
    let data = numbers(L * D);
    let reversed: Vec<f32> = data.chunks(D).rev().flatten().copied().collect();
    let query = View::new(&data, &[L, D])?;
    let backwards = View::with_strides(&data, (L - 1) * D, &[L, D], &[-(D as isize), 1])?;
    let copy = View::new(&reversed, &[L, D])?;
    let (mut output, mut expected) = (vec![0.0f32; L * D], vec![0.0f32; L * D]);
    let causal = || SdpaOptions::new().is_causal(true);
    sdpa(
        &query,
        &backwards,
        &backwards,
        &mut ViewMut::new(&mut output, &[L, D])?,
        causal(),
    )?;
    sdpa(
        &query,
        &copy,
        &copy,
        &mut ViewMut::new(&mut expected, &[L, D])?,
        causal(),
    )?;
    assert_eq!(output, expected);
    Ok(())
}

#[test]
fn selected_head_is_that_of_a_slice() -> Result<()> {
    let packed = numbers(L * HEADS * D);
    let head = View::new(&packed, &[L, HEADS * D])?
        .split_heads(HEADS)?
        .select(0, 1)?;
    assert_eq!(head.shape(), [L as i64, D as i64]);
    let same = View::with_strides(&packed, D, &[L, D], &[(HEADS * D) as isize, 1])?;
    let attended = |query: &View| -> Result<Vec<f32>> {
        let mut output = vec![0.0f32; L * D];
        let mut view = ViewMut::new(&mut output, &[L, D])?;
        sdpa(query, query, query, &mut view, SdpaOptions::new())?;
        Ok(output)
    };
    assert_eq!(attended(&head)?, attended(&same)?);
    assert_eq!(status_of(head.select(0, L)), Status::Value);
    Ok(())
}

#[test]
fn bias_is_added_like_an_additive_mask() -> Result<()> {
    let data = numbers(HEADS * L * D);
    let view = View::new(&data, &[HEADS, L, D])?;
    let added = numbers(HEADS * L * L);
    let added = View::new(&added, &[HEADS, L, L])?;
    let attended = |options: SdpaOptions| -> Result<Vec<f32>> {
        let mut output = vec![0.0f32; HEADS * L * D];
        let mut target = ViewMut::new(&mut output, &[HEADS, L, D])?;
        sdpa(&view, &view, &view, &mut target, options)?;
        Ok(output)
    };
    let masked = attended(SdpaOptions::new().mask(Mask::Additive(added)))?;
    assert_eq!(attended(SdpaOptions::new().bias(added))?, masked);
    assert_ne!(attended(SdpaOptions::new())?, masked);
    Ok(())
}

#[test]
fn align_end_stands_for_an_offset() -> Result<()> {
    let (last, keys) = (numbers(D), numbers(L * D));
    let (last, keys) = (View::new(&last, &[1, D])?, View::new(&keys, &[L, D])?);
    let offset = [L as i32 - 1];
    let offset = View::new(&offset, &[])?;
    let attended = |options: SdpaOptions| -> Result<[f32; D]> {
        let mut output = [0.0f32; D];
        let mut target = ViewMut::new(&mut output, &[1, D])?;
        sdpa(&last, &keys, &keys, &mut target, options)?;
        Ok(output)
    };
    let causal = || SdpaOptions::new().is_causal(true);
    let aligned = attended(causal().align_end(true))?;
    assert_eq!(aligned, attended(causal().query_offset(offset))?);
    assert_ne!(aligned, attended(causal())?);
    let both = attended(causal().align_end(true).query_offset(offset)).unwrap_err();
    assert_eq!(both.status(), Status::Value);
    assert_eq!(
        both.message(),
        "query_offset: expected NULL beside align_end, which sets it"
    );
    Ok(())
}

fn assert_is_mean(average: &[f32], weights: &[f32]) {
    assert_eq!(weights.len(), HEADS * average.len());
    for (i, mean) in average.iter().enumerate() {
        assert!(*mean > 0.0);
        assert!(((weights[i] + weights[average.len() + i]) / 2.0 - mean).abs() < 1e-6);
    }
}

fn room(shape: &[usize]) -> Vec<f32> {
    vec![0.0; shape.iter().product()]
}

#[test]
fn weights_are_averaged_by_their_rank() -> Result<()> {
    let data = numbers(HEADS * L * D);
    let view = View::new(&data, &[HEADS, L, D])?;
    let shapes = SdpaOptions::new().describe_outputs(&view, &view, &view)?;
    assert_eq!(shapes.output, [HEADS, L, D]);
    assert_eq!(shapes.lse, Some(vec![HEADS, L]));
    assert_eq!(shapes.weights, [HEADS, L, L]);
    assert_eq!(shapes.averaged_weights, [L, L]);
    let (mut weights, mut average) = (room(&shapes.weights), room(&shapes.averaged_weights));
    let mut output = room(&shapes.output);
    let mut output = ViewMut::new(&mut output, &shapes.output)?;
    let options = SdpaOptions::new().weights(ViewMut::new(&mut weights, &shapes.weights)?);
    sdpa(&view, &view, &view, &mut output, options)?;
    let options = SdpaOptions::new().weights(ViewMut::new(&mut average, &shapes.averaged_weights)?);
    sdpa(&view, &view, &view, &mut output, options)?;
    assert_is_mean(&average, &weights);
    let linear = SdpaOptions::new().normalizer(Normalizer::Linear);
    assert_eq!(linear.describe_outputs(&view, &view, &view)?.lse, None);
    Ok(())
}

#[test]
fn attention_inside_a_layer_gets_its_options() -> Result<()> {
    let layer = make_layer()?;
    let mut lse = vec![0.0f32; HEADS * L];
    let own_key_only = SdpaOptions::new()
        .window(0, 0)
        .lse(ViewMut::new(&mut lse, &[HEADS, L])?);
    let windowed = attend(&layer, ForwardOptions::new().attention(own_key_only))?;
    let mut hidden = [true; L * L];
    (0..L).for_each(|i| hidden[i * L + i] = false);
    let masked = SdpaOptions::new().mask(Mask::Exclude(View::new(&hidden, &[L, L])?));
    assert_eq!(
        windowed,
        attend(&layer, ForwardOptions::new().attention(masked))?
    );
    assert!(lse.iter().all(|lse| lse.is_finite() && *lse != 0.0));
    let lowered = SdpaOptions::new().window(-2, 0);
    let error = attend(&layer, ForwardOptions::new().attention(lowered)).unwrap_err();
    assert_eq!(error.status(), Status::Value);
    assert!(
        error.message().starts_with("attention.window_left: "),
        "{}",
        error
    );
    Ok(())
}

#[test]
fn layer_tells_its_outputs_and_what_runs() -> Result<()> {
    let layer = make_layer()?;
    let data = numbers(L * HEADS * D);
    let view = View::new(&data, &[L, HEADS * D])?;
    let plain = ForwardOptions::new();
    let shapes = layer.describe_outputs(&view, &view, &view, &plain)?;
    assert_eq!(shapes.output, [L, HEADS * D]);
    assert_eq!(shapes.weights, [HEADS, L, L]);
    assert_eq!(shapes.averaged_weights, [L, L]);
    let (mut weights, mut average) = (room(&shapes.weights), room(&shapes.averaged_weights));
    for (values, shape) in [
        (&mut weights, &shapes.weights),
        (&mut average, &shapes.averaged_weights),
    ] {
        let attention = SdpaOptions::new().weights(ViewMut::new(values, shape)?);
        attend(&layer, ForwardOptions::new().attention(attention))?;
    }
    assert_is_mean(&average, &weights);

    let mut output = room(&shapes.output);
    let output = ViewMut::new(&mut output, &shapes.output)?;
    let report = layer.explain(&view, &view, &view, &output, &plain)?;
    assert_eq!(report.attention.engine, Engine::Fused);
    assert_eq!(report.projection_gemm, Gemm::Native);
    assert!(report.workspace_bytes > 0 && !report.attention.reason.is_empty());
    assert_eq!(report.kernels, Context::default().info()?.kernels);
    Ok(())
}

#[test]
fn layer_is_described_and_read() -> Result<()> {
    let mut layer = make_layer()?;
    let config = layer.config()?;
    assert_eq!((config.head_dim, config.kdim), (D, HEADS * D));
    assert!(!config.bias && config.dtype == Dtype::Float32);
    let (name, shape) = layer.parameters()?[1].clone();
    assert_eq!((name, &shape[..]), ("out_proj.weight", &[8, 8][..]));
    let (mut loaded, mut fresh) = (room(&shape), room(&shape));
    layer.read_parameter(name, &mut ViewMut::new(&mut loaded, &shape)?)?;
    assert_eq!(loaded, numbers(64));
    layer.init_parameters(7)?;
    layer.read_parameter(name, &mut ViewMut::new(&mut fresh, &shape)?)?;
    assert_ne!(loaded, fresh);
    assert!(fresh.iter().all(|value| value.abs() < 8f32.sqrt().recip()));
    Ok(())
}

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
        .build()?;
    context.start()?;
    let info = context.info()?;
    assert_eq!((info.num_threads, info.gemm), (2, Gemm::Native));
    assert_eq!(info.attention_gemm, Gemm::Native);
    assert!(!info.kernels.is_empty());
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

#[test]
fn refused_names_say_what_was_wrong() -> Result<()> {
    let made: Result<Context> = ContextConfig::new().kernels("abacus").build();
    assert_eq!(status_of(made), Status::Unsupported);
    assert_eq!(
        status_of(ContextConfig::new().kernels("nul\0").build()),
        Status::Value
    );

    let mut layer = MultiheadConfig::new(HEADS * D, HEADS)
        .dtype(Dtype::Float32)
        .build()?;
    let error = attend(&layer, ForwardOptions::new()).unwrap_err();
    assert_eq!(error.status(), Status::Parameter);
    assert!(error.message().contains("in_proj_weight"), "{}", error);
    assert_eq!(
        error.status().to_string(),
        "unknown or missing layer parameter"
    );
    let values = numbers(1);
    let values = View::new(&values, &[1])?;
    assert_eq!(
        status_of(layer.load_parameter("in_proj", &values)),
        Status::Parameter
    );
    assert_eq!(
        status_of(layer.load_parameter("in\0", &values)),
        Status::Value
    );
    assert_eq!(
        status_of(MultiheadConfig::new(HEADS * D, 3).build()),
        Status::Value
    );
    Ok(())
}
