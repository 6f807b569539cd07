// SPDX-License-Identifier: BSD-3-Clause
//! The gradients that a case expects, from what its call wrote.

use attention::{
    sdpa_backward, ForwardResults, MultiheadAttention, MultiheadGradients, PartialResult,
    SdpaGradients,
};

use crate::reader::{Case, Result, Tensor};
use crate::run::{attention_inside, forward_options, sdpa_options};

/// Room for those that are expected, by the names of what they are of.
pub struct Gradients {
    found: Vec<(String, Tensor)>,
}

const PREFIX: &str = "gradient.";

impl Gradients {
    pub fn expected(case: &Case) -> Result<Self> {
        let names = case.expected.iter().map(|expected| &expected.name);
        let found = names
            .filter(|name| name.starts_with(PREFIX))
            .map(|name| {
                let room = case.optional_result(name)?.ok_or("not expected")?;
                Ok((name.clone(), room))
            })
            .collect::<Result<_>>()?;
        Ok(Gradients { found })
    }

    /// As `Case::judge` takes results.
    pub fn named(&self) -> impl Iterator<Item = (&str, Option<&Tensor>)> {
        self.found
            .iter()
            .map(|(name, tensor)| (name.as_str(), Some(tensor)))
    }
}

impl Case {
    pub fn has_gradients(&self) -> bool {
        self.tensors
            .iter()
            .any(|(name, _)| name.starts_with(PREFIX))
    }

    /// Room for the lse of a call of attention.
    pub fn lse_room(&self) -> Result<Tensor> {
        let (query, key, value) = (
            self.tensor("query")?.view()?,
            self.tensor("key")?.view()?,
            self.tensor("value")?.view()?,
        );
        let shapes = sdpa_options(self)?.describe_outputs(&query, &key, &value)?;
        self.room("lse", shapes.lse.ok_or("no lse")?)
    }
}

/// Of a call of attention that wrote these.
pub fn sdpa_gradients(case: &Case, output: &Tensor, lse: &Tensor) -> Result<Gradients> {
    let mut gradients = Gradients::expected(case)?;
    let mut wanted = SdpaGradients::new();
    for (name, room) in &mut gradients.found {
        let view = room.view_mut()?;
        wanted = match &name[PREFIX.len()..] {
            "query" => wanted.query(view),
            "key" => wanted.key(view),
            "value" => wanted.value(view),
            "attn_mask" => wanted.mask(view),
            _ => return Err(format!("unknown {}", name).into()),
        };
    }
    let made = PartialResult {
        output: output.view()?,
        lse: Some(lse.view()?),
    };
    sdpa_backward(
        &case.tensor("query")?.view()?,
        &case.tensor("key")?.view()?,
        &case.tensor("value")?.view()?,
        &made,
        &case.tensor("gradient.output")?.view()?,
        wanted,
        sdpa_options(case)?,
    )?;
    Ok(gradients)
}

/// A call of the layer, and back.
pub fn train(
    case: &Case,
    layer: &MultiheadAttention,
    output: &mut Tensor,
    weights: &mut Option<Tensor>,
    gradients: &mut Gradients,
) -> Result<()> {
    let mut results = ForwardResults::new(output.view_mut()?);
    if let Some(weights) = weights {
        results = results.weights(weights.view_mut()?);
    }
    let saved = layer.forward_saving(
        case.tensor("query")?.view()?,
        case.tensor("key")?.view()?,
        case.tensor("value")?.view()?,
        results,
        forward_options(case, attention_inside(case)?)?,
    )?;
    let (mut wanted, mut inside) = (MultiheadGradients::new(), SdpaGradients::new());
    if let Ok(given) = case.tensor("gradient.attn_weights") {
        inside = inside.weights(given.view()?);
    }
    for (name, room) in &mut gradients.found {
        let view = room.view_mut()?;
        let name = &name[PREFIX.len()..];
        if name == "attn_mask" {
            inside = inside.mask(view);
            continue;
        }
        wanted = match name {
            "query" => wanted.query(view),
            "key" => wanted.key(view),
            "value" => wanted.value(view),
            _ => wanted.parameter(name.strip_prefix("parameter.").ok_or("unknown")?, view),
        };
    }
    let given = case.tensor("gradient.attn_output")?.view()?;
    saved.backward(&given, wanted.attention(inside))?;
    Ok(())
}
