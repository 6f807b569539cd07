// SPDX-License-Identifier: BSD-3-Clause
//! The gradients of a layer.

use std::mem::{size_of, MaybeUninit};
use std::os::raw::c_void;
use std::ptr;

use crate::backward::SdpaGradients;
use crate::context::Context;
use crate::error::{check, Error, Result, Status};
use crate::multihead::{ForwardOptions, MultiheadAttention, RawStructs};
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_output, View, ViewMut};

/// What [`MultiheadAttention::forward_saving`] writes: outputs that are borrowed no longer than that
/// call, so that they may be read before the gradients are computed.
#[derive(Debug)]
pub struct ForwardResults<'r> {
    output: ViewMut<'r>,
    lse: Option<ViewMut<'r>>,
    weights: Option<ViewMut<'r>>,
}

impl<'r> ForwardResults<'r> {
    /// The output, as [`MultiheadAttention::forward`] has it, and nothing else.
    pub fn new(output: ViewMut<'r>) -> Self {
        ForwardResults {
            output,
            lse: None,
            weights: None,
        }
    }

    setters! {
        /// Receives what [`SdpaOptions::lse`](crate::SdpaOptions::lse) would.
        lse: ViewMut<'r> => Some,
        /// Receives what [`SdpaOptions::weights`](crate::SdpaOptions::weights) would.
        weights: ViewMut<'r> => Some,
    }
}

/// What [`SavedForward::backward`] is asked for, and what it is given beside the gradient of the
/// output.
#[derive(Debug, Default)]
pub struct MultiheadGradients<'a> {
    accumulate: bool,
    query: Option<ViewMut<'a>>,
    key: Option<ViewMut<'a>>,
    value: Option<ViewMut<'a>>,
    parameters: Vec<(&'a str, ViewMut<'a>)>,
    attention: SdpaGradients<'a>,
}

impl<'a> MultiheadGradients<'a> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// What is wanted is added to what is there, options of the attention inside included.
        accumulate: bool,
        /// Receives the gradient of query: its shape, its type or that of the scores; so do others.
        query: ViewMut<'a> => Some,
        /// Receives that of key.
        key: ViewMut<'a> => Some,
        /// Receives that of value.
        value: ViewMut<'a> => Some,
        /// Given of the attention inside: those of lse and weights; received: those of its options.
        /// Its query, key, value and accumulate stay as they are: those above count.
        attention: SdpaGradients<'a>,
    }

    /// Receives that of a parameter, by its name in PyTorch's `state_dict`.
    #[must_use]
    pub fn parameter(mut self, name: &'a str, gradient: ViewMut<'a>) -> Self {
        self.parameters.push((name, gradient));
        self
    }

    /// In the layer's order; of no data where none is wanted.
    fn parameter_views(&self, layer: &MultiheadAttention) -> Result<Vec<attn_tensor>> {
        let known = layer.parameters()?;
        if let Some((name, _)) = self
            .parameters
            .iter()
            .find(|(name, _)| known.iter().all(|(other, _)| other != name))
        {
            return Err(Error::new(
                Status::Parameter,
                format!("gradients.{}: expected a parameter of the layer", name),
            ));
        }
        let view_of = |name: &str| {
            let named = self.parameters.iter().find(|(other, _)| *other == name);
            // SAFETY: all zero, a view is one of no dtype and no data.
            named.map_or(
                unsafe { MaybeUninit::zeroed().assume_init() },
                |(_, view)| {
                    // SAFETY: it points into `view`.
                    unsafe { *view.as_raw() }
                },
            )
        };
        Ok(known.iter().map(|(name, _)| view_of(name)).collect())
    }
}

/// Memory at the alignment that is fastest.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line([MaybeUninit<u8>; 64]);

/// A call of a layer and what its gradients need of it. It borrows all that the call was given, the
/// layer included, whose parameters therefore stay as they were:
///
/// ```compile_fail,E0502
/// use attention::{ForwardOptions, ForwardResults, MultiheadConfig, MultiheadGradients, View, ViewMut};
///
/// let mut layer = MultiheadConfig::new(2, 1).build().unwrap();
/// layer.init_parameters(1).unwrap();
/// let (data, mut output) = ([1.0f32, 2.0], [0.0f32; 2]);
/// let tokens = View::new(&data, &[1, 2]).unwrap();
/// let results = ForwardResults::new(ViewMut::new(&mut output, &[1, 2]).unwrap());
/// let saved = layer.forward_saving(tokens, tokens, tokens, results, ForwardOptions::new()).unwrap();
/// layer.init_parameters(2).unwrap();
/// saved.backward(&tokens, MultiheadGradients::new()).unwrap();
/// ```
#[derive(Debug)]
pub struct SavedForward<'a> {
    layer: &'a MultiheadAttention,
    query: View<'a>,
    key: View<'a>,
    value: View<'a>,
    options: ForwardOptions<'a>,
    memory: Vec<Line>,
    bytes: usize,
}

impl MultiheadAttention {
    /// [`forward`](Self::forward), after which the gradients of the call can be computed. Outputs that
    /// `options` has stay borrowed with the result; those of `results` do not.
    pub fn forward_saving<'a>(
        &'a self,
        query: View<'a>,
        key: View<'a>,
        value: View<'a>,
        results: ForwardResults<'_>,
        options: ForwardOptions<'a>,
    ) -> Result<SavedForward<'a>> {
        let mut saved = SavedForward {
            layer: self,
            query,
            key,
            value,
            options,
            memory: Vec::new(),
            bytes: 0,
        };
        saved.allocate()?;
        saved.forward(&results)?;
        Ok(saved)
    }
}

impl SavedForward<'_> {
    fn allocate(&mut self) -> Result<()> {
        let inside = self.options.raw_structs();
        let params = self.options.as_raw(&inside);
        let mut bytes = 0;
        // SAFETY: every pointer borrows from self or a local; no element is touched.
        check(unsafe {
            sys::attn_mha_saved_bytes(
                self.layer.context_of(&self.options),
                self.layer.as_raw(),
                self.query.as_raw(),
                self.key.as_raw(),
                self.value.as_raw(),
                &params,
                &mut bytes,
            )
        })?;
        let lines = bytes / size_of::<Line>() + 1;
        self.memory.try_reserve_exact(lines).map_err(|_| {
            Error::new(
                Status::Memory,
                format!("saved: no memory for {} bytes", bytes),
            )
        })?;
        self.memory
            .resize_with(lines, || Line([MaybeUninit::uninit(); 64]));
        self.bytes = bytes;
        Ok(())
    }

    /// `inside` is what the result points to, beside self.
    fn params(&self, inside: &RawStructs) -> sys::attn_mha_params {
        sys::attn_mha_params {
            saved: self.memory.as_ptr() as *mut c_void,
            saved_bytes: self.bytes as u64,
            ..self.options.as_raw(inside)
        }
    }

    fn forward(&mut self, results: &ForwardResults<'_>) -> Result<()> {
        let mut inside = self.options.raw_structs();
        if results.lse.is_some() {
            inside.attention.lse = raw_output(&results.lse);
        }
        if results.weights.is_some() {
            inside.attention.weights = raw_output(&results.weights);
        }
        let params = sys::attn_mha_params {
            saved: self.memory.as_mut_ptr().cast(),
            ..self.params(&inside)
        };
        // SAFETY: every pointer borrows from self, the results or a local; views lie in their slices,
        // and outputs are borrowed exclusively, as `memory` is.
        check(unsafe {
            sys::attn_mha_forward(
                self.layer.context_of(&self.options),
                self.layer.as_raw(),
                self.query.as_raw(),
                self.key.as_raw(),
                self.value.as_raw(),
                &params,
                results.output.as_raw(),
                ptr::null_mut(),
                0,
            )
        })
    }

    /// The gradients of the call; `gradient` is the output's, of its shape.
    pub fn backward(&self, gradient: &View<'_>, wanted: MultiheadGradients<'_>) -> Result<()> {
        self.run(self.layer.context_of(&self.options), gradient, &wanted)
    }

    /// [`backward`](Self::backward) under another context than the call's.
    pub fn backward_in(
        &self,
        context: &Context,
        gradient: &View<'_>,
        wanted: MultiheadGradients<'_>,
    ) -> Result<()> {
        self.run(context.as_raw(), gradient, &wanted)
    }

    fn run(
        &self,
        context: *mut sys::attn_context,
        gradient: &View<'_>,
        wanted: &MultiheadGradients<'_>,
    ) -> Result<()> {
        let inside = self.options.raw_structs();
        let params = self.params(&inside);
        let parameters = wanted.parameter_views(self.layer)?;
        let attention = wanted.attention.as_raw(ptr::null());
        let gradients = sys::attn_mha_gradients {
            accumulate: wanted.accumulate.into(),
            output: gradient.as_raw(),
            query: raw_output(&wanted.query),
            key: raw_output(&wanted.key),
            value: raw_output(&wanted.value),
            parameters: parameters.as_ptr(),
            num_parameters: parameters.len() as i64,
            attention: &attention,
            ..Default::default()
        };
        // SAFETY: every pointer borrows from self, an argument or a local; what is wanted is borrowed
        // exclusively, and what was saved is only read.
        check(unsafe {
            sys::attn_mha_backward(
                context,
                self.layer.as_raw(),
                self.query.as_raw(),
                self.key.as_raw(),
                self.value.as_raw(),
                &params,
                &gradients,
                ptr::null_mut(),
                0,
            )
        })
    }
}
