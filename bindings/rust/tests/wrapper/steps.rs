// SPDX-License-Identifier: BSD-3-Clause
//! Scores, and what models do around attention: parts put together, positions, normalisation.

use attention::{
    merge, rms_norm, rms_norm_in_place, rope, rope_in_place, sdpa, Bf16, MergeOptions,
    PartialResult, Result, RmsNormOptions, RopeOptions, ScoreStage, SdpaOptions, Status, View,
    ViewMut,
};

use crate::{numbers, room, status_of, D, HEADS, L};

const KEYS: usize = 5;

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{:?} {:?}", found, expected);
    }
}

/// Output and lse of some of the keys, with these options.
fn attended(start: usize, count: usize, options: SdpaOptions) -> Result<(Vec<f32>, Vec<f32>)> {
    let (query, keys) = (numbers(HEADS * L * D), numbers(HEADS * KEYS * D));
    let (mut output, mut lse) = (room(&[HEADS, L, D]), room(&[HEADS, L]));
    let strides = [(KEYS * D) as isize, D as isize, 1];
    let keys = View::with_strides(&keys, start * D, &[HEADS, count, D], &strides)?;
    sdpa(
        &View::new(&query, &[HEADS, L, D])?,
        &keys,
        &keys,
        &mut ViewMut::new(&mut output, &[HEADS, L, D])?,
        options.lse(ViewMut::new(&mut lse, &[HEADS, L])?),
    )?;
    Ok((output, lse))
}

fn part<'a>(made: &'a (Vec<f32>, Vec<f32>)) -> Result<PartialResult<'a>> {
    Ok(PartialResult {
        output: View::new(&made.0, &[HEADS, L, D])?,
        lse: Some(View::new(&made.1, &[HEADS, L])?),
    })
}

#[test]
fn parts_are_the_whole() -> Result<()> {
    let sinks = [0.5f32, -1.0];
    let sinks = View::new(&sinks, &[HEADS])?;
    let whole = attended(0, KEYS, SdpaOptions::new().sinks(sinks))?;
    let first = attended(0, 2, SdpaOptions::new())?;
    let second = attended(2, KEYS - 2, SdpaOptions::new())?;
    let (mut output, mut lse) = (room(&[HEADS, L, D]), room(&[HEADS, L]));
    merge(
        &[part(&first)?, part(&second)?],
        &mut ViewMut::new(&mut output, &[HEADS, L, D])?,
        MergeOptions::new()
            .sinks(sinks)
            .lse(ViewMut::new(&mut lse, &[HEADS, L])?),
    )?;
    assert_close(&output, &whole.0);
    assert_close(&lse, &whole.1);
    Ok(())
}

#[test]
fn parts_without_lse_are_added() -> Result<()> {
    let (one, other) = ([1.0f32, 2.0], [Bf16::from_f32(3.0), Bf16::from_f32(-1.0)]);
    let mut sum = [0.0f32; 2];
    let mut output = ViewMut::new(&mut sum, &[1, 2])?;
    let mut parts = [
        PartialResult {
            output: View::new(&one, &[1, 2])?,
            lse: None,
        },
        PartialResult {
            output: View::new(&other, &[1, 2])?,
            lse: None,
        },
    ];
    merge(&parts, &mut output, MergeOptions::new())?;
    let lse = [0.0f32];
    parts[0].lse = Some(View::new(&lse, &[1])?);
    let refused = merge(&parts, &mut output, MergeOptions::new()).unwrap_err();
    assert_eq!(refused.status(), Status::Dtype);
    assert!(refused.to_string().contains("lses[1]"), "{}", refused);
    assert_eq!(
        status_of(merge(&[], &mut output, MergeOptions::new())),
        Status::Value
    );
    assert_eq!(sum, [4.0, 1.0]);
    Ok(())
}

#[test]
fn scores_are_told() -> Result<()> {
    let (query, keys) = (numbers(HEADS * L * D), numbers(HEADS * KEYS * D));
    let (q, k) = (
        View::new(&query, &[HEADS, L, D])?,
        View::new(&keys, &[HEADS, KEYS, D])?,
    );
    let shape = SdpaOptions::new().describe_outputs(&q, &k, &k)?.scores;
    assert_eq!(shape, [HEADS, L, KEYS]);
    for stage in [ScoreStage::Scaled, ScoreStage::Masked] {
        let (mut scores, mut output) = (room(&shape), room(&[HEADS, L, D]));
        let options = SdpaOptions::new()
            .is_causal(true)
            .scale(2.0)
            .scores(ViewMut::new(&mut scores, &shape)?)
            .scores_stage(stage);
        sdpa(
            &q,
            &k,
            &k,
            &mut ViewMut::new(&mut output, &[HEADS, L, D])?,
            options,
        )?;
        for (i, score) in scores.iter().enumerate() {
            let (head, row, column) = (i / (L * KEYS), i / KEYS % L, i % KEYS);
            let (from, to) = ((head * L + row) * D, (head * KEYS + column) * D);
            // numbers() has few bits: products are exact.
            let product: f32 = (0..D).map(|e| query[from + e] * keys[to + e]).sum();
            let is_hidden = stage == ScoreStage::Masked && column > row;
            assert_eq!(
                *score,
                if is_hidden {
                    f32::NEG_INFINITY
                } else {
                    2.0 * product
                }
            );
        }
    }
    Ok(())
}

#[test]
fn positions_turn_pairs() -> Result<()> {
    let (input, turns, positions) = (numbers(2 * D), [1.0f32, 0.25], [7i32, -3]);
    let mut output = room(&[2, D]);
    let options = || -> Result<RopeOptions> {
        Ok(RopeOptions::new()
            .frequencies(View::new(&turns, &[2])?)
            .positions(View::new(&positions, &[2])?))
    };
    rope(
        &View::new(&input, &[2, D])?,
        &mut ViewMut::new(&mut output, &[2, D])?,
        options()?,
    )?;
    let mut expected = room(&[2, D]);
    for (row, position) in positions.iter().enumerate() {
        for (i, turn) in turns.iter().enumerate() {
            let (sin, cos) = (*position as f32 * turn).sin_cos();
            let (x, y) = (input[row * D + i], input[row * D + i + 2]);
            expected[row * D + i] = x * cos - y * sin;
            expected[row * D + i + 2] = y * cos + x * sin;
        }
    }
    assert_close(&output, &expected);
    rope_in_place(
        &mut ViewMut::new(&mut output, &[2, D])?,
        options()?.inverse(true),
    )?;
    assert_close(&output, &input);
    Ok(())
}

#[test]
fn tables_are_taken_as_they_are() -> Result<()> {
    let (input, cos, sin) = ([1.0f32, 2.0, 3.0, 4.0, 5.0], [0.0f32, 1.0], [1.0f32, 0.0]);
    let mut output = [0.0f32; 5];
    let options = || -> Result<RopeOptions> {
        Ok(RopeOptions::new()
            .rotary_dim(4)
            .interleaved(true)
            .magnitude(2.0)
            .cos(View::new(&cos, &[1, 2])?)
            .sin(View::new(&sin, &[1, 2])?))
    };
    let input = View::new(&input, &[1, 5])?;
    let mut to = ViewMut::new(&mut output, &[1, 5])?;
    rope(&input, &mut to, options()?)?;
    let refused = rope(&input, &mut to, options()?.rotary_dim(3));
    assert_eq!(status_of(refused), Status::Value);
    assert_eq!(output, [-4.0, 2.0, 6.0, 8.0, 5.0]);
    Ok(())
}

#[test]
fn rows_are_normalised() -> Result<()> {
    let (input, weight) = ([Bf16::from_f32(3.0), Bf16::from_f32(4.0)], [0.0f32, 1.0]);
    let mut output = [0.0f32; 2];
    // 12.5 + 3.5 is 16.
    let options = RmsNormOptions::new()
        .epsilon(3.5)
        .weight(View::new(&weight, &[2])?)
        .weight_offset(1.0);
    let mut to = ViewMut::new(&mut output, &[1, 2])?;
    rms_norm(&View::new(&input, &[1, 2])?, &mut to, options)?;
    assert_eq!(output, [0.75, 2.0]);

    let mut rows = [3.0f32, 4.0];
    let options = RmsNormOptions::new().epsilon(3.5);
    rms_norm_in_place(&mut ViewMut::new(&mut rows, &[1, 2])?, options)?;
    assert_eq!(rows, [0.75, 1.0]);
    Ok(())
}
