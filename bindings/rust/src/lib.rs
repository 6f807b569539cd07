// SPDX-License-Identifier: BSD-3-Clause
#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

mod backward;
mod callbacks;
mod context;
mod error;
mod half;
mod kv;
mod kv_cache;
mod mask;
mod merge;
mod multihead;
mod multihead_backward;
mod outputs;
mod packed;
mod rms_norm;
mod rope;
mod sdpa;
mod selftest;
mod setters;
pub mod sys;
mod view;

pub use backward::{sdpa_backward, sdpa_backward_kv, SdpaBackwardReport, SdpaGradients};
pub use callbacks::ThreadPool;
pub use context::{Context, ContextConfig, ContextInfo, Engine, Gemm};
pub use error::{Error, Result, Status};
pub use half::{Bf16, F16};
pub use kv::{kv_append, Kv, KvAppendOptions, KvMut};
pub use kv_cache::KvCache;
pub use mask::Mask;
pub use merge::{merge, MergeOptions, PartialResult};
pub use multihead::{ForwardOptions, MultiheadAttention, MultiheadConfig, MultiheadReport, QkNorm};
pub use multihead_backward::{ForwardResults, MultiheadGradients, SavedForward};
pub use outputs::OutputShapes;
pub use packed::{Int4x2, Uint4x2, Q4_0, Q8_0};
pub use rms_norm::{rms_norm, rms_norm_in_place, RmsNormOptions};
pub use rope::{rope, rope_in_place, RopeOptions};
pub use sdpa::{sdpa, sdpa_kv, Dropout, Normalizer, ScoreStage, SdpaOptions, SdpaReport};
pub use selftest::selftest;
pub use view::{Dtype, Element, View, ViewMut};
