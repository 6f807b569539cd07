// SPDX-License-Identifier: BSD-3-Clause
//! What the wrapper adds to the library: views that stay inside their slices, errors, threads.

use std::thread;

use attention::{
    sdpa, Context, ContextOptions, Dtype, Engine, ForwardOptions, Mask, MultiheadAttention,
    MultiheadConfig, Result, SdpaOptions, Status, View, ViewMut,
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
fn averaged_weights_are_the_mean_over_heads() -> Result<()> {
    let data = numbers(HEADS * L * D);
    let view = View::new(&data, &[HEADS, L, D])?;
    let mut weights = vec![0.0f32; HEADS * L * L];
    let mut average = vec![0.0f32; L * L];
    let mut output = vec![0.0f32; HEADS * L * D];
    let mut output = ViewMut::new(&mut output, &[HEADS, L, D])?;
    let options = SdpaOptions::new().weights(ViewMut::new(&mut weights, &[HEADS, L, L])?);
    sdpa(&view, &view, &view, &mut output, options)?;
    let options = SdpaOptions::new()
        .average_weights(true)
        .weights(ViewMut::new(&mut average, &[L, L])?);
    sdpa(&view, &view, &view, &mut output, options)?;
    for (i, mean) in average.iter().enumerate() {
        assert!(((weights[i] + weights[L * L + i]) / 2.0 - mean).abs() < 1e-6);
    }
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
    let mask = Mask::Exclude(View::new(&hidden, &[L, L])?);
    assert_eq!(
        windowed,
        attend(&layer, ForwardOptions::new().attn_mask(mask))?
    );
    assert!(lse.iter().all(|lse| lse.is_finite() && *lse != 0.0));
    Ok(())
}

#[test]
fn threads_share_a_layer_and_a_context() -> Result<()> {
    let layer = make_layer()?;
    let context = ContextOptions::new()
        .num_threads(2)
        .engine(Engine::Fused)
        .build()?;
    let expected = attend(&layer, ForwardOptions::new().context(&context))?;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let output = attend(&layer, ForwardOptions::new().context(&context));
                    assert_eq!(output.as_ref(), Ok(&expected));
                }
            });
        }
    });
    Ok(())
}

#[test]
fn context_forces_its_engine() -> Result<()> {
    let context = ContextOptions::new().engine(Engine::Fused).build()?;
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
    let made: Result<Context> = ContextOptions::new().kernels("abacus").build();
    assert_eq!(status_of(made), Status::Unsupported);
    assert_eq!(
        status_of(ContextOptions::new().kernels("nul\0").build()),
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
