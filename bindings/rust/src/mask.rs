// SPDX-License-Identifier: BSD-3-Clause
//! Masks that say themselves what their elements mean.

use std::ptr;

use crate::sys;
use crate::view::View;

/// Which keys a query may attend to. PyTorch gives a bool mask opposite meanings in its two
/// attention functions, so here its kind is part of it. A row that sees nothing gets weights 0.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// Floats added to the scores; negative infinity masks out.
    Additive(View<'a>),
    /// Bools, true: takes part, as in PyTorch's `scaled_dot_product_attention`.
    Include(View<'a>),
    /// Bools, true: masked out, as in PyTorch's `nn.MultiheadAttention`.
    Exclude(View<'a>),
}

impl Mask<'_> {
    fn parts(&self) -> (i32, *const sys::attn_tensor) {
        match self {
            Mask::Additive(view) => (sys::ATTN_MASK_ADDITIVE, view.as_raw()),
            Mask::Include(view) => (sys::ATTN_MASK_BOOL_INCLUDE, view.as_raw()),
            Mask::Exclude(view) => (sys::ATTN_MASK_BOOL_EXCLUDE, view.as_raw()),
        }
    }
}

/// The two fields of a C struct that describe a mask; the pointer borrows from `mask`.
pub(crate) fn raw_mask(mask: &Option<Mask<'_>>) -> (i32, *const sys::attn_tensor) {
    mask.as_ref()
        .map_or((sys::ATTN_MASK_NONE, ptr::null()), Mask::parts)
}
