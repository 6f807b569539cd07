// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"

	"attention"
)

func (made *testCase) runSDPA() error {
	options, err := made.sdpaOptions()
	if err != nil {
		return err
	}
	valueShape := made.tensor("value").shape
	output, err := made.mainResult("output", valueShape[len(valueShape)-1])
	if err != nil {
		return err
	}
	lse, err := made.optionalResult("lse")
	if err != nil {
		return err
	}
	weights, err := made.optionalResult("weights")
	if err != nil {
		return err
	}
	gradients, err := made.gradients()
	if err != nil {
		return err
	}
	if gradients != nil && lse == nil {
		lse, err = made.room("lse", output.shape[:len(output.shape)-1])
		if err != nil {
			return err
		}
	}
	options.LSE, options.Weights = viewOf(lse), viewOf(weights)
	outcome := attention.SDPA(made.view("query"), made.view("key"), made.view("value"),
		viewOf(output), options)
	if gradients != nil && outcome == nil {
		outcome = attention.SDPABackward(made.view("query"), made.view("key"), made.view("value"),
			viewOf(output), &gradients.Gradients, options)
	}
	return made.judge(outcome, append(made.rooms, output, lse, weights)...)
}

func (made *testCase) sdpaOptions() (*attention.SDPAOptions, error) {
	options, scale := &attention.SDPAOptions{}, 0.0
	window := attention.Window{Left: -1, Right: -1}
	dropout := attention.Dropout{}
	err := made.readOptions(map[string]any{
		"is_causal":     &options.IsCausal,
		"align_end":     &options.AlignEnd,
		"scale":         &scale,
		"enable_gqa":    &options.EnableGQA,
		"window_left":   &window.Left,
		"window_right":  &window.Right,
		"softcap":       &options.Softcap,
		"normalizer":    &options.Normalizer,
		"block_rows":    &options.BlockRows,
		"block_columns": &options.BlockColumns,

		"dropout_probability": &dropout.Probability,
		"dropout_seed":        &dropout.Seed,
		"dropout_offset":      &dropout.Offset,
		"dropout_batch":       &dropout.Batch,
		"dropout_head":        &dropout.Head,
		"dropout_row":         &dropout.Row,
		"dropout_column":      &dropout.Column,
	})
	if err != nil {
		return nil, err
	}
	if made.has("dropout_probability") {
		options.Dropout = &dropout
	}
	if made.has("scale") {
		options.Scale = &scale
	}
	if made.has("window_left") || made.has("window_right") {
		options.Window = &window
	}
	return options, made.addSDPATensors(options)
}

func (made *testCase) addSDPATensors(options *attention.SDPAOptions) error {
	for _, tensor := range made.tensors {
		switch tensor.name {
		case "query", "key", "value", "gradient.output":
		case "attn_mask":
			options.Mask = tensor.mask(attention.Include)
		case "bias":
			options.Bias = tensor.view
		case "mask_start":
			options.MaskStart = tensor.view
		case "position_bias":
			options.PositionBias = tensor.view
		case "block_mask":
			options.BlockMask = tensor.view
		case "query_offset":
			options.QueryOffset = tensor.view
		case "key_lengths":
			options.KeyLengths = tensor.view
		case "sinks":
			options.Sinks = tensor.view
		case "alibi_slopes":
			options.ALiBiSlopes = tensor.view
		default:
			return fmt.Errorf("unknown tensor %s", tensor.name)
		}
	}
	return nil
}
