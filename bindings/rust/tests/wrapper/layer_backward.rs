// SPDX-License-Identifier: BSD-3-Clause
//! What a layer's gradients are taken from, and how they are asked for; their numbers are those of the
//! exported cases.

use std::ptr;

use attention::{
    sys, Context, Dtype, ForwardOptions, ForwardResults, KvMut, Mask, MultiheadAttention,
    MultiheadConfig, MultiheadGradients, Result, SdpaGradients, SdpaOptions, Status, View, ViewMut,
};

use crate::{numbers, status_of, D, HEADS, L};

const SHAPE: [usize; 2] = [L, HEADS * D];
const MASK: [usize; 2] = [L, L];
const LSE: [usize; 2] = [HEADS, L];

fn wide(shape: &[usize]) -> Vec<f64> {
    let count = shape.iter().product();
    numbers(count).into_iter().map(f64::from).collect()
}

fn make_layer() -> Result<MultiheadAttention> {
    let mut layer = MultiheadConfig::new(HEADS * D, HEADS)
        .dtype(Dtype::Float64)
        .build()?;
    layer.init_parameters(7)?;
    Ok(layer)
}

fn additive(mask: &[f64]) -> Result<ForwardOptions<'_>> {
    let mask = Mask::Additive(View::new(mask, &MASK)?);
    Ok(ForwardOptions::new().attention(SdpaOptions::new().mask(mask)))
}

#[test]
fn a_call_that_saves_computes_what_forward_does() -> Result<()> {
    let layer = make_layer()?;
    let (tokens, mask) = (wide(&SHAPE), wide(&MASK));
    let view = View::new(&tokens, &SHAPE)?;
    let (mut output, mut same) = (vec![0.0f64; tokens.len()], vec![0.0f64; tokens.len()]);
    let mut weights = vec![0.0f64; HEADS * L * L];
    let room = &mut ViewMut::new(&mut output, &SHAPE)?;
    layer.forward(&view, &view, &view, room, additive(&mask)?)?;
    let results = ForwardResults::new(ViewMut::new(&mut same, &SHAPE)?)
        .weights(ViewMut::new(&mut weights, &[HEADS, L, L])?);
    let _saved = layer.forward_saving(view, view, view, results, additive(&mask)?)?;
    assert_eq!(output, same);
    assert!((weights[..L].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    Ok(())
}

/// What the gradients below are of.
fn loss(layer: &MultiheadAttention, tokens: &[f64], mask: &[f64], of_lse: &[f64]) -> Result<f64> {
    let (mut output, mut lse) = (vec![0.0f64; tokens.len()], vec![0.0f64; of_lse.len()]);
    let view = View::new(tokens, &SHAPE)?;
    let results =
        ForwardResults::new(ViewMut::new(&mut output, &SHAPE)?).lse(ViewMut::new(&mut lse, &LSE)?);
    layer.forward_saving(view, view, view, results, additive(mask)?)?;
    let weighed = |made: &[f64], given: &[f64]| -> f64 {
        made.iter()
            .zip(given)
            .map(|(made, given)| made * given)
            .sum()
    };
    Ok(weighed(&output, tokens) + weighed(&lse, of_lse))
}

#[test]
fn gradients_of_a_mask_and_lse_are_differences() -> Result<()> {
    const STEP: f64 = 1e-4;
    let layer = make_layer()?;
    let (tokens, mask, of_lse) = (wide(&SHAPE), wide(&MASK), wide(&LSE));
    let view = View::new(&tokens, &SHAPE)?;
    let (mut output, mut found) = (vec![0.0f64; tokens.len()], vec![0.0f64; mask.len()]);
    let results = ForwardResults::new(ViewMut::new(&mut output, &SHAPE)?);
    let saved = layer.forward_saving(view, view, view, results, additive(&mask)?)?;
    let inside = SdpaGradients::new()
        .lse(View::new(&of_lse, &LSE)?)
        .mask(ViewMut::new(&mut found, &MASK)?);
    saved.backward(&view, MultiheadGradients::new().attention(inside))?;
    for at in 0..mask.len() {
        let mut moved = mask.clone();
        moved[at] += STEP;
        let above = loss(&layer, &tokens, &moved, &of_lse)?;
        moved[at] -= 2.0 * STEP;
        let expected = (above - loss(&layer, &tokens, &moved, &of_lse)?) / (2.0 * STEP);
        assert!((found[at] - expected).abs() < 1e-6, "{at}: {expected}");
    }
    Ok(())
}

#[test]
fn calls_do_not_mix_and_gradients_add_up() -> Result<()> {
    let layer = make_layer()?;
    let tokens = wide(&SHAPE);
    let view = View::new(&tokens, &SHAPE)?;
    let save = |options| {
        let mut output = vec![0.0f64; tokens.len()];
        let results = ForwardResults::new(ViewMut::new(&mut output, &SHAPE)?);
        layer.forward_saving(view, view, view, results, options)
    };
    let first = save(ForwardOptions::new())?;
    let _second = save(ForwardOptions::new().attention(SdpaOptions::new().is_causal(true)))?;
    let (mut of_query, mut of_bias) = (vec![0.0f64; tokens.len()], vec![0.0f64; HEADS * D]);
    let mut alone = Vec::new();
    for times in 1..=3 {
        let wanted = MultiheadGradients::new()
            .accumulate(times == 3)
            .query(ViewMut::new(&mut of_query, &SHAPE)?)
            .parameter("out_proj.bias", ViewMut::new(&mut of_bias, &[HEADS * D])?);
        first.backward_in(&Context::default(), &view, wanted)?;
        match times {
            1 => alone = of_query.clone(),
            2 => assert_eq!(alone, of_query),
            _ => alone
                .iter()
                .zip(&of_query)
                .for_each(|(one, two)| assert!((2.0 * one - two).abs() < 1e-12)),
        }
    }
    Ok(())
}

#[test]
fn refusals_of_gradients_name_what_is_wrong() -> Result<()> {
    let layer = make_layer()?;
    let tokens = wide(&SHAPE);
    let view = View::new(&tokens, &SHAPE)?;
    let (mut output, mut room) = (vec![0.0f64; tokens.len()], vec![0.0f64; tokens.len()]);
    let results = ForwardResults::new(ViewMut::new(&mut output, &SHAPE)?);
    let saved = layer.forward_saving(view, view, view, results, ForwardOptions::new())?;

    let wanted = MultiheadGradients::new().parameter("bias_k", ViewMut::new(&mut room, &SHAPE)?);
    let refused = saved.backward(&view, wanted).unwrap_err();
    assert_eq!(refused.status(), Status::Parameter);
    assert!(
        refused.message().starts_with("gradients.bias_k: "),
        "{refused}"
    );

    let sinks = SdpaGradients::new().sinks(ViewMut::new(&mut room[..HEADS], &[HEADS])?);
    let refused = saved
        .backward(&view, MultiheadGradients::new().attention(sinks))
        .unwrap_err();
    assert_eq!(refused.status(), Status::Value);
    assert!(
        refused.message().starts_with("gradients.attention.sinks: "),
        "{refused}"
    );

    let (mut key, mut value) = (room.clone(), room.clone());
    let shape = [HEADS, L, D];
    let cache = KvMut::new(
        ViewMut::new(&mut key, &shape)?,
        ViewMut::new(&mut value, &shape)?,
    )
    .lengths(View::new(&[L as i64], &[])?);
    let options = ForwardOptions::new().cache(cache);
    let results = ForwardResults::new(ViewMut::new(&mut room, &SHAPE)?);
    let refused = layer.forward_saving(view, view, view, results, options);
    assert_eq!(status_of(refused), Status::Unsupported);
    Ok(())
}

/// The wrapper has no way to leave it out.
#[test]
fn the_library_refuses_a_call_that_saved_nothing() {
    let config = sys::attn_mha_config {
        embed_dim: 4,
        num_heads: 1,
        ..Default::default()
    };
    let mut data = [0.0f32; 4];
    let view = sys::attn_tensor {
        data: data.as_mut_ptr().cast(),
        dtype: sys::ATTN_DTYPE_FLOAT32,
        rank: 2,
        shape: [1, 4, 0, 0, 0, 0, 0, 0],
        strides: [4, 1, 0, 0, 0, 0, 0, 0],
    };
    let gradients = sys::attn_mha_gradients {
        output: &view,
        ..Default::default()
    };
    let params = sys::attn_mha_params::default();
    let mut layer = ptr::null_mut();
    // SAFETY: all pointers are to locals, or null where the library says so.
    let status = unsafe {
        assert_eq!(
            sys::attn_mha_create(ptr::null_mut(), &config, &mut layer),
            sys::ATTN_OK
        );
        let drawn = sys::attn_mha_init_parameters(ptr::null_mut(), layer, ptr::null());
        assert_eq!(drawn, sys::ATTN_OK);
        let status = sys::attn_mha_backward(
            ptr::null_mut(),
            layer,
            &view,
            &view,
            &view,
            &params,
            &gradients,
            ptr::null_mut(),
            0,
        );
        sys::attn_mha_destroy(layer);
        status
    };
    assert_eq!(status, sys::ATTN_ERROR_NULL);
}
