// SPDX-License-Identifier: BSD-3-Clause
//! Scaled dot-product attention.

use std::mem::size_of;
use std::ptr;

use crate::context::{raw_context, Context};
use crate::error::{check, Result};
use crate::mask::{raw_mask, Mask};
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{View, ViewMut};

/// What turns scores into weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Normalizer {
    /// exp(score - lse)
    #[default]
    Softmax = sys::ATTN_NORMALIZER_SOFTMAX,
    /// 1 / (1 + exp(-score))
    Sigmoid = sys::ATTN_NORMALIZER_SIGMOID,
    /// The score itself: plain linear attention.
    None = sys::ATTN_NORMALIZER_NONE,
}

/// The options of an attention call. The default is PyTorch's call without options; all of them
/// compose.
#[derive(Debug, Default)]
pub struct SdpaOptions<'a> {
    context: Option<&'a Context>,
    is_causal: bool,
    scale: Option<f64>,
    softcap: f64,
    window: Option<(i64, i64)>,
    enable_gqa: bool,
    normalizer: Normalizer,
    mask: Option<Mask<'a>>,
    query_offset: Option<View<'a>>,
    key_lengths: Option<View<'a>>,
    alibi_slopes: Option<View<'a>>,
    sinks: Option<View<'a>>,
    lse: Option<ViewMut<'a>>,
    weights: Option<ViewMut<'a>>,
    average_weights: bool,
}

impl<'a> SdpaOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one. Ignored inside a layer,
        /// whose call has its own.
        context: &'a Context => Some,
        /// Query i sees keys j <= i + query_offset.
        is_causal: bool,
        /// Multiplies q . k, instead of 1 / sqrt(E).
        scale: f64 => Some,
        /// Scores become softcap * tanh(score / softcap).
        softcap: f64,
        /// Query heads share the fewer heads of key and value.
        enable_gqa: bool,
        /// What turns scores into weights.
        normalizer: Normalizer,
        /// Broadcastable to (batch axes, Hq, L, S).
        mask: Mask<'a> => Some,
        /// `i64`, broadcastable to the batch axes: the position of query 0 among the keys.
        query_offset: View<'a> => Some,
        /// `i64`, broadcastable to the batch axes: keys at or past it do not exist.
        key_lengths: View<'a> => Some,
        /// (Hq) or (1): the score loses slope * distance.
        alibi_slopes: View<'a> => Some,
        /// (Hq) or (1): one more logit in softmax's denominator.
        sinks: View<'a> => Some,
        /// Receives the logarithm of each row's sum of exponentials: output's shape without its
        /// last axis.
        lse: ViewMut<'a> => Some,
        /// Receives the weights: (batch axes, Hq, L, S), or without Hq if they are averaged.
        weights: ViewMut<'a> => Some,
        /// The weights returned are the mean over heads.
        average_weights: bool,
    }

    /// Keys before and after the query's own position that it sees; -1: all of them.
    #[must_use]
    pub fn window(mut self, left: i64, right: i64) -> Self {
        self.window = Some((left, right));
        self
    }

    fn flags(&self) -> u64 {
        let flags = [
            (self.scale.is_some(), sys::ATTN_SDPA_SET_SCALE),
            (self.window.is_some(), sys::ATTN_SDPA_SET_WINDOW),
            (self.enable_gqa, sys::ATTN_SDPA_ENABLE_GQA),
            (self.average_weights, sys::ATTN_SDPA_AVERAGE_WEIGHTS),
        ];
        flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, bit)| bit)
            .sum()
    }

    /// The C struct; its pointers borrow from `self`.
    pub(crate) fn as_raw(&self) -> sys::attn_sdpa_params {
        let (mask_kind, mask) = raw_mask(&self.mask);
        let (window_left, window_right) = self.window.unwrap_or((0, 0));
        sys::attn_sdpa_params {
            struct_size: size_of::<sys::attn_sdpa_params>() as u64,
            flags: self.flags(),
            scale: self.scale.unwrap_or(0.0),
            softcap: self.softcap,
            window_left,
            window_right,
            is_causal: self.is_causal.into(),
            normalizer: self.normalizer as i32,
            mask_kind,
            reserved: 0,
            mask,
            query_offset: raw_view(&self.query_offset),
            key_lengths: raw_view(&self.key_lengths),
            alibi_slopes: raw_view(&self.alibi_slopes),
            sinks: raw_view(&self.sinks),
            lse: raw_output(&self.lse),
            weights: raw_output(&self.weights),
            report: ptr::null_mut(),
        }
    }
}

fn raw_view(view: &Option<View<'_>>) -> *const attn_tensor {
    view.as_ref().map_or(ptr::null(), View::as_raw)
}

pub(crate) fn raw_output(view: &Option<ViewMut<'_>>) -> *const attn_tensor {
    view.as_ref().map_or(ptr::null(), ViewMut::as_raw)
}

/// output = normalise(scale * query * key^T, mask) * value.
///
/// Shapes: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
/// Ev), of ranks 2 to 8, all `f32` or all `f64`, any strides. An output that is an input does not
/// compile:
///
/// ```compile_fail,E0502
/// use attention::{sdpa, SdpaOptions, View, ViewMut};
///
/// let mut data = [0.0f32; 4];
/// let view = View::new(&data, &[2, 2]).unwrap();
/// let mut output = ViewMut::new(&mut data, &[2, 2]).unwrap();
/// sdpa(&view, &view, &view, &mut output, SdpaOptions::new()).unwrap();
/// ```
pub fn sdpa(
    query: &View<'_>,
    key: &View<'_>,
    value: &View<'_>,
    output: &mut ViewMut<'_>,
    options: SdpaOptions<'_>,
) -> Result<()> {
    let params = options.as_raw();
    // SAFETY: every pointer borrows from an argument; views lie in their slices, and outputs are
    // borrowed exclusively.
    check(unsafe {
        sys::attn_sdpa(
            raw_context(options.context),
            query.as_raw(),
            key.as_raw(),
            value.as_raw(),
            &params,
            output.as_raw(),
            ptr::null_mut(),
            0,
        )
    })
}
