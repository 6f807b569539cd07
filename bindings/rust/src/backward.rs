// SPDX-License-Identifier: BSD-3-Clause
//! The gradients of scaled dot-product attention.

use std::ptr;

use crate::error::{check, Result};
use crate::kv::Kv;
use crate::merge::PartialResult;
use crate::sdpa::SdpaOptions;
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_output, raw_view, View, ViewMut};

/// What [`sdpa_backward`] is asked for, and what it is given beside the gradient of the output.
#[derive(Debug, Default)]
pub struct SdpaGradients<'a> {
    accumulate: bool,
    lse: Option<View<'a>>,
    weights: Option<View<'a>>,
    query: Option<ViewMut<'a>>,
    key: Option<ViewMut<'a>>,
    value: Option<ViewMut<'a>>,
    mask: Option<ViewMut<'a>>,
    bias: Option<ViewMut<'a>>,
    position_bias: Option<ViewMut<'a>>,
    alibi_slopes: Option<ViewMut<'a>>,
    sinks: Option<ViewMut<'a>>,
}

impl<'a> SdpaGradients<'a> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// What is wanted is added to what is there.
        accumulate: bool,
        /// Given: of lse, its shape; softmax only.
        lse: View<'a> => Some,
        /// Given: of the weights that the call returned, of each head or of their mean.
        weights: View<'a> => Some,
        /// Receives the gradient of query: its shape, its type or that of the scores. Where an
        /// input repeats, this is the sum; so it is of all others.
        query: ViewMut<'a> => Some,
        /// Receives that of key.
        key: ViewMut<'a> => Some,
        /// Receives that of value.
        value: ViewMut<'a> => Some,
        /// Receives that of an additive mask.
        mask: ViewMut<'a> => Some,
        /// Receives that of the bias.
        bias: ViewMut<'a> => Some,
        /// Receives that of the bias by distance.
        position_bias: ViewMut<'a> => Some,
        /// Receives that of the slopes.
        alibi_slopes: ViewMut<'a> => Some,
        /// Receives that of the sinks.
        sinks: ViewMut<'a> => Some,
    }

    /// The C struct; its pointers borrow from `self` and `output`.
    fn as_raw(&self, output: &View<'_>) -> sys::attn_sdpa_gradients {
        sys::attn_sdpa_gradients {
            accumulate: self.accumulate.into(),
            output: output.as_raw(),
            lse: raw_view(&self.lse),
            weights: raw_view(&self.weights),
            query: raw_output(&self.query),
            key: raw_output(&self.key),
            value: raw_output(&self.value),
            mask: raw_output(&self.mask),
            bias: raw_output(&self.bias),
            position_bias: raw_output(&self.position_bias),
            alibi_slopes: raw_output(&self.alibi_slopes),
            sinks: raw_output(&self.sinks),
            ..Default::default()
        }
    }
}

/// The gradients of a call of [`sdpa`](crate::sdpa) with the same arguments and options.
///
/// `made` is what that call wrote: output, and lse, which softmax needs. `gradient` is the
/// output's, of its shape. The options' own outputs are ignored.
pub fn sdpa_backward(
    query: &View<'_>,
    key: &View<'_>,
    value: &View<'_>,
    made: &PartialResult<'_>,
    gradient: &View<'_>,
    wanted: SdpaGradients<'_>,
    options: SdpaOptions<'_>,
) -> Result<()> {
    let params = options.as_raw();
    // SAFETY: the pointers borrow from the arguments.
    unsafe {
        run(
            query,
            key.as_raw(),
            value.as_raw(),
            made,
            gradient,
            &wanted,
            &options,
            params,
        )
    }
}

/// [`sdpa_backward`] of [`sdpa_kv`](crate::sdpa_kv): gradients of keys and values lie as `kv` has
/// them, in caches or one sequence behind the other.
pub fn sdpa_backward_kv(
    query: &View<'_>,
    kv: &Kv<'_>,
    made: &PartialResult<'_>,
    gradient: &View<'_>,
    wanted: SdpaGradients<'_>,
    options: SdpaOptions<'_>,
) -> Result<()> {
    let places = kv.as_raw();
    let params = options.as_raw_with(&places);
    // SAFETY: the pointers borrow from the arguments and from `places`.
    unsafe {
        run(
            query,
            ptr::null(),
            ptr::null(),
            made,
            gradient,
            &wanted,
            &options,
            params,
        )
    }
}

/// # Safety
///
/// What key, value and params point to is there.
#[allow(clippy::too_many_arguments)]
unsafe fn run(
    query: &View<'_>,
    key: *const attn_tensor,
    value: *const attn_tensor,
    made: &PartialResult<'_>,
    gradient: &View<'_>,
    wanted: &SdpaGradients<'_>,
    options: &SdpaOptions<'_>,
    params: sys::attn_sdpa_params,
) -> Result<()> {
    let params = sys::attn_sdpa_params {
        lse: raw_view(&made.lse),
        ..params
    };
    let gradients = wanted.as_raw(gradient);
    // SAFETY: the caller's word; views lie in their slices, and what is wanted is borrowed
    // exclusively.
    check(unsafe {
        sys::attn_sdpa_backward(
            options.raw_context_or(ptr::null_mut()),
            query.as_raw(),
            key,
            value,
            &params,
            made.output.as_raw(),
            &gradients,
            ptr::null_mut(),
            0,
        )
    })
}
