// SPDX-License-Identifier: BSD-3-Clause
//! Scaled dot-product attention.

use std::ptr;

use crate::context::{static_text, Context, Engine, Gemm};
use crate::error::{check, Result};
use crate::kv::Kv;
use crate::mask::{raw_mask, Mask};
use crate::outputs::OutputShapes;
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_output, raw_view, View, ViewMut};

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
    Linear = sys::ATTN_NORMALIZER_LINEAR,
}

/// Which scores [`SdpaOptions::scores`] receives. A key past its sequence's length is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum ScoreStage {
    /// scale * (q . k) of every row and every key.
    #[default]
    Scaled = sys::ATTN_SCORE_SCALED,
    /// The same after softcap.
    Capped = sys::ATTN_SCORE_CAPPED,
    /// What the normalizer gets: with biases, and -inf where a row does not see the key.
    Masked = sys::ATTN_SCORE_MASKED,
}

/// Which weights are dropped: each is multiplied by 0 with a probability, else by 1 / (1 -
/// probability). Which ones depends on these numbers and on a weight's place alone.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dropout {
    /// 0 to below 1.
    pub probability: f64,
    /// With `offset` it names the stream of random numbers.
    pub seed: u64,
    /// Likewise: of a call among others with one seed.
    pub offset: u64,
    /// Added to the number of a weight's batch: a part of a larger problem drops what the whole
    /// would.
    pub batch: i64,
    /// Likewise of its query head.
    pub head: i64,
    /// Likewise of its row.
    pub row: i64,
    /// Likewise of its key.
    pub column: i64,
}

impl Dropout {
    fn as_raw(self) -> sys::attn_dropout {
        sys::attn_dropout {
            probability: self.probability,
            seed: self.seed,
            offset: self.offset,
            batch: self.batch,
            head: self.head,
            row: self.row,
            column: self.column,
            ..Default::default()
        }
    }
}

/// The options of an attention call. The default is PyTorch's call without options; all of them
/// compose.
#[derive(Debug, Default)]
pub struct SdpaOptions<'a> {
    context: Option<&'a Context>,
    is_causal: bool,
    align_end: bool,
    scale: Option<f64>,
    softcap: f64,
    window: Option<(i64, i64)>,
    enable_gqa: bool,
    normalizer: Normalizer,
    mask: Option<Mask<'a>>,
    mask_start: Option<View<'a>>,
    bias: Option<View<'a>>,
    position_bias: Option<View<'a>>,
    block_mask: Option<(View<'a>, i64, i64)>,
    dropout: Option<sys::attn_dropout>,
    query_offset: Option<View<'a>>,
    key_lengths: Option<View<'a>>,
    alibi_slopes: Option<View<'a>>,
    sinks: Option<View<'a>>,
    query_starts: Option<View<'a>>,
    lse: Option<ViewMut<'a>>,
    weights: Option<ViewMut<'a>>,
    scores: Option<ViewMut<'a>>,
    scores_stage: ScoreStage,
}

impl<'a> SdpaOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the layer's or the process's default one.
        context: &'a Context => Some,
        /// Query i sees keys j <= i + query_offset.
        is_causal: bool,
        /// The last query stands at the last key, as in decoding: query_offset is the number of
        /// keys less that of queries.
        align_end: bool,
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
        /// `i64` or `i32`, broadcastable to the batch axes: the key that mask's first column belongs
        /// to. Keys before it are visible, those behind mask's last column hidden.
        mask_start: View<'a> => Some,
        /// Broadcastable likewise: floats added to the scores, beside any mask.
        bias: View<'a> => Some,
        /// (Hq or 1, 2 R + 1): floats added by a key's distance from the row's position, at most R
        /// and at least -R.
        position_bias: View<'a> => Some,
        /// `i64` or `i32`, broadcastable to the batch axes: the position of query 0 among the keys.
        query_offset: View<'a> => Some,
        /// `i64` or `i32`, broadcastable to the batch axes: keys at or past it do not exist.
        key_lengths: View<'a> => Some,
        /// (Hq) or (1): the score loses slope * distance.
        alibi_slopes: View<'a> => Some,
        /// (Hq) or (1): one more logit in softmax's denominator.
        sinks: View<'a> => Some,
        /// `i64` or `i32`, (B + 1): query is (Hq, total, E), and sequence b has the rows from
        /// `query_starts[b]` on; output, lse, weights and the rows of masks lie likewise.
        query_starts: View<'a> => Some,
        /// Receives the logarithm of each row's sum of exponentials: output's shape without its
        /// last axis.
        lse: ViewMut<'a> => Some,
        /// Receives the weights: those of each head, (batch axes, Hq, L, S), or, without the axis
        /// Hq, their mean over the heads.
        weights: ViewMut<'a> => Some,
        /// Receives the scores, (batch axes, Hq, L, S), of `scores_stage`.
        scores: ViewMut<'a> => Some,
        /// Which scores are received.
        scores_stage: ScoreStage,
    }

    /// Which keys a query sees by blocks of `rows` queries and `columns` keys: `u8`, broadcastable to
    /// (batch axes, Hq, rows of blocks, columns of blocks), each 0, hidden and never read, 1, visible,
    /// or 2, visible where `mask` is.
    #[must_use]
    pub fn block_mask(mut self, blocks: View<'a>, rows: i64, columns: i64) -> Self {
        self.block_mask = Some((blocks, rows, columns));
        self
    }

    /// Drops weights, as in training.
    #[must_use]
    pub fn dropout(mut self, dropout: Dropout) -> Self {
        self.dropout = Some(dropout.as_raw());
        self
    }

    /// Keys before and after the query's own position that it sees; -1: all of them.
    #[must_use]
    pub fn window(mut self, left: i64, right: i64) -> Self {
        self.window = Some((left, right));
        self
    }

    /// The shapes of a call's outputs; those that are set here already do not matter.
    pub fn describe_outputs(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
    ) -> Result<OutputShapes> {
        // SAFETY: the pointers borrow from the arguments.
        unsafe { self.describe_raw(query, key.as_raw(), value.as_raw(), self.as_raw()) }
    }

    /// [`describe_outputs`](Self::describe_outputs) of [`sdpa_kv`].
    pub fn describe_outputs_kv(&self, query: &View<'_>, kv: &Kv<'_>) -> Result<OutputShapes> {
        let places = kv.as_raw();
        // SAFETY: the pointers borrow from the arguments and from `places`.
        unsafe { self.describe_raw(query, ptr::null(), ptr::null(), self.as_raw_with(&places)) }
    }

    /// # Safety
    ///
    /// What key, value and params point to is there; no element is touched.
    unsafe fn describe_raw(
        &self,
        query: &View<'_>,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: sys::attn_sdpa_params,
    ) -> Result<OutputShapes> {
        let mut outputs = sys::attn_sdpa_outputs::default();
        // SAFETY: the caller's word, and a local.
        check(unsafe {
            sys::attn_sdpa_describe_outputs(query.as_raw(), key, value, &params, &mut outputs)
        })?;
        Ok((&outputs).into())
    }

    /// What [`sdpa`] would run for the same arguments, and why.
    pub fn explain(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
        output: &ViewMut<'_>,
    ) -> Result<SdpaReport> {
        // SAFETY: the pointers borrow from the arguments.
        unsafe { self.explain_raw(query, key.as_raw(), value.as_raw(), self.as_raw(), output) }
    }

    /// [`explain`](Self::explain) of [`sdpa_kv`].
    pub fn explain_kv(
        &self,
        query: &View<'_>,
        kv: &Kv<'_>,
        output: &ViewMut<'_>,
    ) -> Result<SdpaReport> {
        let places = kv.as_raw();
        let params = self.as_raw_with(&places);
        // SAFETY: the pointers borrow from the arguments and from `places`.
        unsafe { self.explain_raw(query, ptr::null(), ptr::null(), params, output) }
    }

    /// # Safety
    ///
    /// As of `describe_raw`.
    unsafe fn explain_raw(
        &self,
        query: &View<'_>,
        key: *const attn_tensor,
        value: *const attn_tensor,
        params: sys::attn_sdpa_params,
        output: &ViewMut<'_>,
    ) -> Result<SdpaReport> {
        let mut report = sys::attn_sdpa_report::default();
        // SAFETY: the caller's word, and a local.
        check(unsafe {
            sys::attn_sdpa_explain(
                self.raw_context_or(ptr::null_mut()),
                query.as_raw(),
                key,
                value,
                &params,
                output.as_raw(),
                &mut report,
            )
        })?;
        Ok((&report).into())
    }

    /// As `as_raw`, with keys and values where `kv` says, from which it borrows too.
    pub(crate) fn as_raw_with(&self, kv: &sys::attn_kv) -> sys::attn_sdpa_params {
        sys::attn_sdpa_params {
            kv,
            ..self.as_raw()
        }
    }

    pub(crate) fn raw_context_or(&self, other: *mut sys::attn_context) -> *mut sys::attn_context {
        self.context.map_or(other, Context::as_raw)
    }

    /// The C struct; its pointers borrow from `self`.
    pub(crate) fn as_raw(&self) -> sys::attn_sdpa_params {
        let (mask_kind, mask) = raw_mask(&self.mask);
        let (window_left, window_right) = self.window.unwrap_or((0, 0));
        let (blocks, block_rows, block_columns) = match &self.block_mask {
            Some((view, rows, columns)) => (view.as_raw(), *rows, *columns),
            None => (std::ptr::null(), 0, 0),
        };
        let set_scale = self.scale.map_or(0, |_| sys::ATTN_SDPA_SET_SCALE);
        let set_window = self.window.map_or(0, |_| sys::ATTN_SDPA_SET_WINDOW);
        sys::attn_sdpa_params {
            set: set_scale | set_window,
            is_causal: self.is_causal.into(),
            scale: self.scale.unwrap_or(0.0),
            softcap: self.softcap,
            window_left,
            window_right,
            enable_gqa: self.enable_gqa.into(),
            align_end: self.align_end.into(),
            normalizer: self.normalizer as i32,
            mask_kind,
            mask,
            mask_start: raw_view(&self.mask_start),
            bias: raw_view(&self.bias),
            position_bias: raw_view(&self.position_bias),
            block_mask: blocks,
            block_rows,
            block_columns,
            dropout: self
                .dropout
                .as_ref()
                .map_or(ptr::null(), |raw| raw as *const _),
            query_offset: raw_view(&self.query_offset),
            key_lengths: raw_view(&self.key_lengths),
            alibi_slopes: raw_view(&self.alibi_slopes),
            sinks: raw_view(&self.sinks),
            query_starts: raw_view(&self.query_starts),
            lse: raw_output(&self.lse),
            weights: raw_output(&self.weights),
            scores: raw_output(&self.scores),
            scores_stage: self.scores_stage as i32,
            ..Default::default()
        }
    }
}

/// What a call runs and why, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SdpaReport {
    /// `Fused` or `Blas`.
    pub engine: Engine,
    /// Who computes the matrix products.
    pub gemm: Gemm,
    /// The last bits may differ with the number of threads BLAS uses.
    pub depends_on_blas_threads: bool,
    /// Tensors that go through a copy: the sum of `sys::ATTN_SDPA_PACK_QUERY` and so on.
    pub packs: i32,
    /// Query rows handled together.
    pub row_block: i64,
    /// Pieces of work.
    pub num_blocks: i64,
    /// Memory that the call allocates while it runs.
    pub workspace_bytes: u64,
    /// The kernels in use.
    pub kernels: &'static str,
    /// One sentence: why this engine.
    pub reason: &'static str,
}

impl From<&sys::attn_sdpa_report> for SdpaReport {
    fn from(raw: &sys::attn_sdpa_report) -> Self {
        SdpaReport {
            engine: Engine::from_code(raw.engine),
            gemm: Gemm::from_code(raw.gemm),
            depends_on_blas_threads: raw.depends_on_blas_threads != 0,
            packs: raw.packs,
            row_block: raw.row_block,
            num_blocks: raw.num_blocks,
            workspace_bytes: raw.workspace_bytes,
            kernels: static_text(raw.kernels),
            reason: static_text(raw.reason),
        }
    }
}

/// output = normalise(scale * query * key^T, bias, mask) * value.
///
/// Shapes: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
/// Ev), of ranks 2 to 8, any strides. All `f64`; or query, key and value each `f32`,
/// [`Bf16`](crate::Bf16) or [`F16`](crate::F16), output and weights of query's type or `f32`, lse
/// of `f32`. An output that is an input does not
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
            options.raw_context_or(ptr::null_mut()),
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

/// [`sdpa`] with keys and values in a cache, ragged or in pages: each sequence has the bits it has
/// alone. S, in the shapes of options and outputs, is then C, or as `attention/sdpa.h` says.
pub fn sdpa_kv(
    query: &View<'_>,
    kv: &Kv<'_>,
    output: &mut ViewMut<'_>,
    options: SdpaOptions<'_>,
) -> Result<()> {
    let places = kv.as_raw();
    let params = options.as_raw_with(&places);
    // SAFETY: as in sdpa; the library checks what leads to a row.
    check(unsafe {
        sys::attn_sdpa(
            options.raw_context_or(ptr::null_mut()),
            query.as_raw(),
            ptr::null(),
            ptr::null(),
            &params,
            output.as_raw(),
            ptr::null_mut(),
            0,
        )
    })
}
