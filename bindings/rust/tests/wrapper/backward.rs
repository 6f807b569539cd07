// SPDX-License-Identifier: BSD-3-Clause
//! Gradients against differences of the forward call, in f64.

use attention::{
    sdpa, sdpa_backward, sdpa_backward_kv, Kv, Mask, PartialResult, Result, SdpaGradients,
    SdpaOptions, Status, View, ViewMut,
};

use crate::{numbers, status_of, D, HEADS, L};

const KEYS: usize = 5;
const QUERY: [usize; 3] = [HEADS, L, D];
const KEY: [usize; 3] = [HEADS, KEYS, D];
const MASK: [usize; 2] = [L, KEYS];

fn wide(count: usize) -> Vec<f64> {
    numbers(count).into_iter().map(f64::from).collect()
}

/// Query, key, value, mask.
fn inputs() -> [Vec<f64>; 4] {
    let of = |shape: &[usize]| wide(shape.iter().product());
    [of(&QUERY), of(&KEY), of(&KEY), of(&MASK)]
}

/// Output and lse.
fn attended(inputs: &[Vec<f64>; 4]) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut output = vec![0.0; HEADS * L * D];
    let mut lse = vec![0.0; HEADS * L];
    sdpa(
        &View::new(&inputs[0], &QUERY)?,
        &View::new(&inputs[1], &KEY)?,
        &View::new(&inputs[2], &KEY)?,
        &mut ViewMut::new(&mut output, &QUERY)?,
        SdpaOptions::new()
            .is_causal(true)
            .mask(Mask::Additive(View::new(&inputs[3], &MASK)?))
            .lse(ViewMut::new(&mut lse, &QUERY[..2])?),
    )?;
    Ok((output, lse))
}

/// What the gradients below are of: each output times a number, and each lse times another.
fn loss(inputs: &[Vec<f64>; 4]) -> Result<f64> {
    let (output, lse) = attended(inputs)?;
    let weighed = |values: &[f64]| -> f64 {
        let given = wide(values.len());
        values.iter().zip(given).map(|(a, b)| a * b).sum()
    };
    Ok(weighed(&output) + weighed(&lse))
}

#[test]
fn gradients_are_differences() -> Result<()> {
    const STEP: f64 = 1e-4;
    let inputs = inputs();
    let (output, lse) = attended(&inputs)?;
    let made = PartialResult {
        output: View::new(&output, &QUERY)?,
        lse: Some(View::new(&lse, &QUERY[..2])?),
    };
    let (of_output, of_lse) = (wide(output.len()), wide(lse.len()));
    let mut gradients = inputs.clone();
    for twice in [false, true] {
        let [query, key, value, mask] = &mut gradients;
        sdpa_backward(
            &View::new(&inputs[0], &QUERY)?,
            &View::new(&inputs[1], &KEY)?,
            &View::new(&inputs[2], &KEY)?,
            &made,
            &View::new(&of_output, &QUERY)?,
            SdpaGradients::new()
                .accumulate(twice)
                .lse(View::new(&of_lse, &QUERY[..2])?)
                .query(ViewMut::new(query, &QUERY)?)
                .key(ViewMut::new(key, &KEY)?)
                .value(ViewMut::new(value, &KEY)?)
                .mask(ViewMut::new(mask, &MASK)?),
            SdpaOptions::new()
                .is_causal(true)
                .mask(Mask::Additive(View::new(&inputs[3], &MASK)?)),
        )?;
        let times = if twice { 2.0 } else { 1.0 };
        for which in 0..inputs.len() {
            for at in 0..inputs[which].len() {
                let mut moved = inputs.clone();
                moved[which][at] += STEP;
                let above = loss(&moved)?;
                moved[which][at] -= 2.0 * STEP;
                let expected = times * (above - loss(&moved)?) / (2.0 * STEP);
                let found = gradients[which][at];
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{which} {at}: {found} {expected}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_lie_where_caches_do() -> Result<()> {
    let inputs = inputs();
    let made_with_kv = |lengths: &[i64]| -> Result<Vec<f64>> {
        let (keys, values) = (View::new(&inputs[1], &KEY)?, View::new(&inputs[2], &KEY)?);
        let kv = Kv::new(keys, values).lengths(View::new(lengths, &[])?);
        let query = View::new(&inputs[0], &QUERY)?;
        let (mut output, mut lse) = (vec![0.0f64; HEADS * L * D], vec![0.0f64; HEADS * L]);
        attention::sdpa_kv(
            &query,
            &kv,
            &mut ViewMut::new(&mut output, &QUERY)?,
            SdpaOptions::new().lse(ViewMut::new(&mut lse, &QUERY[..2])?),
        )?;
        let made = PartialResult {
            output: View::new(&output, &QUERY)?,
            lse: Some(View::new(&lse, &QUERY[..2])?),
        };
        let mut of_key = vec![7.0f64; HEADS * KEYS * D];
        sdpa_backward_kv(
            &query,
            &kv,
            &made,
            &View::new(&output, &QUERY)?,
            SdpaGradients::new().key(ViewMut::new(&mut of_key, &KEY)?),
            SdpaOptions::new(),
        )?;
        Ok(of_key)
    };
    for (at, gradient) in made_with_kv(&[2])?.iter().enumerate() {
        assert_eq!(*gradient == 0.0, at / D % KEYS >= 2, "{at}: {gradient}");
    }
    Ok(())
}

#[test]
fn explain_tells_what_runs() -> Result<()> {
    let inputs = inputs();
    let (output, lse) = attended(&inputs)?;
    let (query, key) = (View::new(&inputs[0], &QUERY)?, View::new(&inputs[1], &KEY)?);
    let view = View::new(&output, &QUERY)?;
    let made = PartialResult {
        output: view,
        lse: Some(View::new(&lse, &QUERY[..2])?),
    };
    let options = SdpaOptions::new();
    let mut of_query = vec![0.0f64; output.len()];
    let wanted = SdpaGradients::new().query(ViewMut::new(&mut of_query, &QUERY)?);
    let report = wanted.explain(&query, &key, &key, &made, &view, &options)?;
    assert!(report.num_items > 0 && report.workspace_bytes > 0 && !report.reason.is_empty());
    let kv = Kv::new(key, key);
    assert_eq!(
        wanted
            .explain_kv(&query, &kv, &made, &view, &options)?
            .reason,
        report.reason
    );
    let nothing = SdpaGradients::new();
    let report = nothing.explain(&query, &key, &key, &made, &view, &options)?;
    assert_eq!(report.num_items, 0);
    Ok(())
}

#[test]
fn softmax_needs_its_lse() -> Result<()> {
    let inputs = inputs();
    let (output, _) = attended(&inputs)?;
    let mut of_query = vec![0.0f64; output.len()];
    let view = View::new(&output, &QUERY)?;
    let key = View::new(&inputs[1], &KEY)?;
    let refused = sdpa_backward(
        &View::new(&inputs[0], &QUERY)?,
        &key,
        &key,
        &PartialResult {
            output: view,
            lse: None,
        },
        &view,
        SdpaGradients::new().query(ViewMut::new(&mut of_query, &QUERY)?),
        SdpaOptions::new(),
    );
    assert_eq!(status_of(refused), Status::Null);
    Ok(())
}
