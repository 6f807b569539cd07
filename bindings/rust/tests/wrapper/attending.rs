// SPDX-License-Identifier: BSD-3-Clause
//! The options of an attention call.

use attention::{sdpa, Mask, Normalizer, Result, SdpaOptions, Status, View, ViewMut};

use crate::{assert_is_mean, numbers, room, D, HEADS, L};

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
