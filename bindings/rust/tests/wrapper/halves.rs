// SPDX-License-Identifier: BSD-3-Clause
//! Numbers of 16 bits: their conversion, attention on them, layers that keep them.

use attention::{
    sdpa, Bf16, ContextConfig, Dtype, Element, ForwardOptions, MultiheadConfig, Result,
    SdpaOptions, Status, View, ViewMut, F16,
};

use crate::{numbers, room, D, HEADS, L};

/// What both types have.
trait Half: Element + Into<f32> {
    const DIGITS: i32;
    fn nearest(number: f32) -> Self;
}

impl Half for Bf16 {
    const DIGITS: i32 = 8;
    fn nearest(number: f32) -> Self {
        Bf16::from_f32(number)
    }
}

impl Half for F16 {
    const DIGITS: i32 = 11;
    fn nearest(number: f32) -> Self {
        F16::from_f32(number)
    }
}

fn stored<T: Half>(from: &[f32]) -> Vec<T> {
    from.iter().copied().map(T::nearest).collect()
}

fn widened<T: Half>(from: &[T]) -> Vec<f32> {
    from.iter().copied().map(T::into).collect()
}

/// Within half a step of T and what float32 is off by.
fn assert_near<T: Half>(found: &[T], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    assert!(wanted.iter().any(|number| *number != 0.0));
    for (found, wanted) in widened(found).iter().zip(wanted) {
        let exponent = (wanted.abs() + 1e-5).log2().floor() as i32;
        let half_step = 2f32.powi(exponent - T::DIGITS);
        assert!(
            (found - wanted).abs() <= half_step + 1e-5,
            "expected {}, got {}",
            wanted,
            found
        );
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest() {
    let two = |exponent| 2f32.powi(exponent);
    let halves = [
        (1.0, 0x3c00),
        (-2.0, 0xc000),
        (-0.0, 0x8000),
        (65504.0, 0x7bff),
        (65519.0, 0x7bff),
        (65520.0, 0x7c00),
        (f32::NEG_INFINITY, 0xfc00),
        (two(-24), 1),
        (two(-25), 0),
        (1.5 * two(-24), 2),
        (1023.0 * two(-24), 0x3ff),
        (1023.5 * two(-24), 0x400),
        (two(-14), 0x400),
        (1.0 + two(-11), 0x3c00),
        (1.0 + 3.0 * two(-11), 0x3c02),
    ];
    for (number, bits) in halves {
        assert_eq!(F16::from_f32(number).0, bits, "{}", number);
    }
    let uppers = [
        (1.0, 0x3f80),
        (-2.0, 0xc000),
        (f32::INFINITY, 0x7f80),
        (f32::MAX, 0x7f80),
        (f32::from_bits(0x10000), 1),
        (1.0 + two(-8), 0x3f80),
        (1.0 + two(-8) + two(-23), 0x3f81),
        (1.0 + 3.0 * two(-8), 0x3f82),
    ];
    for (number, bits) in uppers {
        assert_eq!(Bf16::from_f32(number).0, bits, "{}", number);
    }
    assert!(F16::from_f32(f32::NAN).to_f32().is_nan());
    assert!(Bf16::from_f32(f32::from_bits(0x7f80_0001))
        .to_f32()
        .is_nan());
    for bits in 0..=u16::MAX {
        let (half, upper) = (F16(bits).to_f32(), Bf16(bits).to_f32());
        assert!(half.is_nan() || F16::from_f32(half).0 == bits);
        assert!(upper.is_nan() || Bf16::from_f32(upper).0 == bits);
        assert_eq!(half.is_nan(), bits & 0x7fff > 0x7c00);
    }
}

fn attends_as_in_f32<T: Half>() -> Result<()> {
    let shape = [HEADS, L, D];
    let query = stored::<T>(&numbers(HEADS * L * D));
    let wide = widened(&query);
    let (mut lse, mut wide_lse) = (room(&[HEADS, L]), room(&[HEADS, L]));
    let (mut expected, mut unrounded) = (room(&shape), room(&shape));
    let mut output = stored::<T>(&room(&shape));
    let view = View::new(&wide, &shape)?;
    let options = SdpaOptions::new()
        .is_causal(true)
        .lse(ViewMut::new(&mut wide_lse, &[HEADS, L])?);
    let mut target = ViewMut::new(&mut expected, &shape)?;
    sdpa(&view, &view, &view, &mut target, options)?;

    let view = View::new(&query, &shape)?;
    let options = SdpaOptions::new()
        .is_causal(true)
        .lse(ViewMut::new(&mut lse, &[HEADS, L])?);
    let mut target = ViewMut::new(&mut output, &shape)?;
    sdpa(&view, &view, &view, &mut target, options)?;
    assert_near(&output, &expected);
    assert_eq!(lse, wide_lse);
    let mut target = ViewMut::new(&mut unrounded, &shape)?;
    sdpa(
        &view,
        &view,
        &view,
        &mut target,
        SdpaOptions::new().is_causal(true),
    )?;
    assert_eq!(unrounded, expected);
    Ok(())
}

#[test]
fn attention_is_that_of_the_numbers() -> Result<()> {
    attends_as_in_f32::<Bf16>()?;
    attends_as_in_f32::<F16>()
}

#[test]
fn keys_and_values_may_be_of_other_types() -> Result<()> {
    let shape = [HEADS, L, D];
    let query = numbers(HEADS * L * D);
    let key: Vec<u16> = stored::<Bf16>(&query).iter().map(|key| key.0).collect();
    let value = stored::<F16>(&query);
    let (wide_key, wide_value) = (widened(Bf16::of_bits(&key)), widened(&value));
    let (mut output, mut expected) = (room(&shape), room(&shape));
    let query = View::new(&query, &shape)?;
    sdpa(
        &query,
        &View::new(&wide_key, &shape)?,
        &View::new(&wide_value, &shape)?,
        &mut ViewMut::new(&mut expected, &shape)?,
        SdpaOptions::new(),
    )?;
    sdpa(
        &query,
        &View::new(Bf16::of_bits(&key), &shape)?,
        &View::new(&value, &shape)?,
        &mut ViewMut::new(&mut output, &shape)?,
        SdpaOptions::new(),
    )?;
    for (found, wanted) in output.iter().zip(&expected) {
        assert!((found - wanted).abs() <= 1e-5);
    }
    let wide = [0.0f64; HEADS * L * D];
    let error = sdpa(
        &View::new(&value, &shape)?,
        &View::new(&wide, &shape)?,
        &View::new(&wide, &shape)?,
        &mut ViewMut::new(&mut output, &shape)?,
        SdpaOptions::new(),
    )
    .unwrap_err();
    assert_eq!(error.status(), Status::Dtype);
    assert_eq!(
        error.message(),
        "key: expected dtype float32, bfloat16 or float16, got float64"
    );
    Ok(())
}

/// Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256).
#[test]
fn weights_stay_f32_where_a_context_asks() -> Result<()> {
    let query = stored::<Bf16>(&[1.0; 8]);
    let key = stored::<Bf16>(&[0.0, -77.0 / 256.0]);
    let value = stored::<Bf16>(&[0.0, 1.0]);
    let expected = 1.0 / (1.0 + (77f32 / 256.0).exp());
    let of_pairs = ["avx512_bf16", "neon_bf16"].map(|name| ContextConfig::new().kernels(name));
    for config in [ContextConfig::new()].into_iter().chain(of_pairs) {
        let context = match config.float32_weights(true).build() {
            Err(error) if error.status() == Status::Unsupported => {
                println!("not on this machine: {}", error);
                continue;
            }
            outcome => outcome?,
        };
        let mut output = room(&[8, 1]);
        sdpa(
            &View::new(&query, &[8, 1])?,
            &View::new(&key, &[2, 1])?,
            &View::new(&value, &[2, 1])?,
            &mut ViewMut::new(&mut output, &[8, 1])?,
            SdpaOptions::new().context(&context),
        )?;
        for number in output {
            assert!((number - expected).abs() <= 1e-5, "got {}", number);
        }
    }
    Ok(())
}

/// A layer of T that keeps its parameters as P, beside one of `f32` that has the same numbers.
fn forwards_as_in_f32<T: Half, P: Half>() -> Result<()> {
    let mut layer = MultiheadConfig::new(HEADS * D, HEADS)
        .dtype(T::DTYPE)
        .parameter_dtype(P::DTYPE)
        .build()?;
    assert_eq!(layer.config()?.dtype, T::DTYPE);
    assert_eq!(layer.config()?.parameter_dtype, Some(P::DTYPE));
    layer.init_parameters(1)?;
    let mut wide_layer = MultiheadConfig::new(HEADS * D, HEADS).build()?;
    for (name, shape) in layer.parameters()? {
        let mut values = stored::<P>(&room(&shape));
        layer.read_parameter(name, &mut ViewMut::new(&mut values, &shape)?)?;
        wide_layer.load_parameter(name, &View::new(&widened(&values), &shape)?)?;
    }
    let shape = [L, HEADS * D];
    let query = stored::<T>(&numbers(L * HEADS * D));
    let (mut output, mut expected) = (stored::<T>(&room(&shape)), room(&shape));
    let wide = widened(&query);
    let (view, wide) = (View::new(&query, &shape)?, View::new(&wide, &shape)?);
    let mut target = ViewMut::new(&mut output, &shape)?;
    layer.forward(&view, &view, &view, &mut target, ForwardOptions::new())?;
    let mut target = ViewMut::new(&mut expected, &shape)?;
    wide_layer.forward(&wide, &wide, &wide, &mut target, ForwardOptions::new())?;
    assert_near(&output, &expected);
    Ok(())
}

#[test]
fn layers_keep_and_compute_with_16_bits() -> Result<()> {
    forwards_as_in_f32::<Bf16, Bf16>()?;
    forwards_as_in_f32::<F16, Bf16>()?;
    let refused = MultiheadConfig::new(HEADS * D, HEADS)
        .dtype(Dtype::Float64)
        .parameter_dtype(Dtype::Float16)
        .build();
    let error = refused.unwrap_err();
    assert_eq!(error.status(), Status::Dtype);
    assert_eq!(
        error.message(),
        "parameter_dtype: expected float64, or 0, beside dtype float64, got float16"
    );
    Ok(())
}
