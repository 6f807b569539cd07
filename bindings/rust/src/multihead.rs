// SPDX-License-Identifier: BSD-3-Clause
//! Multi-head attention: PyTorch's `nn.MultiheadAttention` in evaluation mode, and its
//! generalisations.

use std::mem::size_of;
use std::ptr::{self, NonNull};

use crate::context::{c_string, raw_context, Context};
use crate::error::{check, Result};
use crate::mask::{raw_mask, Mask};
use crate::sdpa::{raw_output, SdpaOptions};
use crate::setters::setters;
use crate::sys;
use crate::view::{signed, Dtype, View, ViewMut};

/// What a layer is: PyTorch's `MultiheadAttention(embed_dim, num_heads)` until changed.
#[derive(Debug, Clone)]
pub struct MultiheadConfig {
    embed_dim: usize,
    num_heads: usize,
    kdim: usize,
    vdim: usize,
    qdim: usize,
    num_kv_heads: usize,
    head_dim: usize,
    value_head_dim: usize,
    dtype: Dtype,
    bias: bool,
    add_bias_kv: bool,
    add_zero_attn: bool,
    batch_first: bool,
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
            bias: true,
            add_bias_kv: false,
            add_zero_attn: false,
            batch_first: false,
        }
    }

    setters! {
        /// Features of key; 0: embed_dim.
        kdim: usize,
        /// Features of value; 0: embed_dim.
        vdim: usize,
        /// Features of query; 0: embed_dim.
        qdim: usize,
        /// Key and value heads, a divisor of num_heads; 0: num_heads.
        num_kv_heads: usize,
        /// Features of a query or key head; 0: embed_dim / num_heads.
        head_dim: usize,
        /// Features of a value head; 0: head_dim.
        value_head_dim: usize,
        /// `Float32`, the default, or `Float64`.
        dtype: Dtype,
        /// Whether in_proj_bias and out_proj.bias exist.
        bias: bool,
        /// One learned key and value after the source keys.
        add_bias_kv: bool,
        /// One key and value of zeros after those.
        add_zero_attn: bool,
        /// (N, L, E) instead of (L, N, E).
        batch_first: bool,
    }

    /// Makes the layer, without parameters.
    pub fn build(self) -> Result<MultiheadAttention> {
        let config = sys::attn_mha_config {
            struct_size: size_of::<sys::attn_mha_config>() as u64,
            embed_dim: signed(self.embed_dim)?,
            num_heads: signed(self.num_heads)?,
            kdim: signed(self.kdim)?,
            vdim: signed(self.vdim)?,
            qdim: signed(self.qdim)?,
            num_kv_heads: signed(self.num_kv_heads)?,
            head_dim: signed(self.head_dim)?,
            value_head_dim: signed(self.value_head_dim)?,
            dtype: self.dtype as i32,
            bias: raw_switch(self.bias),
            add_bias_kv: self.add_bias_kv.into(),
            add_zero_attn: self.add_zero_attn.into(),
            batch_first: self.batch_first.into(),
            reserved: 0,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers outlive the call.
        check(unsafe { sys::attn_mha_create(ptr::null_mut(), &config, &mut raw) })?;
        Ok(MultiheadAttention {
            raw: NonNull::new(raw).expect("a layer that was made"),
        })
    }
}

fn raw_switch(is_on: bool) -> i32 {
    if is_on {
        sys::ATTN_ON
    } else {
        sys::ATTN_OFF
    }
}

/// A layer: sizes and parameters. Any number of threads may call [`forward`](Self::forward) at
/// once.
#[derive(Debug)]
pub struct MultiheadAttention {
    raw: NonNull<sys::attn_mha>,
}

// SAFETY: the library lets any thread use a layer, and threads share one that is not written;
// writing takes &mut self.
unsafe impl Send for MultiheadAttention {}
unsafe impl Sync for MultiheadAttention {}

impl MultiheadAttention {
    /// Copies a parameter into the layer, by its name in PyTorch's `state_dict`.
    pub fn load_parameter(&mut self, name: &str, values: &View<'_>) -> Result<()> {
        let name = c_string("name", name)?;
        // SAFETY: the pointers outlive the call, which copies the values.
        check(unsafe {
            sys::attn_mha_load_parameter(self.raw.as_ptr(), name.as_ptr(), values.as_raw())
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
        let attention = options.attention.as_ref().map(SdpaOptions::as_raw);
        let params = options.as_raw(attention.as_ref());
        // SAFETY: every pointer borrows from an argument or a local; views lie in their slices,
        // and outputs are borrowed exclusively.
        check(unsafe {
            sys::attn_mha_forward(
                raw_context(options.context),
                self.raw.as_ptr(),
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
}

impl Drop for MultiheadAttention {
    fn drop(&mut self) {
        // SAFETY: made by attn_mha_create, destroyed once; no call can still borrow it.
        unsafe { sys::attn_mha_destroy(self.raw.as_ptr()) }
    }
}

/// The options of a layer's call. The default: no mask, no weights.
#[derive(Debug, Default)]
pub struct ForwardOptions<'a> {
    context: Option<&'a Context>,
    key_padding_mask: Option<Mask<'a>>,
    attn_mask: Option<Mask<'a>>,
    is_causal: bool,
    attn_weights: Option<ViewMut<'a>>,
    average_attn_weights: Option<bool>,
    attention: Option<SdpaOptions<'a>>,
}

impl<'a> ForwardOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one.
        context: &'a Context => Some,
        /// (N, S), unbatched (S). Keys it excludes may hold NaN.
        key_padding_mask: Mask<'a> => Some,
        /// (L, S), or one for each head: (N * H, L, S), unbatched (H, L, S).
        attn_mask: Mask<'a> => Some,
        /// Query i sees keys j <= i.
        is_causal: bool,
        /// Receives the weights: (N, L, T), or (N, H, L, T) if not averaged, T = S and the extra keys.
        attn_weights: ViewMut<'a> => Some,
        /// Whether the weights returned are the mean over heads, as they are by default.
        average_attn_weights: bool => Some,
        /// Options of the attention inside: scale, window, lse and so on.
        attention: SdpaOptions<'a> => Some,
    }

    /// The C struct; its pointers borrow from the arguments.
    fn as_raw(&self, attention: Option<&sys::attn_sdpa_params>) -> sys::attn_mha_params {
        let (key_padding_mask_kind, key_padding_mask) = raw_mask(&self.key_padding_mask);
        let (attn_mask_kind, attn_mask) = raw_mask(&self.attn_mask);
        sys::attn_mha_params {
            struct_size: size_of::<sys::attn_mha_params>() as u64,
            key_padding_mask_kind,
            attn_mask_kind,
            is_causal: self.is_causal.into(),
            average_attn_weights: self
                .average_attn_weights
                .map_or(sys::ATTN_DEFAULT, raw_switch),
            key_padding_mask,
            attn_mask,
            attn_weights: raw_output(&self.attn_weights),
            attention: attention.map_or(ptr::null(), |params| params as *const _),
        }
    }
}
