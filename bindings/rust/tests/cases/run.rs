// SPDX-License-Identifier: BSD-3-Clause
//! Calls what a case describes and compares the outcome with what it expects.

use std::str::FromStr;

use attention::{
    sdpa, Bf16, Dropout, Dtype, ForwardOptions, Mask, MultiheadAttention, MultiheadConfig,
    Normalizer, SdpaOptions, View, F16,
};

use crate::gradients::{sdpa_gradients, train, Gradients};
use crate::reader::{Case, Elements, Result, Tensor};

pub fn run(case: &Case) -> Result<()> {
    match case.call.as_str() {
        "sdpa" => run_sdpa(case),
        "mha" => run_mha(case),
        other => Err(format!("unknown call {}", other).into()),
    }
}

impl Case {
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let found = self.tensors.iter().find(|(other, _)| other == name);
        found
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| format!("no tensor {}", name).into())
    }

    fn number<T: FromStr>(&self, name: &str, absent: T) -> Result<T>
    where
        T::Err: std::error::Error + 'static,
    {
        let found = self.options.iter().find(|(other, _)| other == name);
        Ok(found
            .map(|(_, value)| value.parse())
            .transpose()?
            .unwrap_or(absent))
    }

    /// Room for a result, if it is expected.
    pub fn optional_result(&self, name: &str) -> Result<Option<Tensor>> {
        let expected = self.expected.iter().find(|expected| expected.name == name);
        expected
            .map(|expected| self.room(name, expected.shape.clone()))
            .transpose()
    }

    /// Room for the main result; a call to be refused gets query's shape with `features` columns.
    fn main_result(&self, name: &str, features: usize) -> Result<Tensor> {
        if let Some(result) = self.optional_result(name)? {
            return Ok(result);
        }
        let mut shape = self.tensor("query")?.shape.clone();
        *shape.last_mut().ok_or("query has no axis")? = features;
        self.room(name, shape)
    }

    /// Room of query's type, or of lse's, filled with what no call computes.
    pub fn room(&self, name: &str, shape: Vec<usize>) -> Result<Tensor> {
        let count = shape.iter().product();
        let elements = match self.tensor("query")?.dtype() {
            Dtype::Float64 => Elements::Float64(vec![1e30; count]),
            Dtype::Bfloat16 if name != "lse" => Elements::Bfloat16(vec![Bf16(0x7e00); count]),
            Dtype::Float16 if name != "lse" => Elements::Float16(vec![F16(0x7bff); count]),
            _ => Elements::Float32(vec![1e30; count]),
        };
        Ok(Tensor { shape, elements })
    }
}

fn run_sdpa(case: &Case) -> Result<()> {
    let value = case.tensor("value")?;
    let features = *value.shape.last().ok_or("value has no axis")?;
    let mut output = case.main_result("output", features)?;
    let mut lse = case.optional_result("lse")?;
    let mut weights = case.optional_result("weights")?;
    if case.has_gradients() {
        lse = Some(case.lse_room()?);
    }
    let mut options = sdpa_options(case)?;
    if let Some(lse) = &mut lse {
        options = options.lse(lse.view_mut()?);
    }
    if let Some(weights) = &mut weights {
        options = options.weights(weights.view_mut()?);
    }
    let outcome = sdpa(
        &case.tensor("query")?.view()?,
        &case.tensor("key")?.view()?,
        &value.view()?,
        &mut output.view_mut()?,
        options,
    );
    if outcome.is_err() || !case.has_gradients() {
        let results = [
            ("output", Some(&output)),
            ("lse", lse.as_ref()),
            ("weights", weights.as_ref()),
        ];
        return case.judge(outcome, &results);
    }
    let lse = lse.ok_or("no lse")?;
    let gradients = sdpa_gradients(case, &output, &lse)?;
    let mut results = vec![("output", Some(&output)), ("weights", weights.as_ref())];
    results.extend(gradients.named());
    case.judge(Ok(()), &results)
}

pub fn sdpa_options(case: &Case) -> Result<SdpaOptions<'_>> {
    let mut options = SdpaOptions::new();
    for (name, value) in &case.options {
        options = match name.as_str() {
            "is_causal" => options.is_causal(is_on(value)?),
            "align_end" => options.align_end(is_on(value)?),
            "scale" => options.scale(value.parse()?),
            "enable_gqa" => options.enable_gqa(is_on(value)?),
            "softcap" => options.softcap(value.parse()?),
            "normalizer" => options.normalizer(normalizer(value)?),
            "window_left" | "window_right" => options.window(
                case.number("window_left", -1)?,
                case.number("window_right", -1)?,
            ),
            "block_rows" | "block_columns" => options,
            "dropout_probability" => options.dropout(dropout(case, value.parse()?)?),
            "dropout_seed" | "dropout_offset" | "dropout_batch" | "dropout_head"
            | "dropout_row" | "dropout_column" => options,
            _ => return Err(format!("unknown option {}", name).into()),
        };
    }
    for (name, tensor) in &case.tensors {
        let view = tensor.view()?;
        options = match name.as_str() {
            "query" | "key" | "value" | "gradient.output" => options,
            "attn_mask" => options.mask(mask(tensor, Mask::Include)?),
            "bias" => options.bias(view),
            "mask_start" => options.mask_start(view),
            "position_bias" => options.position_bias(view),
            "block_mask" => options.block_mask(
                view,
                case.number("block_rows", 0)?,
                case.number("block_columns", 0)?,
            ),
            "query_offset" => options.query_offset(view),
            "key_lengths" => options.key_lengths(view),
            "sinks" => options.sinks(view),
            "alibi_slopes" => options.alibi_slopes(view),
            _ => return Err(format!("unknown tensor {}", name).into()),
        };
    }
    Ok(options)
}

fn dropout(case: &Case, probability: f64) -> Result<Dropout> {
    Ok(Dropout {
        probability,
        seed: case.number("dropout_seed", 0)?,
        offset: case.number("dropout_offset", 0)?,
        batch: case.number("dropout_batch", 0)?,
        head: case.number("dropout_head", 0)?,
        row: case.number("dropout_row", 0)?,
        column: case.number("dropout_column", 0)?,
    })
}

fn is_on(value: &str) -> Result<bool> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("expected 0 or 1, got {}", value).into()),
    }
}

fn normalizer(name: &str) -> Result<Normalizer> {
    match name {
        "softmax" => Ok(Normalizer::Softmax),
        "sigmoid" => Ok(Normalizer::Sigmoid),
        "linear" => Ok(Normalizer::Linear),
        _ => Err(format!("unknown normalizer {}", name).into()),
    }
}

/// A bool mask means what its call says, any other is added.
fn mask<'a>(tensor: &'a Tensor, of_bools: fn(View<'a>) -> Mask<'a>) -> Result<Mask<'a>> {
    let view = tensor.view()?;
    Ok(match tensor.elements {
        Elements::Bool(_) => of_bools(view),
        _ => Mask::Additive(view),
    })
}

fn run_mha(case: &Case) -> Result<()> {
    let mut output = case.main_result("attn_output", case.number("embed_dim", 0)?)?;
    let mut weights = case.optional_result("attn_weights")?;
    let mut gradients = Gradients::expected(case)?;
    let outcome = make_layer(case, mha_config(case)?).and_then(|layer| {
        if case.has_gradients() {
            return train(case, &layer, &mut output, &mut weights, &mut gradients);
        }
        let mut attention = attention_inside(case)?;
        if let Some(weights) = &mut weights {
            attention = attention.weights(weights.view_mut()?);
        }
        layer.forward(
            &case.tensor("query")?.view()?,
            &case.tensor("key")?.view()?,
            &case.tensor("value")?.view()?,
            &mut output.view_mut()?,
            forward_options(case, attention)?,
        )?;
        Ok(())
    });
    let mut results = vec![
        ("attn_output", Some(&output)),
        ("attn_weights", weights.as_ref()),
    ];
    results.extend(gradients.named());
    case.judge(refusal(outcome)?, &results)
}

pub fn forward_options<'a>(
    case: &'a Case,
    attention: SdpaOptions<'a>,
) -> Result<ForwardOptions<'a>> {
    let options = ForwardOptions::new().attention(attention);
    Ok(match case.tensor("key_padding_mask") {
        Ok(padding) => options.key_padding_mask(mask(padding, Mask::Exclude)?),
        Err(_) => options,
    })
}

/// Tells what the library refused from what is wrong with the case itself.
fn refusal(outcome: Result<()>) -> Result<attention::Result<()>> {
    match outcome {
        Ok(()) => Ok(Ok(())),
        Err(problem) => problem
            .downcast::<attention::Error>()
            .map(|error| Err(*error)),
    }
}

fn mha_config(case: &Case) -> Result<MultiheadConfig> {
    let mut config =
        MultiheadConfig::new(case.number("embed_dim", 0)?, case.number("num_heads", 0)?)
            .dtype(case.tensor("query")?.dtype());
    for (name, value) in &case.options {
        config = match name.as_str() {
            "kdim" => config.kdim(value.parse()?),
            "vdim" => config.vdim(value.parse()?),
            "qdim" => config.qdim(value.parse()?),
            "head_dim" => config.head_dim(value.parse()?),
            "value_head_dim" => config.value_head_dim(value.parse()?),
            "num_kv_heads" => config.num_kv_heads(value.parse()?),
            "no_bias" => config.bias(!is_on(value)?),
            "add_bias_kv" => config.add_bias_kv(is_on(value)?),
            "add_zero_attn" => config.add_zero_attn(is_on(value)?),
            "batch_first" => config.batch_first(is_on(value)?),
            "parameter_dtype" => config.parameter_dtype(dtype(value)?),
            "embed_dim" | "num_heads" | "is_causal" | "need_weights" | "average_attn_weights" => {
                config
            }
            _ => return Err(format!("unknown option {}", name).into()),
        };
    }
    Ok(config)
}

fn dtype(name: &str) -> Result<Dtype> {
    match name {
        "float32" => Ok(Dtype::Float32),
        "float64" => Ok(Dtype::Float64),
        "bfloat16" => Ok(Dtype::Bfloat16),
        "float16" => Ok(Dtype::Float16),
        "int8" => Ok(Dtype::Int8),
        _ => Err(format!("unknown dtype {}", name).into()),
    }
}

fn make_layer(case: &Case, config: MultiheadConfig) -> Result<MultiheadAttention> {
    let mut layer = config.build()?;
    for (name, tensor) in &case.tensors {
        if let Some(name) = name.strip_prefix("parameter.") {
            layer.load_parameter(name, &tensor.view()?)?;
        }
    }
    Ok(layer)
}

/// Whether the weights are averaged is told by their shape.
pub fn attention_inside(case: &Case) -> Result<SdpaOptions<'_>> {
    let mut options = SdpaOptions::new().is_causal(case.number("is_causal", 0)? != 0);
    for (name, tensor) in &case.tensors {
        options = match name.as_str() {
            "query" | "key" | "value" | "key_padding_mask" => options,
            "gradient.attn_output" | "gradient.attn_weights" => options,
            "attn_mask" => options.mask(mask(tensor, Mask::Exclude)?),
            "bias" => options.bias(tensor.view()?),
            name if name.starts_with("parameter.") => options,
            _ => return Err(format!("unknown tensor {}", name).into()),
        };
    }
    Ok(options)
}
