// SPDX-License-Identifier: BSD-3-Clause
//! Views: slices with a shape and strides. Nothing is owned or copied.

use std::marker::PhantomData;
use std::os::raw::c_void;
use std::ptr;

use crate::error::{check, Error, Result, Status};
use crate::half::{Bf16, F16};
use crate::packed::{Int4x2, Uint4x2, Q4_0, Q8_0};
use crate::sys::{self, attn_tensor, ATTN_MAX_RANK};

/// The element type of a view or a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Dtype {
    /// `f32`
    Float32 = sys::ATTN_DTYPE_FLOAT32,
    /// `f64`
    Float64 = sys::ATTN_DTYPE_FLOAT64,
    /// `bool`
    Bool = sys::ATTN_DTYPE_BOOL,
    /// [`Bf16`]
    Bfloat16 = sys::ATTN_DTYPE_BFLOAT16,
    /// [`F16`]
    Float16 = sys::ATTN_DTYPE_FLOAT16,
    /// `i64`
    Int64 = sys::ATTN_DTYPE_INT64,
    /// `i32`
    Int32 = sys::ATTN_DTYPE_INT32,
    /// `i8`: keys and values of a [`Kv`](crate::Kv) with scales
    Int8 = sys::ATTN_DTYPE_INT8,
    /// `u8`: likewise
    Uint8 = sys::ATTN_DTYPE_UINT8,
    /// [`Int4x2`]: likewise
    Int4x2 = sys::ATTN_DTYPE_INT4X2,
    /// [`Uint4x2`]: likewise
    Uint4x2 = sys::ATTN_DTYPE_UINT4X2,
    /// [`Q8_0`]: keys and values with scales of their own
    Q8_0 = sys::ATTN_DTYPE_Q8_0,
    /// [`Q4_0`]: likewise
    Q4_0 = sys::ATTN_DTYPE_Q4_0,
}

impl Dtype {
    /// What the library calls so; `None` for a dtype that has no element type here.
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        match code {
            sys::ATTN_DTYPE_FLOAT32 => Some(Dtype::Float32),
            sys::ATTN_DTYPE_FLOAT64 => Some(Dtype::Float64),
            sys::ATTN_DTYPE_BOOL => Some(Dtype::Bool),
            sys::ATTN_DTYPE_BFLOAT16 => Some(Dtype::Bfloat16),
            sys::ATTN_DTYPE_FLOAT16 => Some(Dtype::Float16),
            sys::ATTN_DTYPE_INT64 => Some(Dtype::Int64),
            sys::ATTN_DTYPE_INT32 => Some(Dtype::Int32),
            sys::ATTN_DTYPE_INT8 => Some(Dtype::Int8),
            sys::ATTN_DTYPE_UINT8 => Some(Dtype::Uint8),
            sys::ATTN_DTYPE_INT4X2 => Some(Dtype::Int4x2),
            sys::ATTN_DTYPE_UINT4X2 => Some(Dtype::Uint4x2),
            sys::ATTN_DTYPE_Q8_0 => Some(Dtype::Q8_0),
            sys::ATTN_DTYPE_Q4_0 => Some(Dtype::Q4_0),
            _ => None,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that views can be made of: `f32`, `f64`, [`Bf16`], [`F16`], `bool`, `i64`, `i32`, `i8`,
/// `u8`, or of several values [`Int4x2`], [`Uint4x2`], [`Q8_0`] or [`Q4_0`].
pub trait Element: sealed::Sealed + Copy {
    /// The library's name of the type.
    const DTYPE: Dtype;
}

macro_rules! element {
    ($($element:ty: $dtype:ident),*) => {$(
        impl sealed::Sealed for $element {}
        impl Element for $element {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}

element!(f32: Float32, f64: Float64, Bf16: Bfloat16, F16: Float16, bool: Bool, i64: Int64, i32: Int32);
element!(i8: Int8, u8: Uint8, Int4x2: Int4x2, Uint4x2: Uint4x2, Q8_0: Q8_0, Q4_0: Q4_0);

/// An input: elements of a slice, read through a shape and strides.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    raw: attn_tensor,
    memory: PhantomData<&'a [u8]>,
}

/// An output: as [`View`], of a slice that nobody else may touch meanwhile.
#[derive(Debug)]
pub struct ViewMut<'a> {
    raw: attn_tensor,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a View is a shared slice of numbers, a ViewMut an exclusive one.
unsafe impl Send for View<'_> {}
unsafe impl Sync for View<'_> {}
unsafe impl Send for ViewMut<'_> {}
unsafe impl Sync for ViewMut<'_> {}

impl<'a> View<'a> {
    /// All of `data` in C order: the last axis is the fastest.
    pub fn new<T: Element>(data: &'a [T], shape: &[usize]) -> Result<Self> {
        let raw = describe_dense::<T>(data.as_ptr() as *mut T, data.len(), shape)?;
        Ok(View {
            raw,
            memory: PhantomData,
        })
    }

    /// Any layout: `offset` is the place of element (0, ..., 0) in `data`, and strides count
    /// elements; they may be zero or negative. What the view reaches must lie in `data`.
    pub fn with_strides<T: Element>(
        data: &'a [T],
        offset: usize,
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self> {
        let start = (data.as_ptr() as *mut T).wrapping_add(offset);
        let raw = describe::<T>(start, data.len(), offset, shape, strides)?;
        Ok(View {
            raw,
            memory: PhantomData,
        })
    }
}

impl<'a> ViewMut<'a> {
    /// All of `data` in C order: the last axis is the fastest.
    pub fn new<T: Element>(data: &'a mut [T], shape: &[usize]) -> Result<Self> {
        let raw = describe_dense::<T>(data.as_mut_ptr(), data.len(), shape)?;
        Ok(ViewMut {
            raw,
            memory: PhantomData,
        })
    }

    /// Any layout, as [`View::with_strides`]; a call refuses an output that overlaps itself.
    pub fn with_strides<T: Element>(
        data: &'a mut [T],
        offset: usize,
        shape: &[usize],
        strides: &[isize],
    ) -> Result<Self> {
        let start = data.as_mut_ptr().wrapping_add(offset);
        let raw = describe::<T>(start, data.len(), offset, shape, strides)?;
        Ok(ViewMut {
            raw,
            memory: PhantomData,
        })
    }
}

impl ViewMut<'_> {
    /// The same to read, until it is written again.
    pub fn as_view(&self) -> View<'_> {
        View {
            raw: self.raw,
            memory: PhantomData,
        }
    }
}

macro_rules! reshape {
    ($view:ident) => {
        impl $view<'_> {
            /// The length of each axis.
            pub fn shape(&self) -> &[i64] {
                &self.raw.shape[..self.raw.rank as usize]
            }

            /// The distance in elements from one index of each axis to the next.
            pub fn strides(&self) -> &[i64] {
                &self.raw.strides[..self.raw.rank as usize]
            }

            /// Swaps two axes; negative ones count from the end.
            pub fn transpose(mut self, axis_a: i32, axis_b: i32) -> Result<Self> {
                let raw: *mut attn_tensor = &mut self.raw;
                // SAFETY: the result, which may be the source, views the same elements.
                check(unsafe { sys::attn_tensor_transpose(raw, axis_a, axis_b, raw) })?;
                Ok(self)
            }

            /// Keeps one position of an axis and drops the axis.
            pub fn select(mut self, axis: i32, index: usize) -> Result<Self> {
                let raw: *mut attn_tensor = &mut self.raw;
                let index = signed(index)?;
                // SAFETY: as in transpose.
                check(unsafe { sys::attn_tensor_select(raw, axis, index, raw) })?;
                Ok(self)
            }

            /// (..., L, num_heads * head_dim) becomes (..., num_heads, L, head_dim).
            pub fn split_heads(mut self, num_heads: usize) -> Result<Self> {
                let raw: *mut attn_tensor = &mut self.raw;
                let num_heads = signed(num_heads)?;
                // SAFETY: as in transpose.
                check(unsafe { sys::attn_tensor_split_heads(raw, num_heads, raw) })?;
                Ok(self)
            }

            /// (..., num_heads, L, head_dim) becomes (..., L, num_heads * head_dim), if the heads
            /// lie head_dim features apart.
            pub fn merge_heads(mut self) -> Result<Self> {
                let raw: *mut attn_tensor = &mut self.raw;
                // SAFETY: as in transpose.
                check(unsafe { sys::attn_tensor_merge_heads(raw, raw) })?;
                Ok(self)
            }

            /// The C struct, for calls of [`sys`]; valid as long as this view.
            pub fn as_raw(&self) -> *const attn_tensor {
                &self.raw
            }
        }
    };
}

reshape!(View);
reshape!(ViewMut);

impl View<'_> {
    /// A copy of the C struct, for an array of them; it borrows as the view does.
    pub(crate) fn raw_copy(&self) -> attn_tensor {
        self.raw
    }
}

/// The C struct of a view, NULL for none; valid as long as the view.
pub(crate) fn raw_view(view: &Option<View<'_>>) -> *const attn_tensor {
    view.as_ref().map_or(ptr::null(), View::as_raw)
}

/// Likewise, of an output.
pub(crate) fn raw_output(view: &Option<ViewMut<'_>>) -> *const attn_tensor {
    view.as_ref().map_or(ptr::null(), ViewMut::as_raw)
}

pub(crate) fn signed(length: usize) -> Result<i64> {
    i64::try_from(length).map_err(|_| {
        Error::new(
            Status::Overflow,
            format!("length {} exceeds INT64_MAX", length),
        )
    })
}

/// The shape of a tensor that the library described.
pub(crate) fn shape_of(raw: &attn_tensor) -> Vec<usize> {
    raw.shape[..raw.rank as usize]
        .iter()
        .map(|&length| length as usize)
        .collect()
}

fn describe_dense<T: Element>(data: *mut T, len: usize, shape: &[usize]) -> Result<attn_tensor> {
    let count = shape
        .iter()
        .try_fold(1usize, |count, &length| count.checked_mul(length));
    if count != Some(len) {
        let message = format!(
            "data: expected the elements of shape {:?}, got {}",
            shape, len
        );
        return Err(Error::new(Status::Shape, message));
    }
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis] as isize);
    }
    describe::<T>(data, len, 0, shape, &strides)
}

fn describe<T: Element>(
    start: *mut T,
    len: usize,
    offset: usize,
    shape: &[usize],
    strides: &[isize],
) -> Result<attn_tensor> {
    if shape.len() > ATTN_MAX_RANK || shape.len() != strides.len() {
        let message = format!(
            "shape {:?}: expected up to 8 axes, a stride for each",
            shape
        );
        return Err(Error::new(Status::Value, message));
    }
    check_reach(len, offset, shape, strides)?;
    let mut raw = attn_tensor {
        data: start as *mut c_void,
        dtype: T::DTYPE as i32,
        rank: shape.len() as i32,
        shape: [0; ATTN_MAX_RANK],
        strides: [0; ATTN_MAX_RANK],
    };
    for (axis, (&length, &stride)) in shape.iter().zip(strides).enumerate() {
        raw.shape[axis] = signed(length)?;
        raw.strides[axis] = stride as i64;
    }
    Ok(raw)
}

/// What makes the wrapper safe: every element of the view lies in the slice.
fn check_reach(len: usize, offset: usize, shape: &[usize], strides: &[isize]) -> Result<()> {
    if shape.contains(&0) {
        return Ok(());
    }
    let (mut first, mut last) = (offset as i128, offset as i128);
    for (&length, &stride) in shape.iter().zip(strides) {
        let span = (length as i128 - 1).saturating_mul(stride as i128);
        first = first.saturating_add(span.min(0));
        last = last.saturating_add(span.max(0));
    }
    if first < 0 || last >= len as i128 {
        let message = format!(
            "view: expected elements 0 to {} of the slice, got {} to {}",
            len as i128 - 1,
            first,
            last
        );
        return Err(Error::new(Status::Shape, message));
    }
    Ok(())
}
