// SPDX-License-Identifier: BSD-3-Clause
#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod context;
mod error;
mod mask;
mod multihead;
mod sdpa;
mod setters;
pub mod sys;
mod view;

pub use context::{Context, ContextOptions, Engine, Gemm};
pub use error::{Error, Result, Status};
pub use mask::Mask;
pub use multihead::{ForwardOptions, MultiheadAttention, MultiheadConfig};
pub use sdpa::{sdpa, Normalizer, SdpaOptions};
pub use view::{Dtype, Element, View, ViewMut};
