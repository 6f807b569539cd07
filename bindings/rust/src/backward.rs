// SPDX-License-Identifier: BSD-3-Clause
//! The gradients of scaled dot-product attention.

use std::ptr;

use crate::context::static_text;
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

    /// What [`sdpa_backward`] would run for the same arguments, and why.
    pub fn explain(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
        made: &PartialResult<'_>,
        gradient: &View<'_>,
        options: &SdpaOptions<'_>,
    ) -> Result<SdpaBackwardReport> {
        let call = Call::new(query, made, gradient, self, options, options.as_raw());
        // SAFETY: the pointers borrow from the arguments.
        unsafe { call.explain(key.as_raw(), value.as_raw()) }
    }

    /// [`explain`](Self::explain) of [`sdpa_backward_kv`].
    pub fn explain_kv(
        &self,
        query: &View<'_>,
        kv: &Kv<'_>,
        made: &PartialResult<'_>,
        gradient: &View<'_>,
        options: &SdpaOptions<'_>,
    ) -> Result<SdpaBackwardReport> {
        let places = kv.as_raw();
        let params = options.as_raw_with(&places);
        let call = Call::new(query, made, gradient, self, options, params);
        // SAFETY: the pointers borrow from the arguments and from `places`.
        unsafe { call.explain(ptr::null(), ptr::null()) }
    }

    /// The C struct; its pointers borrow from `self`, but for `output`.
    pub(crate) fn as_raw(&self, output: *const attn_tensor) -> sys::attn_sdpa_gradients {
        sys::attn_sdpa_gradients {
            accumulate: self.accumulate.into(),
            output,
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
    let call = Call::new(query, made, gradient, &wanted, &options, options.as_raw());
    // SAFETY: the pointers borrow from the arguments.
    unsafe { call.run(key.as_raw(), value.as_raw()) }
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
    let call = Call::new(query, made, gradient, &wanted, &options, params);
    // SAFETY: the pointers borrow from the arguments and from `places`.
    unsafe { call.run(ptr::null(), ptr::null()) }
}

/// What [`sdpa_backward`] runs and why, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SdpaBackwardReport {
    /// An item walks all keys of a head; else threads work on one head together, which changes no
    /// bit.
    pub whole_heads: bool,
    /// How many gradients are summed apart before they are written.
    pub staged: i32,
    /// Pieces of work for the gradients of query, key and value; 0 where none is wanted.
    pub num_items: i64,
    /// Query rows of a block.
    pub row_block: i64,
    /// Keys of a block.
    pub key_block: i64,
    /// Memory that the call allocates while it runs.
    pub workspace_bytes: u64,
    /// The kernels in use.
    pub kernels: &'static str,
    /// One sentence: why this schedule.
    pub reason: &'static str,
}

impl From<&sys::attn_sdpa_backward_report> for SdpaBackwardReport {
    fn from(raw: &sys::attn_sdpa_backward_report) -> Self {
        SdpaBackwardReport {
            whole_heads: raw.whole_heads != 0,
            staged: raw.staged,
            num_items: raw.num_items,
            row_block: raw.row_block,
            key_block: raw.key_block,
            workspace_bytes: raw.workspace_bytes,
            kernels: static_text(raw.kernels),
            reason: static_text(raw.reason),
        }
    }
}

/// The structs of a call, but for where keys and values are.
struct Call<'a> {
    context: *mut sys::attn_context,
    query: &'a View<'a>,
    output: &'a View<'a>,
    params: sys::attn_sdpa_params,
    gradients: sys::attn_sdpa_gradients,
}

impl<'a> Call<'a> {
    fn new(
        query: &'a View<'a>,
        made: &'a PartialResult<'a>,
        gradient: &'a View<'a>,
        wanted: &'a SdpaGradients<'a>,
        options: &'a SdpaOptions<'a>,
        params: sys::attn_sdpa_params,
    ) -> Self {
        Call {
            context: options.raw_context_or(ptr::null_mut()),
            query,
            output: &made.output,
            params: sys::attn_sdpa_params {
                lse: raw_view(&made.lse),
                ..params
            },
            gradients: wanted.as_raw(gradient.as_raw()),
        }
    }

    /// # Safety
    ///
    /// What key, value and params point to is there, and what is wanted is borrowed exclusively.
    unsafe fn run(&self, key: *const attn_tensor, value: *const attn_tensor) -> Result<()> {
        // SAFETY: the caller's word; views lie in their slices.
        check(unsafe {
            sys::attn_sdpa_backward(
                self.context,
                self.query.as_raw(),
                key,
                value,
                &self.params,
                self.output.as_raw(),
                &self.gradients,
                ptr::null_mut(),
                0,
            )
        })
    }

    /// # Safety
    ///
    /// What key, value and params point to is there; no element is touched.
    unsafe fn explain(
        &self,
        key: *const attn_tensor,
        value: *const attn_tensor,
    ) -> Result<SdpaBackwardReport> {
        let mut report = sys::attn_sdpa_backward_report::default();
        // SAFETY: the caller's word, and a local.
        check(unsafe {
            sys::attn_sdpa_backward_explain(
                self.context,
                self.query.as_raw(),
                key,
                value,
                &self.params,
                self.output.as_raw(),
                &self.gradients,
                &mut report,
            )
        })?;
        Ok((&report).into())
    }
}
