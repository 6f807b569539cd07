// SPDX-License-Identifier: BSD-3-Clause
//! Views that stay inside their slices.

use attention::{sdpa, Result, SdpaOptions, Status, View, ViewMut};

use crate::{numbers, status_of, D, HEADS, L};

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
