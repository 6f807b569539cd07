// SPDX-License-Identifier: BSD-3-Clause
//! Layers, and the options of the attention inside.

use attention::{
    Context, ContextConfig, Dtype, Engine, ForwardOptions, Gemm, Mask, MultiheadConfig, Result,
    SdpaOptions, Status, View, ViewMut,
};

use crate::{assert_is_mean, attend, make_layer, numbers, room, status_of, D, HEADS, L};

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
