// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"attention"
)

// What a layer's gradients are taken from, and how they are asked for; their numbers are those of the
// exported cases.

var (
	tokenShape = []int{rows, embedDim}
	scoreShape = []int{rows, rows}
)

func newWideLayer(t *testing.T) *attention.MultiheadAttention {
	t.Helper()
	layer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: embedDim, NumHeads: numHeads, Dtype: attention.Float64})
	requireNil(t, err)
	t.Cleanup(layer.Close)
	requireNil(t, layer.InitParameters(7))
	return layer
}

// saving is a call of self-attention and its output.
func saving(t *testing.T, layer *attention.MultiheadAttention, options *attention.ForwardOptions) (*attention.SavedForward, []float64) {
	t.Helper()
	tokens, output := wideView(wide(tokenShape), tokenShape), wide(tokenShape)
	saved, err := layer.ForwardSaving(tokens, tokens, tokens, wideView(output, tokenShape), options)
	requireNil(t, err)
	return saved, output
}

func masked(mask []float64) *attention.ForwardOptions {
	return &attention.ForwardOptions{Attention: attention.SDPAOptions{
		Mask: attention.Additive(wideView(mask, scoreShape))}}
}

func TestACallThatSavesComputesWhatForwardDoes(t *testing.T) {
	layer, tokens, output := newWideLayer(t), wideView(wide(tokenShape), tokenShape), wide(tokenShape)
	options := masked(wide(scoreShape))
	requireNil(t, layer.Forward(tokens, tokens, tokens, wideView(output, tokenShape), options))
	_, same := saving(t, layer, options)
	requireEqual(t, output, same)
}

// layerLoss is what the gradients below are of.
func layerLoss(t *testing.T, layer *attention.MultiheadAttention, mask, ofLSE []float64) float64 {
	lse, options := wide(lseShape), masked(mask)
	options.Attention.LSE = wideView(lse, lseShape)
	_, output := saving(t, layer, options)
	sum := 0.0
	for i, given := range wide(tokenShape) {
		sum += given * output[i]
	}
	for i, given := range ofLSE {
		sum += given * lse[i]
	}
	return sum
}

func TestGradientsOfAMaskAndLSEAreDifferences(t *testing.T) {
	const step = 1e-4
	layer, mask, ofLSE, found := newWideLayer(t), wide(scoreShape), wide(lseShape), wide(scoreShape)
	saved, _ := saving(t, layer, masked(mask))
	requireNil(t, saved.Backward(&attention.MultiheadGradients{Gradients: attention.Gradients{
		Output: wideView(wide(tokenShape), tokenShape), LSE: wideView(ofLSE, lseShape),
		Mask: wideView(found, scoreShape)}}))
	for i, gradient := range found {
		moved := append([]float64{}, mask...)
		moved[i] += step
		above := layerLoss(t, layer, moved, ofLSE)
		moved[i] -= 2 * step
		expected := (above - layerLoss(t, layer, moved, ofLSE)) / (2 * step)
		if math.Abs(gradient-expected) > 1e-6 {
			t.Fatalf("element %d: %g, expected %g", i, gradient, expected)
		}
	}
}

func TestCallsDoNotMixAndGradientsAddUp(t *testing.T) {
	layer := newWideLayer(t)
	first, _ := saving(t, layer, nil)
	saving(t, layer, &attention.ForwardOptions{Attention: attention.SDPAOptions{IsCausal: true}})
	goBack := func(ofQuery, ofBias []float64, accumulate bool) {
		requireNil(t, first.Backward(&attention.MultiheadGradients{
			Gradients: attention.Gradients{Accumulate: accumulate,
				Output: wideView(wide(tokenShape), tokenShape), Query: wideView(ofQuery, tokenShape)},
			Parameters: map[string]*attention.View{"out_proj.bias": attention.NewView(ofBias, embedDim)}}))
	}
	var found [4][]float64
	var all sync.WaitGroup
	for i := range found {
		found[i] = wide(tokenShape)
		all.Add(1)
		go func(ofQuery []float64) {
			defer all.Done()
			goBack(ofQuery, make([]float64, embedDim), false)
		}(found[i])
	}
	all.Wait()
	requireEqual(t, found[0], found[3])
	twice := append([]float64{}, found[0]...)
	goBack(twice, make([]float64, embedDim), true)
	for i, one := range found[0] {
		if math.Abs(2*one-twice[i]) > 1e-12 {
			t.Fatalf("element %d: %g, expected twice %g", i, twice[i], one)
		}
	}
}

func requireRefusal(t *testing.T, err error, code attention.Code, beginning string) {
	t.Helper()
	if !errors.Is(err, code) || !strings.HasPrefix(err.Error(), beginning) {
		t.Fatalf("expected %q, got %v", beginning, err)
	}
}

func TestRefusalsNameWhatIsWrongWithALayersGradients(t *testing.T) {
	layer, tokens := newWideLayer(t), wideView(wide(tokenShape), tokenShape)
	saved, _ := saving(t, layer, nil)
	given := attention.Gradients{Output: tokens}
	requireRefusal(t, saved.Backward(nil), attention.ErrNull, "gradients.output: ")
	requireRefusal(t, saved.Backward(&attention.MultiheadGradients{Gradients: given,
		Parameters: map[string]*attention.View{"bias_k": tokens}}), attention.ErrParameter, "gradients.bias_k: ")
	requireRefusal(t, saved.Backward(&attention.MultiheadGradients{Gradients: given,
		Parameters: map[string]*attention.View{"out_proj.bias": {}}}), attention.ErrValue, "gradients.out_proj.bias: ")
	given.Sinks = wideView(wide([]int{numHeads}), []int{numHeads})
	requireRefusal(t, saved.Backward(&attention.MultiheadGradients{Gradients: given}),
		attention.ErrValue, "gradients.attention.sinks: ")

	cacheShape := []int{numHeads, rows, headDim}
	_, err := layer.ForwardSaving(tokens, tokens, tokens, wideView(wide(tokenShape), tokenShape),
		&attention.ForwardOptions{Cache: &attention.KV{Key: wideView(wide(cacheShape), cacheShape),
			Value: wideView(wide(cacheShape), cacheShape), Lengths: attention.NewView([]int64{rows})}})
	requireRefusal(t, err, attention.ErrUnsupported, "cache: ")

	layer.Close()
	requireRefusal(t, saved.Backward(nil), attention.ErrValue, "layer: ")
	requireRefusal(t, new(attention.SavedForward).Backward(nil), attention.ErrNull, "saved: ")
}
