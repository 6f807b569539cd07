// SPDX-License-Identifier: BSD-3-Clause
//! What the wrapper adds to the library.

mod attending;
mod backward;
mod contexts;
mod halves;
mod layer_backward;
mod layer_cache;
mod layers;
mod places;
mod steps;
mod views;

use attention::{
    ForwardOptions, MultiheadAttention, MultiheadConfig, Result, Status, View, ViewMut,
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
