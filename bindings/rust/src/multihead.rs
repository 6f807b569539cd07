// SPDX-License-Identifier: BSD-3-Clause
//! Multi-head attention: PyTorch's `nn.MultiheadAttention` in evaluation mode, and its
//! generalisations.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::context::{c_string, static_text, Context, Gemm};
use crate::error::{check, Result};
use crate::kv::KvMut;
use crate::mask::{raw_mask, Mask};
use crate::outputs::OutputShapes;
use crate::rope::RopeOptions;
use crate::sdpa::{SdpaOptions, SdpaReport};
use crate::setters::setters;
use crate::sys;
use crate::view::{shape_of, signed, Dtype, View, ViewMut};

/// What is normalised of projected queries and keys, as [`rms_norm`](crate::rms_norm) does it, by
/// `q_norm.weight` and `k_norm.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum QkNorm {
    /// Each head, by one weight for all: Qwen 3, Gemma 3.
    Head = sys::ATTN_QK_NORM_HEAD,
    /// All heads as one row: OLMo 2.
    AllHeads = sys::ATTN_QK_NORM_ALL_HEADS,
}

impl QkNorm {
    fn from_code(code: i32) -> Option<Self> {
        [QkNorm::Head, QkNorm::AllHeads]
            .into_iter()
            .find(|norm| *norm as i32 == code)
    }
}

/// What a layer is: PyTorch's `MultiheadAttention(embed_dim, num_heads)` until changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MultiheadConfig {
    /// Features of the output.
    pub embed_dim: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Features of key; 0: embed_dim.
    pub kdim: usize,
    /// Features of value; 0: embed_dim.
    pub vdim: usize,
    /// Features of query; 0: embed_dim.
    pub qdim: usize,
    /// Key and value heads, a divisor of num_heads; 0: num_heads.
    pub num_kv_heads: usize,
    /// Features of a query or key head; 0: embed_dim / num_heads.
    pub head_dim: usize,
    /// Features of a value head; 0: head_dim.
    pub value_head_dim: usize,
    /// Of query, key, value and output: `Float32`, the default, `Float64`, `Bfloat16` or
    /// `Float16`.
    pub dtype: Dtype,
    /// Of the parameters that the layer keeps; `None`: dtype. Beside any dtype but `Float64` it
    /// may be `Float32`, `Bfloat16` or `Float16`.
    pub parameter_dtype: Option<Dtype>,
    /// Whether in_proj_bias and out_proj.bias exist.
    pub bias: bool,
    /// One learned key and value after the source keys.
    pub add_bias_kv: bool,
    /// One key and value of zeros after those.
    pub add_zero_attn: bool,
    /// (N, L, E) instead of (L, N, E).
    pub batch_first: bool,
    /// What is normalised of queries and keys; `None`: nothing.
    pub qk_norm: Option<QkNorm>,
    /// Of qk_norm, as that of [`rms_norm`](crate::rms_norm).
    pub qk_norm_epsilon: f64,
    /// Of qk_norm, added to its weights: 1 for Gemma's.
    pub qk_norm_weight_offset: f64,
    /// Whose memory the layer takes, and what its calls run under unless they say otherwise.
    pub context: Context,
}

impl MultiheadConfig {
    /// A layer of `num_heads` heads over `embed_dim` features.
    pub fn new(embed_dim: usize, num_heads: usize) -> Self {
        MultiheadConfig {
            embed_dim,
            num_heads,
            kdim: 0,
            vdim: 0,
            qdim: 0,
            num_kv_heads: 0,
            head_dim: 0,
            value_head_dim: 0,
            dtype: Dtype::Float32,
            parameter_dtype: None,
            bias: true,
            add_bias_kv: false,
            add_zero_attn: false,
            batch_first: false,
            qk_norm: None,
            qk_norm_epsilon: 0.0,
            qk_norm_weight_offset: 0.0,
            context: Context::default(),
        }
    }

    setters! {
        /// Sets the field.
        kdim: usize,
        /// Sets the field.
        vdim: usize,
        /// Sets the field.
        qdim: usize,
        /// Sets the field.
        num_kv_heads: usize,
        /// Sets the field.
        head_dim: usize,
        /// Sets the field.
        value_head_dim: usize,
        /// Sets the field.
        dtype: Dtype,
        /// Sets the field.
        parameter_dtype: Dtype => Some,
        /// Sets the field.
        bias: bool,
        /// Sets the field.
        add_bias_kv: bool,
        /// Sets the field.
        add_zero_attn: bool,
        /// Sets the field.
        batch_first: bool,
        /// Sets the field.
        qk_norm: QkNorm => Some,
        /// Sets the field.
        qk_norm_epsilon: f64,
        /// Sets the field.
        qk_norm_weight_offset: f64,
    }

    /// Sets the field to the same context.
    #[must_use]
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// Makes the layer, without parameters.
    pub fn build(self) -> Result<MultiheadAttention> {
        let config = sys::attn_mha_config {
            embed_dim: signed(self.embed_dim)?,
            num_heads: signed(self.num_heads)?,
            kdim: signed(self.kdim)?,
            vdim: signed(self.vdim)?,
            qdim: signed(self.qdim)?,
            num_kv_heads: signed(self.num_kv_heads)?,
            head_dim: signed(self.head_dim)?,
            value_head_dim: signed(self.value_head_dim)?,
            dtype: self.dtype as i32,
            no_bias: (!self.bias).into(),
            add_bias_kv: self.add_bias_kv.into(),
            add_zero_attn: self.add_zero_attn.into(),
            batch_first: self.batch_first.into(),
            parameter_dtype: self
                .parameter_dtype
                .map_or(sys::ATTN_DTYPE_INVALID, |dtype| dtype as i32),
            qk_norm: self
                .qk_norm
                .map_or(sys::ATTN_QK_NORM_NONE, |norm| norm as i32),
            qk_norm_epsilon: self.qk_norm_epsilon,
            qk_norm_weight_offset: self.qk_norm_weight_offset,
            ..Default::default()
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers outlive the call.
        check(unsafe { sys::attn_mha_create(self.context.as_raw(), &config, &mut raw) })?;
        Ok(MultiheadAttention {
            raw: NonNull::new(raw).expect("a layer that was made"),
            context: self.context,
        })
    }
}

/// A layer: sizes and parameters. Any number of threads may call [`forward`](Self::forward) at
/// once.
#[derive(Debug)]
pub struct MultiheadAttention {
    raw: NonNull<sys::attn_mha>,
    context: Context,
}

// SAFETY: the library lets any thread use a layer, and threads share one that is not written;
// writing takes &mut self.
unsafe impl Send for MultiheadAttention {}
unsafe impl Sync for MultiheadAttention {}

impl MultiheadAttention {
    /// What the layer is: zeros that stood for a size have become that size.
    pub fn config(&self) -> Result<MultiheadConfig> {
        let mut raw = sys::attn_mha_config::default();
        // SAFETY: `raw` knows its size.
        check(unsafe { sys::attn_mha_describe(self.raw.as_ptr(), &mut raw) })?;
        Ok(MultiheadConfig {
            embed_dim: raw.embed_dim as usize,
            num_heads: raw.num_heads as usize,
            kdim: raw.kdim as usize,
            vdim: raw.vdim as usize,
            qdim: raw.qdim as usize,
            num_kv_heads: raw.num_kv_heads as usize,
            head_dim: raw.head_dim as usize,
            value_head_dim: raw.value_head_dim as usize,
            dtype: Dtype::from_code(raw.dtype).expect("the dtype of a layer that was made"),
            parameter_dtype: Dtype::from_code(raw.parameter_dtype),
            bias: raw.no_bias == 0,
            add_bias_kv: raw.add_bias_kv != 0,
            add_zero_attn: raw.add_zero_attn != 0,
            batch_first: raw.batch_first != 0,
            qk_norm: QkNorm::from_code(raw.qk_norm),
            qk_norm_epsilon: raw.qk_norm_epsilon,
            qk_norm_weight_offset: raw.qk_norm_weight_offset,
            context: self.context.clone(),
        })
    }

    /// Names and shapes of the parameters, as in PyTorch's `state_dict`.
    pub fn parameters(&self) -> Result<Vec<(&'static str, Vec<usize>)>> {
        let layer = self.raw.as_ptr();
        let mut count = 0;
        // SAFETY: the pointers outlive the call.
        check(unsafe { sys::attn_mha_parameter_count(layer, &mut count) })?;
        let describe = |index| {
            let (mut name, mut shape) = (ptr::null(), MaybeUninit::uninit());
            // SAFETY: as above.
            check(unsafe {
                sys::attn_mha_parameter_describe(layer, index, &mut name, shape.as_mut_ptr())
            })?;
            // SAFETY: a call that succeeds fills it; the name is static memory.
            Ok((static_text(name), shape_of(unsafe { &shape.assume_init() })))
        };
        (0..count).map(describe).collect()
    }

    /// Copies a parameter into the layer, by its name in PyTorch's `state_dict`; other floats
    /// are converted to the layer's parameter_dtype.
    pub fn load_parameter(&mut self, name: &str, values: &View<'_>) -> Result<()> {
        let name = c_string("name", name)?;
        // SAFETY: the pointers outlive the call, which copies the values.
        check(unsafe {
            sys::attn_mha_load_parameter(
                self.context.as_raw(),
                self.raw.as_ptr(),
                name.as_ptr(),
                values.as_raw(),
                ptr::null(),
            )
        })
    }

    /// As [`load_parameter`](Self::load_parameter), of integers for a layer that keeps its weights
    /// as [`Dtype::Int8`], with the scale of each row.
    pub fn load_quantized_parameter(
        &mut self,
        name: &str,
        values: &View<'_>,
        scale: &View<'_>,
    ) -> Result<()> {
        let name = c_string("name", name)?;
        let params = sys::attn_mha_load_params {
            scale: scale.as_raw(),
            ..Default::default()
        };
        // SAFETY: the pointers outlive the call, which copies the values.
        check(unsafe {
            sys::attn_mha_load_parameter(
                self.context.as_raw(),
                self.raw.as_ptr(),
                name.as_ptr(),
                values.as_raw(),
                &params,
            )
        })
    }

    /// Copies a parameter out of the layer, as its parameter_dtype; weights of [`Dtype::Int8`] as the
    /// `f32` that they mean, or the `i8` that they are, with scales by the name and ".scale".
    pub fn read_parameter(&self, name: &str, values: &mut ViewMut<'_>) -> Result<()> {
        let name = c_string("name", name)?;
        // SAFETY: the pointers outlive the call, and the values are borrowed exclusively.
        check(unsafe {
            sys::attn_mha_read_parameter(
                self.context.as_raw(),
                self.raw.as_ptr(),
                name.as_ptr(),
                values.as_raw(),
            )
        })
    }

    /// Gives every parameter fresh random values, distributed as PyTorch's constructor does.
    pub fn init_parameters(&mut self, seed: u64) -> Result<()> {
        let params = sys::attn_mha_init_params {
            seed,
            ..Default::default()
        };
        // SAFETY: the pointers outlive the call.
        check(unsafe {
            sys::attn_mha_init_parameters(self.context.as_raw(), self.raw.as_ptr(), &params)
        })
    }

    /// Shapes: query (L, N, qdim), key (S, N, kdim), value (S, N, vdim), output (L, N, embed_dim);
    /// with batch_first the batch N comes first; unbatched without N.
    pub fn forward(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
        output: &mut ViewMut<'_>,
        options: ForwardOptions<'_>,
    ) -> Result<()> {
        self.run(query, Some((key, value)), output, options)
    }

    /// As [`forward`](Self::forward), of the cache in `options` as it is: nothing is projected but
    /// the query, and nothing stored.
    pub fn forward_cached(
        &self,
        query: &View<'_>,
        output: &mut ViewMut<'_>,
        options: ForwardOptions<'_>,
    ) -> Result<()> {
        self.run(query, None, output, options)
    }

    fn run(
        &self,
        query: &View<'_>,
        rows: Option<(&View<'_>, &View<'_>)>,
        output: &mut ViewMut<'_>,
        options: ForwardOptions<'_>,
    ) -> Result<()> {
        let inside = options.raw_structs();
        let params = options.as_raw(&inside);
        let (key, value) = rows.map_or((ptr::null(), ptr::null()), |(key, value)| {
            (key.as_raw(), value.as_raw())
        });
        // SAFETY: every pointer borrows from an argument or a local; views lie in their slices,
        // and outputs, the cache among them, are borrowed exclusively.
        check(unsafe {
            sys::attn_mha_forward(
                self.context_of(&options),
                self.raw.as_ptr(),
                query.as_raw(),
                key,
                value,
                &params,
                output.as_raw(),
                ptr::null_mut(),
                0,
            )
        })
    }

    /// The shapes of a call's outputs; those that are set in `options` already do not matter.
    pub fn describe_outputs(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
        options: &ForwardOptions<'_>,
    ) -> Result<OutputShapes> {
        let inside = options.raw_structs();
        let params = options.as_raw(&inside);
        let mut outputs = sys::attn_mha_outputs::default();
        // SAFETY: every pointer borrows from an argument or a local; no element is touched.
        check(unsafe {
            sys::attn_mha_describe_outputs(
                self.raw.as_ptr(),
                query.as_raw(),
                key.as_raw(),
                value.as_raw(),
                &params,
                &mut outputs,
            )
        })?;
        Ok((&outputs).into())
    }

    /// What [`forward`](Self::forward) would run for the same arguments, and why.
    pub fn explain(
        &self,
        query: &View<'_>,
        key: &View<'_>,
        value: &View<'_>,
        output: &ViewMut<'_>,
        options: &ForwardOptions<'_>,
    ) -> Result<MultiheadReport> {
        let inside = options.raw_structs();
        let params = options.as_raw(&inside);
        let mut attention = sys::attn_sdpa_report::default();
        let mut report = sys::attn_mha_report {
            attention: &mut attention,
            ..Default::default()
        };
        // SAFETY: as in describe_outputs.
        check(unsafe {
            sys::attn_mha_explain(
                self.context_of(options),
                self.raw.as_ptr(),
                query.as_raw(),
                key.as_raw(),
                value.as_raw(),
                &params,
                output.as_raw(),
                &mut report,
            )
        })?;
        Ok(MultiheadReport {
            projection_gemm: Gemm::from_code(report.projection_gemm),
            depends_on_blas_threads: report.depends_on_blas_threads != 0,
            workspace_bytes: report.workspace_bytes,
            kernels: static_text(report.kernels),
            attention: (&attention).into(),
        })
    }

    pub(crate) fn as_raw(&self) -> *const sys::attn_mha {
        self.raw.as_ptr()
    }

    pub(crate) fn context_of(&self, options: &ForwardOptions<'_>) -> *mut sys::attn_context {
        options.attention.raw_context_or(self.context.as_raw())
    }
}

impl Drop for MultiheadAttention {
    fn drop(&mut self) {
        // SAFETY: made by attn_mha_create, destroyed once; no call can still borrow it.
        unsafe { sys::attn_mha_destroy(self.raw.as_ptr()) }
    }
}

/// What a layer's call runs and why, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MultiheadReport {
    /// Who computes the projections.
    pub projection_gemm: Gemm,
    /// The last bits may differ with the number of threads BLAS uses.
    pub depends_on_blas_threads: bool,
    /// Memory that the call allocates while it runs.
    pub workspace_bytes: u64,
    /// The kernels in use.
    pub kernels: &'static str,
    /// Of the attention inside.
    pub attention: SdpaReport,
}

/// The options of a layer's call. The default: no mask, no weights.
#[derive(Debug, Default)]
pub struct ForwardOptions<'a> {
    key_padding_mask: Option<Mask<'a>>,
    attention: SdpaOptions<'a>,
    cache: Option<KvMut<'a>>,
    rope: Option<RopeOptions<'a>>,
}

/// What the C struct of the options points to.
pub(crate) struct RawStructs {
    pub(crate) attention: sys::attn_sdpa_params,
    cache: Option<sys::attn_kv>,
    rope: Option<sys::attn_rope_params>,
}

fn pointer_to<T>(given: &Option<T>) -> *const T {
    given
        .as_ref()
        .map_or(ptr::null(), |inside| inside as *const T)
}

impl<'a> ForwardOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// (N, S), unbatched (S). Keys it excludes may hold NaN.
        key_padding_mask: Mask<'a> => Some,
        /// Every option of the attention inside, whose shapes are: mask (L, S), or one for each
        /// head: (N * H, L, S), unbatched (H, L, S), or (N, H, L, S); weights of each head
        /// (N, H, L, T), or their mean (N, L, T), unbatched without N, where T is S and the extra
        /// keys; lse (N, H, L).
        attention: SdpaOptions<'a>,
        /// Keys and values of earlier calls, (N, Hk, C, D) or in the other ways of [`KvMut`], with
        /// lengths, which count the new rows already: those of this call are stored behind them, and
        /// all are attended to.
        cache: KvMut<'a> => Some,
        /// Projected queries and keys are rotated before they are stored; its context does not
        /// matter. Without positions and lengths rows stand where they are stored.
        rope: RopeOptions<'a> => Some,
    }

    pub(crate) fn raw_structs(&self) -> RawStructs {
        RawStructs {
            attention: self.attention.as_raw(),
            cache: self.cache.as_ref().map(KvMut::as_raw),
            rope: self.rope.as_ref().map(RopeOptions::as_raw),
        }
    }

    /// The C struct; its pointers borrow from the arguments.
    pub(crate) fn as_raw(&self, inside: &RawStructs) -> sys::attn_mha_params {
        let (key_padding_mask_kind, key_padding_mask) = raw_mask(&self.key_padding_mask);
        sys::attn_mha_params {
            key_padding_mask_kind,
            key_padding_mask,
            attention: &inside.attention,
            cache: pointer_to(&inside.cache),
            rope: pointer_to(&inside.rope),
            ..Default::default()
        }
    }
}
