// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"math"
	"testing"

	"attention"
)

// Steps of a decoder are the whole sequence.
func TestStepsOfALayerAreTheWhole(t *testing.T) {
	const rows, embedDim, capacity, dim = 5, 8, 6, 4
	layer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: embedDim, NumHeads: 2, NumKVHeads: 1, HeadDim: dim,
		QKNorm: attention.QKNormHead, QKNormEpsilon: 1e-6, QKNormWeightOffset: 1})
	requireNil(t, err)
	defer layer.Close()
	requireNil(t, layer.InitParameters(3))
	config, err := layer.Config()
	requireNil(t, err)
	if config.QKNorm != attention.QKNormHead || config.QKNormEpsilon != 1e-6 || config.QKNormWeightOffset != 1 {
		t.Fatalf("config: %+v", config)
	}

	input, whole, output := numbers(rows*embedDim), make([]float32, rows*embedDim), make([]float32, rows*embedDim)
	view := func(elements []float32, first, end int) *attention.View {
		return attention.NewView(elements[first*embedDim:end*embedDim], end-first, embedDim)
	}
	options := &attention.ForwardOptions{
		Attention: attention.SDPAOptions{IsCausal: true}, Rope: &attention.RopeOptions{Base: 500}}
	all := view(input, 0, rows)
	requireNil(t, layer.Forward(all, all, all, view(whole, 0, rows), options))

	keys, values, length := make([]float32, capacity*dim), make([]float32, capacity*dim), []int64{0}
	options.Cache = &attention.KV{Key: attention.NewView(keys, 1, capacity, dim),
		Value: attention.NewView(values, 1, capacity, dim), Lengths: attention.NewView(length)}
	for _, count := range []int{3, 1, 1} {
		first := int(length[0])
		length[0] += int64(count)
		part := view(input, first, first+count)
		requireNil(t, layer.Forward(part, part, part, view(output, first, first+count), options))
	}
	for i := range whole {
		if math.Abs(float64(whole[i]-output[i])) > 1e-5 {
			t.Fatalf("element %d: %v, in steps %v", i, whole[i], output[i])
		}
	}

	// The last row once more, of what is there already.
	again := make([]float32, embedDim)
	requireNil(t, layer.Forward(view(input, rows-1, rows), nil, nil, view(again, 0, 1), options))
	for i := range again {
		if math.Abs(float64(again[i]-output[(rows-1)*embedDim+i])) > 1e-5 {
			t.Fatalf("element %d: %v, read alone %v", i, output[(rows-1)*embedDim+i], again[i])
		}
	}
}
