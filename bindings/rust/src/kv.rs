// SPDX-License-Identifier: BSD-3-Clause
//! Where the keys and values of sequences lie: in a cache that grows, one behind the other, or in
//! pages.

use std::ptr;

use crate::context::Context;
use crate::error::{check, Result};
use crate::setters::setters;
use crate::sys;
use crate::view::{raw_output, raw_view, View, ViewMut};

/// What says which row of memory has which key.
#[derive(Debug, Clone, Copy, Default)]
struct Places<'a> {
    page_table: Option<View<'a>>,
    page_starts: Option<View<'a>>,
    starts: Option<View<'a>>,
    lengths: Option<View<'a>>,
}

/// What integers mean, (element - zero) * scale.
#[derive(Debug, Clone, Copy)]
struct Scales<V> {
    key_scale: Option<V>,
    value_scale: Option<V>,
    key_zero: Option<V>,
    value_zero: Option<V>,
}

impl<V> Scales<V> {
    fn none() -> Self {
        Scales {
            key_scale: None,
            value_scale: None,
            key_zero: None,
            value_zero: None,
        }
    }
}

/// What [`sdpa_kv`](crate::sdpa_kv) reads: key (batch axes, Hk, C, E); with `starts` (Hk, total,
/// E); with `page_table` (pages, Hk, page, E); value likewise. Values of `i8`, `u8`,
/// [`Int4x2`](crate::Int4x2) and [`Uint4x2`](crate::Uint4x2) mean (value - zero) * scale.
/// `attention/kv.h` is the manual.
#[derive(Debug, Clone, Copy)]
pub struct Kv<'a> {
    key: View<'a>,
    value: View<'a>,
    places: Places<'a>,
    scales: Scales<View<'a>>,
}

/// What [`kv_append`] writes, as [`Kv`]. A scale, and a zero, of each row is written with it; a
/// coarser one is read.
#[derive(Debug)]
pub struct KvMut<'a> {
    key: ViewMut<'a>,
    value: ViewMut<'a>,
    places: Places<'a>,
    scales: Scales<ViewMut<'a>>,
}

macro_rules! place {
    ($kv:ident, $view:ident, $raw:ident) => {
        impl<'a> $kv<'a> {
            /// A matrix for each batch index and head, all rows in use.
            pub fn new(key: $view<'a>, value: $view<'a>) -> Self {
                $kv {
                    key,
                    value,
                    places: Places::default(),
                    scales: Scales::none(),
                }
            }

            /// `i64` or `i32`, (batch axes, M): key j is row j % page of page
            /// `page_table[b, j / page]`.
            #[must_use]
            pub fn page_table(mut self, page_table: View<'a>) -> Self {
                self.places.page_table = Some(page_table);
                self
            }

            /// `i64` or `i32`, (B + 1): sequence b has the entries of `page_table`, then (P), from
            /// `page_starts[b]` on.
            #[must_use]
            pub fn page_starts(mut self, page_starts: View<'a>) -> Self {
                self.places.page_starts = Some(page_starts);
                self
            }

            /// `i64` or `i32`, (B + 1): key j is row `starts[b]` + j.
            #[must_use]
            pub fn starts(mut self, starts: View<'a>) -> Self {
                self.places.starts = Some(starts);
                self
            }

            /// `i64` or `i32`, broadcastable to the batch axes: rows in use of a sequence.
            #[must_use]
            pub fn lengths(mut self, lengths: View<'a>) -> Self {
                self.places.lengths = Some(lengths);
                self
            }

            /// Beside keys of integers: `f32` or of 16 bits, of as many axes, each of whose lengths
            /// divides key's (in values); without it 1.
            #[must_use]
            pub fn key_scale(mut self, key_scale: $view<'a>) -> Self {
                self.scales.key_scale = Some(key_scale);
                self
            }

            /// Likewise of value.
            #[must_use]
            pub fn value_scale(mut self, value_scale: $view<'a>) -> Self {
                self.scales.value_scale = Some(value_scale);
                self
            }

            /// By the same rule, what is subtracted from elements before they are scaled; without
            /// it 0, or without a sign 128 of `u8`, 8 of `Uint4x2`.
            #[must_use]
            pub fn key_zero(mut self, key_zero: $view<'a>) -> Self {
                self.scales.key_zero = Some(key_zero);
                self
            }

            /// Likewise of value.
            #[must_use]
            pub fn value_zero(mut self, value_zero: $view<'a>) -> Self {
                self.scales.value_zero = Some(value_zero);
                self
            }

            /// The C struct; its pointers borrow from `self`.
            pub(crate) fn as_raw(&self) -> sys::attn_kv {
                sys::attn_kv {
                    key: self.key.as_raw(),
                    value: self.value.as_raw(),
                    page_table: raw_view(&self.places.page_table),
                    page_starts: raw_view(&self.places.page_starts),
                    starts: raw_view(&self.places.starts),
                    lengths: raw_view(&self.places.lengths),
                    key_scale: $raw(&self.scales.key_scale),
                    value_scale: $raw(&self.scales.value_scale),
                    key_zero: $raw(&self.scales.key_zero),
                    value_zero: $raw(&self.scales.value_zero),
                    ..Default::default()
                }
            }
        }
    };
}

place!(Kv, View, raw_view);
place!(KvMut, ViewMut, raw_output);

impl KvMut<'_> {
    /// What is there, to read until it is written again.
    pub fn as_kv(&self) -> Kv<'_> {
        Kv {
            key: self.key.as_view(),
            value: self.value.as_view(),
            places: self.places,
            scales: Scales {
                key_scale: self.scales.key_scale.as_ref().map(ViewMut::as_view),
                value_scale: self.scales.value_scale.as_ref().map(ViewMut::as_view),
                key_zero: self.scales.key_zero.as_ref().map(ViewMut::as_view),
                value_zero: self.scales.value_zero.as_ref().map(ViewMut::as_view),
            },
        }
    }
}

/// The options of [`kv_append`]. The default is as many new rows for each sequence, at the end of
/// its rows in use.
#[derive(Debug, Default)]
pub struct KvAppendOptions<'a> {
    context: Option<&'a Context>,
    starts: Option<View<'a>>,
    positions: Option<View<'a>>,
}

impl<'a> KvAppendOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one.
        context: &'a Context => Some,
        /// `i64` or `i32`, (B + 1): sequence b has the new rows from `starts[b]` on, of key (Hk,
        /// total, E) and value.
        starts: View<'a> => Some,
        /// `i64` or `i32`, broadcastable to (batch axes, L), or with starts to (total): the row of
        /// its sequence where a new row goes; negative: it is skipped.
        positions: View<'a> => Some,
    }
}

/// Stores new rows, converted: key (batch axes, Hk, L, E) and value (batch axes, Hv, L, Ev), of any
/// floats. The lengths of `kv` count them already. Nothing is written if this fails.
///
/// What is read while it is written does not compile:
///
/// ```compile_fail,E0502
/// use attention::{kv_append, KvAppendOptions, KvMut, View, ViewMut};
///
/// let (rows, mut key, mut value) = ([0.0f32; 4], [0.0f32; 4], [0.0f32; 4]);
/// let rows = View::new(&rows, &[1, 2, 2]).unwrap();
/// let stored_key = ViewMut::new(&mut key, &[1, 2, 2]).unwrap();
/// let stored_value = ViewMut::new(&mut value, &[1, 2, 2]).unwrap();
/// let mut stored = KvMut::new(stored_key, stored_value);
/// let kv = stored.as_kv();
/// kv_append(&mut stored, &rows, &rows, KvAppendOptions::new()).unwrap();
/// drop(kv);
/// ```
pub fn kv_append(
    kv: &mut KvMut<'_>,
    key: &View<'_>,
    value: &View<'_>,
    options: KvAppendOptions<'_>,
) -> Result<()> {
    let places = kv.as_raw();
    let params = sys::attn_kv_append_params {
        starts: raw_view(&options.starts),
        positions: raw_view(&options.positions),
        ..Default::default()
    };
    // SAFETY: every pointer borrows from an argument; views lie in their slices, the library checks
    // what leads to a row, and what is written is borrowed exclusively.
    check(unsafe {
        sys::attn_kv_append(
            options.context.map_or(ptr::null_mut(), Context::as_raw),
            &places,
            key.as_raw(),
            value.as_raw(),
            &params,
        )
    })
}
