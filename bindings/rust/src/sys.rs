// SPDX-License-Identifier: BSD-3-Clause
//! The C ABI as it is: the declarations this crate uses, under their C names.
//!
//! The headers in `attention/` are the manual, each of which has its file here. The test `abi` compares every struct and constant
//! with them.
#![allow(non_camel_case_types, missing_docs)]

macro_rules! default_is_zero_but_for_its_size {
    ($($name:ident),* $(,)?) => {$(
        impl Default for $name {
            fn default() -> Self {
                // SAFETY: numbers, pointers that may be NULL and options of function pointers,
                // for all of which zero bytes are a value.
                let mut made: Self = unsafe { std::mem::zeroed() };
                made.struct_size = std::mem::size_of::<Self>() as u64;
                made
            }
        }
    )*};
}

mod backward;
mod context;
mod kv;
mod merge;
mod multihead;
mod multihead_backward;
mod rms_norm;
mod rope;
mod sdpa;
mod selftest;
mod softmax;
mod status;
mod tensor;

pub use self::backward::*;
pub use self::context::*;
pub use self::kv::*;
pub use self::merge::*;
pub use self::multihead::*;
pub use self::multihead_backward::*;
pub use self::rms_norm::*;
pub use self::rope::*;
pub use self::sdpa::*;
pub use self::selftest::*;
pub use self::softmax::*;
pub use self::status::*;
pub use self::tensor::*;
