// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"

	"attention"
)

func (made *testCase) runMHA() error {
	config, options, err := made.mhaOptions()
	if err != nil {
		return err
	}
	output, err := made.mainResult("attn_output", config.EmbedDim)
	if err != nil {
		return err
	}
	weights, err := made.optionalResult("attn_weights")
	if err != nil {
		return err
	}
	options.Attention.Weights = viewOf(weights)
	gradients, err := made.gradients()
	if err != nil {
		return err
	}
	outcome := made.forward(config, options, output, gradients)
	return made.judge(outcome, append(made.rooms, output, weights)...)
}

func (made *testCase) forward(config attention.MultiheadConfig, options *attention.ForwardOptions,
	output *tensor, gradients *attention.MultiheadGradients) error {
	layer, err := attention.NewMultiheadAttention(config)
	if err != nil {
		return err
	}
	defer layer.Close()
	for _, tensor := range made.tensors {
		if name, isParameter := parameterName(tensor.name); isParameter {
			if err := layer.LoadParameter(name, tensor.view); err != nil {
				return err
			}
		}
	}
	if gradients == nil {
		return layer.Forward(made.view("query"), made.view("key"), made.view("value"),
			viewOf(output), options)
	}
	saved, err := layer.ForwardSaving(made.view("query"), made.view("key"), made.view("value"),
		viewOf(output), options)
	if err != nil {
		return err
	}
	return saved.Backward(gradients)
}

func parameterName(name string) (string, bool) {
	return trimmed(name, "parameter.")
}

func (made *testCase) mhaOptions() (attention.MultiheadConfig, *attention.ForwardOptions, error) {
	config, options := attention.MultiheadConfig{Dtype: made.dtype()}, &attention.ForwardOptions{}
	averageWeights, needWeights := true, true
	err := made.readOptions(map[string]any{
		"embed_dim":            &config.EmbedDim,
		"num_heads":            &config.NumHeads,
		"kdim":                 &config.KDim,
		"vdim":                 &config.VDim,
		"qdim":                 &config.QDim,
		"head_dim":             &config.HeadDim,
		"value_head_dim":       &config.ValueHeadDim,
		"num_kv_heads":         &config.NumKVHeads,
		"no_bias":              &config.NoBias,
		"add_bias_kv":          &config.AddBiasKV,
		"add_zero_attn":        &config.AddZeroAttn,
		"batch_first":          &config.BatchFirst,
		"parameter_dtype":      &config.ParameterDtype,
		"is_causal":            &options.Attention.IsCausal,
		"need_weights":         &needWeights,    // those that are expected
		"average_attn_weights": &averageWeights, // as their rank says
	})
	if err != nil {
		return config, nil, err
	}
	return config, options, made.addMHATensors(options)
}

func (made *testCase) addMHATensors(options *attention.ForwardOptions) error {
	for _, tensor := range made.tensors {
		_, isParameter := parameterName(tensor.name)
		switch {
		case tensor.name == "query" || tensor.name == "key" || tensor.name == "value" || isParameter:
		case tensor.name == "gradient.attn_output" || tensor.name == "gradient.attn_weights":
		case tensor.name == "key_padding_mask":
			options.KeyPaddingMask = tensor.mask(attention.Exclude)
		case tensor.name == "attn_mask":
			options.Attention.Mask = tensor.mask(attention.Exclude)
		case tensor.name == "bias":
			options.Attention.Bias = tensor.view
		default:
			return fmt.Errorf("unknown tensor %s", tensor.name)
		}
	}
	return nil
}
