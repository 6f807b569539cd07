// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"math"
	"testing"

	"attention"
)

// Gradients against differences of the forward call, in float64.

var (
	backwardShapes = [4][]int{ // of query, key, value, mask
		{numHeads, rows, headDim}, {numHeads, numKeys, headDim}, {numHeads, numKeys, headDim}, {rows, numKeys}}
	lseShape = []int{numHeads, rows}
)

func wide(shape []int) []float64 {
	count := 1
	for _, length := range shape {
		count *= length
	}
	made := make([]float64, count)
	for i, number := range numbers(count) {
		made[i] = float64(number)
	}
	return made
}

func wideView(data []float64, shape []int) *attention.View { return attention.NewView(data, shape...) }

// An attended call is what went into a forward call and what came out.
type attendedCall struct {
	inputs      [4][]float64
	output, lse []float64
	options     attention.SDPAOptions
}

func (call *attendedCall) view(which int) *attention.View {
	return wideView(call.inputs[which], backwardShapes[which])
}

func attend(t *testing.T, inputs [4][]float64) *attendedCall {
	call := &attendedCall{inputs: inputs, output: wide(backwardShapes[0]), lse: wide(lseShape)}
	call.options = attention.SDPAOptions{IsCausal: true, Mask: attention.Additive(call.view(3)),
		LSE: wideView(call.lse, lseShape)}
	requireNil(t, attention.SDPA(call.view(0), call.view(1), call.view(2),
		wideView(call.output, backwardShapes[0]), &call.options))
	return call
}

// loss is what the gradients are of.
func loss(t *testing.T, inputs [4][]float64) float64 {
	call := attend(t, inputs)
	sum := 0.0
	for i, given := range wide(backwardShapes[0]) {
		sum += given * call.output[i]
	}
	for i, given := range wide(lseShape) {
		sum += given * call.lse[i]
	}
	return sum
}

func moved(inputs [4][]float64, which, at int, by float64) [4][]float64 {
	inputs[which] = append([]float64{}, inputs[which]...)
	inputs[which][at] += by
	return inputs
}

func TestGradientsAreDifferences(t *testing.T) {
	const step = 1e-4
	var inputs, found [4][]float64
	var views [4]*attention.View
	for which, shape := range backwardShapes {
		inputs[which], found[which] = wide(shape), wide(shape)
		views[which] = wideView(found[which], shape)
	}
	call := attend(t, inputs)
	for times := 1.0; times <= 2; times++ {
		requireNil(t, attention.SDPABackward(call.view(0), call.view(1), call.view(2),
			wideView(call.output, backwardShapes[0]), &attention.Gradients{
				Accumulate: times == 2,
				Output:     wideView(wide(backwardShapes[0]), backwardShapes[0]),
				LSE:        wideView(wide(lseShape), lseShape),
				Query:      views[0], Key: views[1], Value: views[2], Mask: views[3]}, &call.options))
		for which := range inputs {
			for at, gradient := range found[which] {
				above, below := loss(t, moved(inputs, which, at, step)), loss(t, moved(inputs, which, at, -step))
				expected := times * (above - below) / (2 * step)
				if math.Abs(gradient-expected) > 1e-6 {
					t.Fatalf("gradient %d, element %d: %g, expected %g", which, at, gradient, expected)
				}
			}
		}
	}
}

func TestGradientsLieWhereCachesDo(t *testing.T) {
	const length = 2
	query, keys := wideView(wide(backwardShapes[0]), backwardShapes[0]), wideView(wide(backwardShapes[1]), backwardShapes[1])
	output, ofKey := wideView(wide(backwardShapes[0]), backwardShapes[0]), wide(backwardShapes[1])
	options := attention.SDPAOptions{LSE: wideView(wide(lseShape), lseShape),
		KV: &attention.KV{Key: keys, Value: keys, Lengths: attention.NewView([]int64{length})}}
	requireNil(t, attention.SDPA(query, nil, nil, output, &options))
	requireNil(t, attention.SDPABackward(query, nil, nil, output, &attention.Gradients{
		Output: output, Key: wideView(ofKey, backwardShapes[1])}, &options))
	for i, gradient := range ofKey {
		requireEqual(t, i/headDim%numKeys >= length, gradient == 0)
	}
}

func TestRefusalsNameTheGradient(t *testing.T) {
	call := attend(t, [4][]float64{wide(backwardShapes[0]), wide(backwardShapes[1]), wide(backwardShapes[2]), wide(backwardShapes[3])})
	output := wideView(call.output, backwardShapes[0])
	requireError(t, attention.SDPABackward(call.view(0), call.view(1), call.view(2), output, nil, &call.options),
		attention.ErrNull, "gradients.output: expected a tensor, got NULL")
	requireError(t, attention.SDPABackward(call.view(0), call.view(1), call.view(2), output,
		&attention.Gradients{Output: output, Sinks: wideView(wide([]int{numHeads}), []int{numHeads})}, &call.options),
		attention.ErrValue, "gradients.sinks: expected NULL without sinks")
	requireError(t, attention.SDPABackward(call.view(0), call.view(1), call.view(2), output,
		&attention.Gradients{Output: &attention.View{}}, &call.options),
		attention.ErrValue, "gradients.output: expected a view made by NewView")
}

func TestExplainTellsWhatBackwardRuns(t *testing.T) {
	call := attend(t, [4][]float64{wide(backwardShapes[0]), wide(backwardShapes[1]), wide(backwardShapes[2]), wide(backwardShapes[3])})
	output := wideView(call.output, backwardShapes[0])
	explain := func(gradients *attention.Gradients) *attention.BackwardReport {
		report, err := attention.ExplainBackward(call.view(0), call.view(1), call.view(2), output, gradients, &call.options)
		requireNil(t, err)
		return report
	}
	requireEqual(t, int64(0), explain(&attention.Gradients{Output: output}).NumItems)
	report := explain(&attention.Gradients{Output: output, Query: output})
	if report.NumItems == 0 || report.WorkspaceBytes == 0 || report.Kernels == "" || report.Reason == "" {
		t.Fatalf("expected items, a workspace and a reason, got %+v", report)
	}
	_, err := attention.ExplainBackward(call.view(0), call.view(1), call.view(2), output, nil, &call.options)
	requireError(t, err, attention.ErrNull, "gradients.output: expected a tensor, got NULL")
}
