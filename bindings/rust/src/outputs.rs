// SPDX-License-Identifier: BSD-3-Clause
//! The outputs that belong to a call's inputs.

use crate::sys::{self, attn_tensor};
use crate::view::shape_of;

/// What a call's outputs are shaped like, for whoever allocates them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputShapes {
    /// Of the output itself.
    pub output: Vec<usize>,
    /// Of [`SdpaOptions::lse`](crate::SdpaOptions::lse); `None` where the normalizer has none.
    pub lse: Option<Vec<usize>>,
    /// Of [`SdpaOptions::weights`](crate::SdpaOptions::weights), one matrix for each head.
    pub weights: Vec<usize>,
    /// Of the same, their mean over the heads.
    pub averaged_weights: Vec<usize>,
    /// Of [`SdpaOptions::scores`](crate::SdpaOptions::scores).
    pub scores: Vec<usize>,
}

impl OutputShapes {
    fn new(outputs: [&attn_tensor; 5]) -> Self {
        let [output, lse, weights, averaged_weights, scores] = outputs;
        OutputShapes {
            output: shape_of(output),
            lse: (lse.dtype != sys::ATTN_DTYPE_INVALID).then(|| shape_of(lse)),
            weights: shape_of(weights),
            averaged_weights: shape_of(averaged_weights),
            scores: shape_of(scores),
        }
    }
}

impl From<&sys::attn_sdpa_outputs> for OutputShapes {
    fn from(raw: &sys::attn_sdpa_outputs) -> Self {
        Self::new([
            &raw.output,
            &raw.lse,
            &raw.weights,
            &raw.averaged_weights,
            &raw.scores,
        ])
    }
}

impl From<&sys::attn_mha_outputs> for OutputShapes {
    fn from(raw: &sys::attn_mha_outputs) -> Self {
        Self::new([
            &raw.output,
            &raw.lse,
            &raw.weights,
            &raw.averaged_weights,
            &raw.scores,
        ])
    }
}
