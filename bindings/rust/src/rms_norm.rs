// SPDX-License-Identifier: BSD-3-Clause
//! RMS normalisation of rows.

use std::ptr;

use crate::context::Context;
use crate::error::{check, Result};
use crate::setters::setters;
use crate::sys::{self, attn_tensor};
use crate::view::{raw_view, View, ViewMut};

/// The options of [`rms_norm`]. The default is PyTorch's without parameters.
#[derive(Debug, Default)]
pub struct RmsNormOptions<'a> {
    context: Option<&'a Context>,
    weight: Option<View<'a>>,
    epsilon: f64,
    weight_offset: f64,
}

impl<'a> RmsNormOptions<'a> {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Runs under this context instead of the process's default one.
        context: &'a Context => Some,
        /// Broadcastable to the input's shape, mostly (E); without it 1.
        weight: View<'a> => Some,
        /// Added to the mean of the squares; 0: PyTorch's default.
        epsilon: f64,
        /// Added to the weight: 1 where a model stores weight - 1.
        weight_offset: f64,
    }

    /// # Safety
    ///
    /// `input` may be read, and `output` written, as they say.
    unsafe fn run(&self, input: *const attn_tensor, output: *const attn_tensor) -> Result<()> {
        let params = sys::attn_rms_norm_params {
            weight: raw_view(&self.weight),
            epsilon: self.epsilon,
            weight_offset: self.weight_offset,
            ..Default::default()
        };
        let context = self.context.map_or(ptr::null_mut(), Context::as_raw);
        // SAFETY: the caller's word; the other pointers borrow from `self`.
        check(unsafe { sys::attn_rms_norm(context, input, &params, output) })
    }
}

/// Divides each row of input (..., E) by the root of the mean of its squares, into output of the
/// same shape, of input's type or that of scores.
pub fn rms_norm(
    input: &View<'_>,
    output: &mut ViewMut<'_>,
    options: RmsNormOptions<'_>,
) -> Result<()> {
    // SAFETY: views lie in their slices, and the output is borrowed exclusively.
    unsafe { options.run(input.as_raw(), output.as_raw()) }
}

/// [`rms_norm`] where the rows are.
pub fn rms_norm_in_place(rows: &mut ViewMut<'_>, options: RmsNormOptions<'_>) -> Result<()> {
    // SAFETY: the view lies in its slice, which is borrowed exclusively.
    unsafe { options.run(rows.as_raw(), rows.as_raw()) }
}
