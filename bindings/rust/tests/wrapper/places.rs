// SPDX-License-Identifier: BSD-3-Clause
//! Keys and values in caches, ragged and in pages, and ragged queries.

use attention::{
    kv_append, sdpa, sdpa_kv, Bf16, Engine, Kv, KvAppendOptions, KvCache, KvMut, Result,
    SdpaOptions, Status, View, ViewMut,
};

use crate::{numbers, room, status_of, D, HEADS};

/// Where the keys and the queries of three sequences are, one behind the other.
const KEY_STARTS: [i64; 4] = [0, 5, 6, 13];
const QUERY_STARTS: [i64; 4] = [0, 2, 3, 6];
const KEYS: usize = 13;
const QUERIES: usize = 6;

const PAGES: [usize; 4] = [6, HEADS, 4, D];
/// Pages in no order; an entry that no key needs is no page.
const PAGE_TABLE: [i32; 6] = [3, 1, /**/ 5, -1, /**/ 0, 2];
const LENGTHS: [i64; 3] = [5, 1, 7];

fn decoding<'a>() -> SdpaOptions<'a> {
    SdpaOptions::new().is_causal(true).align_end(true)
}

fn ragged_queries<'a>() -> Result<SdpaOptions<'a>> {
    Ok(decoding().query_starts(View::new(&QUERY_STARTS, &[4])?))
}

fn attended(kv: &Kv<'_>) -> Result<Vec<f32>> {
    let query = numbers(HEADS * QUERIES * D);
    let query = View::new(&query, &[HEADS, QUERIES, D])?;
    let mut output = room(&[HEADS, QUERIES, D]);
    let mut target = ViewMut::new(&mut output, &[HEADS, QUERIES, D])?;
    sdpa_kv(&query, kv, &mut target, ragged_queries()?)?;
    Ok(output)
}

/// The rows of sequence b.
fn part<'a>(elements: &'a [f32], rows: usize, starts: &[i64], b: usize) -> Result<View<'a>> {
    let (begin, end) = (starts[b] as usize, starts[b + 1] as usize);
    let strides = [(rows * D) as isize, D as isize, 1];
    View::with_strides(elements, begin * D, &[HEADS, end - begin, D], &strides)
}

fn attended_one_by_one(keys: &[f32], values: &[f32]) -> Result<Vec<f32>> {
    let query = numbers(HEADS * QUERIES * D);
    let mut output = room(&[HEADS, QUERIES, D]);
    for b in 0..LENGTHS.len() {
        let (begin, end) = (QUERY_STARTS[b] as usize, QUERY_STARTS[b + 1] as usize);
        let strides = [(QUERIES * D) as isize, D as isize, 1];
        let shape = [HEADS, end - begin, D];
        sdpa(
            &part(&query, QUERIES, &QUERY_STARTS, b)?,
            &part(keys, KEYS, &KEY_STARTS, b)?,
            &part(values, KEYS, &KEY_STARTS, b)?,
            &mut ViewMut::with_strides(&mut output, begin * D, &shape, &strides)?,
            decoding(),
        )?;
    }
    Ok(output)
}

fn keys_and_values() -> (Vec<f32>, Vec<f32>) {
    let keys = numbers(HEADS * KEYS * D);
    let values = keys.iter().rev().copied().collect();
    (keys, values)
}

#[test]
fn pages_are_ragged_rows_are_single_sequences() -> Result<()> {
    let (keys, values) = keys_and_values();
    let expected = attended_one_by_one(&keys, &values)?;
    assert_ne!(expected, room(&[HEADS, QUERIES, D]));
    let keys = View::new(&keys, &[HEADS, KEYS, D])?;
    let values = View::new(&values, &[HEADS, KEYS, D])?;
    let starts = View::new(&KEY_STARTS, &[4])?;
    assert_eq!(attended(&Kv::new(keys, values).starts(starts))?, expected);

    let (mut key_pages, mut value_pages) = (room(&PAGES), room(&PAGES));
    let mut pages = KvMut::new(
        ViewMut::new(&mut key_pages, &PAGES)?,
        ViewMut::new(&mut value_pages, &PAGES)?,
    )
    .page_table(View::new(&PAGE_TABLE, &[3, 2])?)
    .lengths(View::new(&LENGTHS, &[3])?);
    let options = KvAppendOptions::new().starts(starts);
    kv_append(&mut pages, &keys, &values, options)?;
    assert_eq!(attended(&pages.as_kv())?, expected);
    Ok(())
}

#[test]
fn positions_say_where_rows_go() -> Result<()> {
    let rows = numbers(3 * HEADS * D);
    let view = View::new(&rows, &[3, HEADS, 1, D])?;
    let (mut keys, mut values) = (room(&PAGES), room(&PAGES));
    let mut pages = KvMut::new(
        ViewMut::new(&mut keys, &PAGES)?,
        ViewMut::new(&mut values, &PAGES)?,
    )
    .page_table(View::new(&PAGE_TABLE, &[3, 2])?);
    let positions = [2i32, -1, 6];
    let options = KvAppendOptions::new().positions(View::new(&positions, &[3, 1])?);
    kv_append(&mut pages, &view, &view, options)?;

    let mut expected = room(&PAGES);
    for (sequence, page, row) in [(0, 3, 2), (2, 2, 2)] {
        for head in 0..HEADS {
            let from = (sequence * HEADS + head) * D;
            let to = ((page * HEADS + head) * PAGES[2] + row) * D;
            expected[to..to + D].copy_from_slice(&rows[from..from + D]);
        }
    }
    assert_eq!((&keys, &values), (&expected, &expected));
    Ok(())
}

#[test]
fn outputs_and_reports_are_those_of_the_places() -> Result<()> {
    let data = numbers(HEADS * KEYS * D);
    let keys = View::new(&data, &[HEADS, KEYS, D])?;
    let query = View::new(&data[..HEADS * QUERIES * D], &[HEADS, QUERIES, D])?;
    let kv = Kv::new(keys, keys).starts(View::new(&KEY_STARTS, &[4])?);
    let options = ragged_queries()?;
    let shapes = options.describe_outputs_kv(&query, &kv)?;
    assert_eq!(shapes.output, [HEADS, QUERIES, D]);
    assert_eq!(shapes.weights, [HEADS, QUERIES, KEYS]);
    let mut output = room(&shapes.output);
    let output = ViewMut::new(&mut output, &shapes.output)?;
    let report = options.explain_kv(&query, &kv, &output)?;
    assert_eq!(report.engine, Engine::Fused);
    Ok(())
}

#[test]
fn cache_grows_and_shrinks() -> Result<()> {
    let (keys, values) = keys_and_values();
    let expected = attended_one_by_one(&keys, &values)?;
    let shape = [LENGTHS.len(), HEADS, 8, D];
    let mut cache = KvCache::<f32>::new(shape, shape)?;
    assert_eq!(cache.lengths(), [0, 0, 0]);
    let rows = View::new(&keys[..3 * HEADS * D], &[3, HEADS, 1, D])?;
    let keys = View::new(&keys, &[HEADS, KEYS, D])?;
    let values = View::new(&values, &[HEADS, KEYS, D])?;
    cache.append_ragged(&keys, &values, &KEY_STARTS)?;
    assert_eq!(cache.lengths(), LENGTHS);
    assert_eq!(attended(&cache.as_kv()?)?, expected);

    cache.append(&rows, &rows)?;
    assert_eq!(cache.lengths(), [6, 2, 8]);
    let full = cache.append(&rows, &rows).unwrap_err();
    assert_eq!(full.status(), Status::Value);
    assert_eq!(
        full.message(),
        "kv.lengths: expected 0 to S=8, got 9 at element 2"
    );
    assert_eq!(cache.lengths(), [6, 2, 8]);
    for (sequence, &length) in LENGTHS.iter().enumerate() {
        cache.truncate(sequence, length as usize)?;
    }
    assert_eq!(attended(&cache.as_kv()?)?, expected);
    Ok(())
}

#[test]
fn cache_attends_in_another_type() -> Result<()> {
    let data = numbers(HEADS * 3 * D);
    let rows = View::new(&data, &[1, HEADS, 3, D])?;
    let query = View::new(&data[..HEADS * D], &[1, HEADS, 1, D])?;
    let mut cache = KvCache::<Bf16>::new([1, HEADS, 4, D], [1, HEADS, 4, D])?;
    cache.append(&rows, &rows)?;
    let (mut output, mut expected) = (room(&[HEADS, D]), room(&[HEADS, D]));
    let shape = [1, HEADS, 1, D];
    let mut target = ViewMut::new(&mut output, &shape)?;
    cache.attend(&query, &mut target, SdpaOptions::new())?;
    let mut target = ViewMut::new(&mut expected, &shape)?;
    sdpa(&query, &rows, &rows, &mut target, SdpaOptions::new())?;
    // numbers() has few bits: they stay as they are.
    assert_eq!(output, expected);
    Ok(())
}

#[test]
fn what_does_not_fit_is_told() -> Result<()> {
    let (keys, values) = keys_and_values();
    let keys = View::new(&keys, &[HEADS, KEYS, D])?;
    let values = View::new(&values, &[HEADS, KEYS, D])?;
    let beyond = [0i64, 5, 6, 14];
    let refusal = attended(&Kv::new(keys, values).starts(View::new(&beyond, &[4])?)).unwrap_err();
    assert_eq!(refusal.status(), Status::Value);
    assert!(refusal.message().starts_with("kv.starts: "), "{}", refusal);

    let shape = [LENGTHS.len(), HEADS, 8, D];
    let mut cache = KvCache::<f32>::new(shape, shape)?;
    let wild = [0, i64::MAX, i64::MIN, 13];
    let refused = cache.append_ragged(&keys, &values, &wild);
    assert_eq!(status_of(refused), Status::Value);
    assert_eq!(
        status_of(cache.append_ragged(&keys, &values, &[0, 13])),
        Status::Shape
    );
    assert_eq!(status_of(cache.append(&keys, &values)), Status::Shape);
    assert_eq!(status_of(cache.truncate(0, 1)), Status::Value);
    assert_eq!(status_of(cache.truncate(3, 0)), Status::Value);
    assert_eq!(cache.lengths(), [0, 0, 0]);
    let vast = [usize::MAX, 2, 1, 1];
    assert_eq!(status_of(KvCache::<f32>::new(vast, vast)), Status::Memory);
    Ok(())
}
