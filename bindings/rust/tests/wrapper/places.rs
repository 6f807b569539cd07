// SPDX-License-Identifier: BSD-3-Clause
//! Keys and values in caches, ragged and in pages, and ragged queries.

use attention::{
    kv_append, sdpa, sdpa_kv, Bf16, Element, Engine, Int4x2, Kv, KvAppendOptions, KvCache, KvMut,
    Result, SdpaOptions, Status, Uint4x2, View, ViewMut, F16, Q4_0, Q8_0,
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

/// Three rows of each head, from 0 to 127 / 64: of `i8` their scale is 1 / 64, and so they are
/// integers exactly.
fn exact_rows() -> Vec<f32> {
    let rows = numbers(HEADS * 3 * D);
    let element = |(i, number): (usize, &f32)| match i % D {
        0 => 127.0 / 64.0,
        _ => (number + 1.0) / 2.0,
    };
    rows.iter().enumerate().map(element).collect()
}

const THREE_ROWS: [usize; 4] = [1, HEADS, 3, D];
const ROOM: [usize; 4] = [1, HEADS, 4, D];
const ROOM_SCALES: [usize; 4] = [1, HEADS, 4, 1];

fn seen_by_one(kv: &Kv<'_>) -> Result<Vec<f32>> {
    let shape = [1, HEADS, 1, D];
    let (query, mut output) = (numbers(HEADS * D), room(&shape));
    let mut target = ViewMut::new(&mut output, &shape)?;
    sdpa_kv(
        &View::new(&query, &shape)?,
        kv,
        &mut target,
        SdpaOptions::new(),
    )?;
    Ok(output)
}

/// Sums of weights times values that are off by half a scale each, beside what f32 rounds.
fn assert_within(half_scale: f32, found: &[f32], expected: &[f32]) {
    assert!(expected.iter().any(|&number| number != 0.0));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= half_scale + 1e-6, "{} beside {}", found, expected);
    }
}

#[test]
fn integers_mean_numbers() -> Result<()> {
    let (keys, mut values) = (exact_rows(), numbers(HEADS * 3 * D));
    values.reverse();
    let (key, value) = (
        View::new(&keys, &THREE_ROWS)?,
        View::new(&values, &THREE_ROWS)?,
    );
    let expected = seen_by_one(&Kv::new(key, value))?;

    let (mut stored_keys, mut stored_values) = ([0i8; HEADS * 4 * D], [0i8; HEADS * 4 * D]);
    let (mut key_scales, mut value_scales) = (room(&ROOM_SCALES), room(&ROOM_SCALES));
    let lengths = View::new(&[3i64], &[1])?;
    let mut stored = KvMut::new(
        ViewMut::new(&mut stored_keys, &ROOM)?,
        ViewMut::new(&mut stored_values, &ROOM)?,
    )
    .lengths(lengths)
    .key_scale(ViewMut::new(&mut key_scales, &ROOM_SCALES)?)
    .value_scale(ViewMut::new(&mut value_scales, &ROOM_SCALES)?);
    kv_append(&mut stored, &key, &value, KvAppendOptions::new())?;
    let found = seen_by_one(&stored.as_kv())?;

    let largest = value_scales.iter().copied().fold(0.0, f32::max);
    assert_within(largest / 2.0, &found, &expected);
    for (i, (key, value)) in keys.iter().zip(&values).enumerate() {
        let row = i / D + i / (3 * D);
        let at = row * D + i % D;
        assert_eq!(f32::from(stored_keys[at]) * key_scales[row], *key);
        let off = (f32::from(stored_values[at]) * value_scales[row] - value).abs();
        assert!(off <= value_scales[row] * 0.50001);
    }

    let floats = Kv::new(key, value).key_scale(View::new(&[1.0f32], &[1, 1, 1, 1])?);
    let refusal = seen_by_one(&floats).unwrap_err();
    assert_eq!(refusal.status(), Status::Value);
    assert_eq!(
        refusal.message(),
        "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled"
    );
    Ok(())
}

/// A cache of `T` has keys exactly, integers times step from 0 to highest, and values from -1 to 1,
/// whose scale is at most `scale`.
fn cache_is_near<T: Element + Default>(
    values_in_element: usize,
    highest: usize,
    step: f32,
    scale: f32,
) -> Result<()> {
    let width = D.max(values_in_element);
    let (values, query) = (numbers(HEADS * 3 * width), numbers(HEADS * width));
    let integer = |i| match i % width {
        0 => highest,
        _ => i * 5 % highest,
    };
    let keys: Vec<f32> = (0..values.len())
        .map(|i| integer(i) as f32 * step)
        .collect();

    let (shape, row) = ([1, HEADS, 3, width], [1, HEADS, 1, width]);
    let (mut expected, mut found) = (room(&row), room(&row));
    sdpa(
        &View::new(&query, &row)?,
        &View::new(&keys, &shape)?,
        &View::new(&values, &shape)?,
        &mut ViewMut::new(&mut expected, &row)?,
        SdpaOptions::new(),
    )?;

    let places = [1, HEADS, 4, width / values_in_element];
    let mut cache = KvCache::<T>::new(places, places)?;
    let strides = [0, 3 * width as isize, width as isize, 1];
    for (first, count) in [(0, 2), (2, 1)] {
        let shape = [1, HEADS, count, width];
        cache.append(
            &View::with_strides(&keys, first * width, &shape, &strides)?,
            &View::with_strides(&values, first * width, &shape, &strides)?,
        )?;
    }
    assert_eq!(cache.lengths(), [3]);
    cache.attend(
        &View::new(&query, &row)?,
        &mut ViewMut::new(&mut found, &row)?,
        SdpaOptions::new(),
    )?;
    assert_within(scale / 2.0, &found, &expected);
    Ok(())
}

#[test]
fn caches_of_integers_are_near() -> Result<()> {
    cache_is_near::<i8>(1, 127, 1.0 / 64.0, 1.0 / 127.0)?;
    cache_is_near::<u8>(1, 255, 1.0 / 128.0, 2.0 / 255.0)?;
    cache_is_near::<Int4x2>(2, 7, 1.0 / 4.0, 1.0 / 7.0)?;
    cache_is_near::<Uint4x2>(2, 15, 1.0 / 8.0, 2.0 / 15.0)?;
    // Its scale is rounded to float16 afterwards, which moves a value of 1 by 1 / 2048 at most.
    cache_is_near::<Q8_0>(32, 127, 1.0 / 64.0, 1.0 / 127.0 + 1.0 / 1024.0)
}

/// A block that a file of ggml's has: scale 1 and 32 values from -8 to 7.
#[test]
fn blocks_of_four_bits_are_read() -> Result<()> {
    let mut block = Q4_0 {
        scale: F16::from_f32(1.0),
        ..Default::default()
    };
    for (i, bits) in (0u8..).zip(&mut block.bits) {
        *bits = i | (15 - i) << 4;
    }
    let (stored, query, mut output) = ([block], [0.0f32; 32], [0.0f32; 32]);
    let stored = View::new(&stored, &[1, 1])?;
    let mut target = ViewMut::new(&mut output, &[1, 32])?;
    let query = View::new(&query, &[1, 32])?;
    sdpa_kv(
        &query,
        &Kv::new(stored, stored),
        &mut target,
        SdpaOptions::new(),
    )?;
    for (i, number) in (0u8..16).map(f32::from).enumerate() {
        assert_eq!((output[i], output[16 + i]), (number - 8.0, 7.0 - number));
    }
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
