// SPDX-License-Identifier: BSD-3-Clause
//! Rotary positions of queries and keys.

use std::ptr;

use crate::context::Context;
use crate::error::{check, Result};
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_view, View, ViewMut};

/// The options of [`rope`]. The default rotates all features, in pairs of halves, with base 10000
/// and positions 0, 1, ...
#[derive(Debug, Default)]
pub struct RopeOptions<'a> {
    context: Option<&'a Context>,
    rotary_dim: i64,
    base: f64,
    magnitude: f64,
    interleaved: bool,
    inverse: bool,
    frequencies: Option<View<'a>>,
    cos: Option<View<'a>>,
    sin: Option<View<'a>>,
    positions: Option<View<'a>>,
    lengths: Option<View<'a>>,
}

impl<'a> RopeOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one.
        context: &'a Context => Some,
        /// The first R features are rotated, the others copied; 0: all.
        rotary_dim: i64,
        /// Pair i turns by base^(-2 i / R) for each position; 0: 10000.
        base: f64,
        /// Cosines and sines are multiplied by it; 0: 1.
        magnitude: f64,
        /// Pairs are features (2 i, 2 i + 1), not halves.
        interleaved: bool,
        /// By the negative angle.
        inverse: bool,
        /// (R / 2): the turn of each pair, instead of base.
        frequencies: View<'a> => Some,
        /// With sin, instead of base and frequencies: (P, R / 2) beside positions or lengths, else
        /// broadcastable to (batch axes, L, R / 2).
        cos: View<'a> => Some,
        /// The sines, likewise.
        sin: View<'a> => Some,
        /// `i64` or `i32`, broadcastable to (batch axes, L).
        positions: View<'a> => Some,
        /// `i64` or `i32`, broadcastable to the batch axes: rows of the sequence, of which those of
        /// the input are the last; instead of positions.
        lengths: View<'a> => Some,
    }

    /// The C struct; its pointers borrow from `self`.
    pub(crate) fn as_raw(&self) -> sys::attn_rope_params {
        sys::attn_rope_params {
            rotary_dim: self.rotary_dim,
            base: self.base,
            magnitude: self.magnitude,
            interleaved: self.interleaved.into(),
            inverse: self.inverse.into(),
            frequencies: raw_view(&self.frequencies),
            cos: raw_view(&self.cos),
            sin: raw_view(&self.sin),
            positions: raw_view(&self.positions),
            lengths: raw_view(&self.lengths),
            ..Default::default()
        }
    }

    /// # Safety
    ///
    /// `input` may be read, and `output` written, as they say.
    unsafe fn run(&self, input: *const attn_tensor, output: *const attn_tensor) -> Result<()> {
        let params = self.as_raw();
        let context = self.context.map_or(ptr::null_mut(), Context::as_raw);
        // SAFETY: the caller's word; the other pointers borrow from `self`.
        check(unsafe { sys::attn_rope(context, input, &params, output) })
    }
}

/// Rotates the features of input (batch axes, H, L, E) by the positions of its rows, into output of
/// the same shape, of input's type or that of scores.
pub fn rope(input: &View<'_>, output: &mut ViewMut<'_>, options: RopeOptions<'_>) -> Result<()> {
    // SAFETY: views lie in their slices, and the output is borrowed exclusively.
    unsafe { options.run(input.as_raw(), output.as_raw()) }
}

/// [`rope`] where the rows are.
pub fn rope_in_place(rows: &mut ViewMut<'_>, options: RopeOptions<'_>) -> Result<()> {
    // SAFETY: the view lies in its slice, which is borrowed exclusively.
    unsafe { options.run(rows.as_raw(), rows.as_raw()) }
}
