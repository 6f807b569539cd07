// SPDX-License-Identifier: BSD-3-Clause
//! Attention over keys that were attended in parts, put together again.

use std::ptr;

use crate::context::Context;
use crate::error::{check, Result};
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_output, raw_view, View, ViewMut};

/// What [`sdpa`](crate::sdpa) made of some of the keys.
#[derive(Debug, Clone, Copy)]
pub struct PartialResult<'a> {
    /// (..., L, Ev)
    pub output: View<'a>,
    /// (..., L); none in any part: the outputs are added as they are, which is how those of
    /// [`Normalizer::Sigmoid`](crate::Normalizer::Sigmoid) and `Linear` are merged.
    pub lse: Option<View<'a>>,
}

/// The options of [`merge`].
#[derive(Debug, Default)]
pub struct MergeOptions<'a> {
    context: Option<&'a Context>,
    sinks: Option<View<'a>>,
    lse: Option<ViewMut<'a>>,
}

impl<'a> MergeOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one.
        context: &'a Context => Some,
        /// (Hq) or (1): one more logit, that no part has counted.
        sinks: View<'a> => Some,
        /// Receives the lse of all keys: output's shape without its last axis.
        lse: ViewMut<'a> => Some,
    }
}

/// Merges partial results, of output's shape, into one. All `f64`; or outputs each of `f32`,
/// [`Bf16`](crate::Bf16) or [`F16`](crate::F16), and lse of `f32`.
pub fn merge(
    parts: &[PartialResult<'_>],
    output: &mut ViewMut<'_>,
    options: MergeOptions<'_>,
) -> Result<()> {
    let outputs: Vec<attn_tensor> = parts.iter().map(|part| part.output.raw_copy()).collect();
    let lses = raw_lses(parts);
    let params = sys::attn_merge_params {
        sinks: raw_view(&options.sinks),
        ..Default::default()
    };
    // SAFETY: both arrays have an element for each part; every pointer borrows from an argument or
    // a local, and outputs are borrowed exclusively.
    check(unsafe {
        sys::attn_sdpa_merge(
            options.context.map_or(ptr::null_mut(), Context::as_raw),
            parts.len() as i64,
            outputs.as_ptr(),
            lses.as_ref().map_or(ptr::null(), Vec::as_ptr),
            &params,
            output.as_raw(),
            raw_output(&options.lse),
        )
    })
}

/// None if no part has one. One that is missing beside others is of no dtype: the library names it.
fn raw_lses(parts: &[PartialResult<'_>]) -> Option<Vec<attn_tensor>> {
    let missing = attn_tensor {
        data: ptr::null_mut(),
        dtype: sys::ATTN_DTYPE_INVALID,
        rank: 0,
        shape: [0; sys::ATTN_MAX_RANK],
        strides: [0; sys::ATTN_MAX_RANK],
    };
    parts.iter().any(|part| part.lse.is_some()).then(|| {
        parts
            .iter()
            .map(|part| part.lse.as_ref().map_or(missing, View::raw_copy))
            .collect()
    })
}
