// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"attention"
)

func newLayer(t *testing.T) *attention.MultiheadAttention {
	t.Helper()
	layer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: embedDim, NumHeads: numHeads, NoBias: true})
	requireNil(t, err)
	t.Cleanup(layer.Close)
	weights := numbers(3 * embedDim * embedDim)
	requireNil(t, layer.LoadParameter("in_proj_weight",
		attention.NewView(weights, 3*embedDim, embedDim)))
	requireNil(t, layer.LoadParameter("out_proj.weight",
		attention.NewView(weights[:embedDim*embedDim], embedDim, embedDim)))
	return layer
}

func newContext(t *testing.T, config attention.ContextConfig) *attention.Context {
	t.Helper()
	context, err := attention.NewContext(config)
	requireNil(t, err)
	t.Cleanup(context.Close)
	return context
}

func forward(layer *attention.MultiheadAttention, options *attention.ForwardOptions) ([]float32, error) {
	view := attention.NewView(numbers(rows*embedDim), rows, embedDim)
	output := make([]float32, rows*embedDim)
	err := layer.Forward(view, view, view, attention.NewView(output, rows, embedDim), options)
	return output, err
}

func room(shape []int) (*attention.View, []float32) {
	count := 1
	for _, length := range shape {
		count *= length
	}
	elements := make([]float32, count)
	return attention.NewView(elements, shape...), elements
}

// attended is what an SDPA of made-up heads computes.
func attended(t *testing.T, options *attention.SDPAOptions) []float32 {
	t.Helper()
	view := attention.NewView(numbers(rows*embedDim), numHeads, rows, headDim)
	output, elements := room(view.Shape())
	requireNil(t, attention.SDPA(view, view, view, output, options))
	return elements
}

func requireMean(t *testing.T, shapes *attention.OutputShapes, call func(weights *attention.View)) {
	t.Helper()
	weights, each := room(shapes.Weights)
	averaged, means := room(shapes.AveragedWeights)
	call(weights)
	call(averaged)
	for i, mean := range means {
		expected := (each[i] + each[rows*rows+i]) / 2
		if mean == 0 || math.Abs(float64(expected-mean)) > 1e-6 {
			t.Fatalf("%d: expected %v, got %v", i, expected, mean)
		}
	}
}

func TestWeightsAreAveragedByTheirRank(t *testing.T) {
	view := attention.NewView(numbers(rows*embedDim), numHeads, rows, headDim)
	shapes, err := attention.DescribeOutputs(view, view, view, nil)
	requireNil(t, err)
	requireEqual(t, &attention.OutputShapes{
		Output:          []int{numHeads, rows, headDim},
		LSE:             []int{numHeads, rows},
		Weights:         []int{numHeads, rows, rows},
		AveragedWeights: []int{rows, rows},
		Scores:          []int{numHeads, rows, rows},
	}, shapes)
	requireMean(t, shapes, func(weights *attention.View) {
		attended(t, &attention.SDPAOptions{Weights: weights})
	})
	shapes, err = attention.DescribeOutputs(view, view, view,
		&attention.SDPAOptions{Normalizer: attention.Linear})
	requireNil(t, err)
	if shapes.LSE != nil {
		t.Fatalf("expected no lse, got %v", shapes.LSE)
	}
}

func TestBiasIsAddedLikeAnAdditiveMask(t *testing.T) {
	added := attention.NewView(numbers(numHeads*rows*rows), numHeads, rows, rows)
	masked := attended(t, &attention.SDPAOptions{Mask: attention.Additive(added)})
	requireEqual(t, masked, attended(t, &attention.SDPAOptions{Bias: added}))
	if fmt.Sprint(masked) == fmt.Sprint(attended(t, nil)) {
		t.Fatal("the mask changes nothing")
	}
}

func TestAlignEndStandsForAnOffset(t *testing.T) {
	query := attention.NewView(numbers(headDim), 1, headDim)
	keys := attention.NewView(numbers(rows*headDim), rows, headDim)
	output, elements := room([]int{1, headDim})
	attend := func(options attention.SDPAOptions) []float32 {
		options.IsCausal = true
		requireNil(t, attention.SDPA(query, keys, keys, output, &options))
		return append([]float32{}, elements...)
	}
	offset := attention.NewView([]int32{rows - 1})
	aligned := attend(attention.SDPAOptions{AlignEnd: true})
	requireEqual(t, aligned, attend(attention.SDPAOptions{QueryOffset: offset}))
	if fmt.Sprint(aligned) == fmt.Sprint(attend(attention.SDPAOptions{})) {
		t.Fatal("the last query stands at the first key")
	}
	requireError(t, attention.SDPA(query, keys, keys, output,
		&attention.SDPAOptions{AlignEnd: true, QueryOffset: offset}), attention.ErrValue,
		"query_offset: expected NULL beside align_end, which sets it")
}

func TestAttentionInsideALayerGetsItsOptions(t *testing.T) {
	layer := newLayer(t)
	lse := make([]float32, numHeads*rows)
	windowed, err := forward(layer, &attention.ForwardOptions{Attention: attention.SDPAOptions{
		Window: &attention.Window{Left: 0, Right: 0}, LSE: attention.NewView(lse, numHeads, rows)}})
	requireNil(t, err)
	hidden := []bool{false, true, true, true, false, true, true, true, false}
	masked, err := forward(layer, &attention.ForwardOptions{Attention: attention.SDPAOptions{
		Mask: attention.Exclude(attention.NewView(hidden, rows, rows))}})
	requireNil(t, err)
	requireEqual(t, masked, windowed)
	for _, element := range lse {
		if element == 0 || math.IsInf(float64(element), 0) {
			t.Fatalf("expected the logarithms of sums, got %v", lse)
		}
	}
	_, err = forward(layer, &attention.ForwardOptions{Attention: attention.SDPAOptions{
		Normalizer: 99}})
	requireError(t, err, attention.ErrUnsupported, "attention.normalizer: expected a value of "+
		"enum attn_normalizer, 0 to 2 in this version, got 99")
}

func TestLayerTellsItsOutputsAndWhatRuns(t *testing.T) {
	layer := newLayer(t)
	view := attention.NewView(numbers(rows*embedDim), rows, embedDim)
	shapes, err := layer.DescribeOutputs(view, view, view, nil)
	requireNil(t, err)
	requireEqual(t, []int{rows, embedDim}, shapes.Output)
	requireMean(t, shapes, func(weights *attention.View) {
		_, err := forward(layer, &attention.ForwardOptions{
			Attention: attention.SDPAOptions{Weights: weights}})
		requireNil(t, err)
	})
	output, _ := room(shapes.Output)
	report, err := layer.Explain(view, view, view, output, nil)
	requireNil(t, err)
	requireEqual(t, attention.GemmNative, report.ProjectionGemm)
	requireEqual(t, attention.EngineFused, report.Attention.Engine)
	inside, err := attention.Explain(view, view, view, output, nil)
	requireNil(t, err)
	requireEqual(t, inside.Kernels, report.Kernels)
	if report.WorkspaceBytes == 0 || inside.Reason == "" {
		t.Fatalf("expected a workspace and a reason, got %+v, %+v", report, inside)
	}
}

func TestLayerIsDescribedAndRead(t *testing.T) {
	layer := newLayer(t)
	config, err := layer.Config()
	requireNil(t, err)
	requireEqual(t, attention.MultiheadConfig{EmbedDim: embedDim, NumHeads: numHeads,
		KDim: embedDim, VDim: embedDim, QDim: embedDim, NumKVHeads: numHeads, HeadDim: headDim,
		ValueHeadDim: headDim, Dtype: attention.Float32, ParameterDtype: attention.Float32,
		NoBias: true}, config)
	parameters, err := layer.Parameters()
	requireNil(t, err)
	requireEqual(t, []attention.Parameter{
		{"in_proj_weight", []int{3 * embedDim, embedDim}},
		{"out_proj.weight", []int{embedDim, embedDim}}}, parameters)
	values, elements := room(parameters[1].Shape)
	requireNil(t, layer.ReadParameter("out_proj.weight", values))
	requireEqual(t, numbers(3 * embedDim * embedDim)[:len(elements)], elements)
	requireNil(t, layer.InitParameters(1))
	fresh, drawn := room(parameters[1].Shape)
	requireNil(t, layer.ReadParameter("out_proj.weight", fresh))
	if fmt.Sprint(drawn) == fmt.Sprint(elements) {
		t.Fatal("expected fresh values")
	}
}

func TestContextTellsWhatItRunsWith(t *testing.T) {
	context := newContext(t, attention.ContextConfig{NumThreads: 2, Gemm: attention.GemmNative,
		Float32Weights: true})
	requireNil(t, context.Start())
	info, err := context.Info()
	requireNil(t, err)
	requireEqual(t, 2, info.NumThreads)
	requireEqual(t, attention.GemmNative, info.AttentionGemm)
	var standard *attention.Context
	requireNil(t, standard.Start())
	if info, err = standard.Info(); err != nil || info.Kernels == "" {
		t.Fatalf("expected kernels, got %+v, %v", info, err)
	}
}

func TestSelftestTellsOfEachCheck(t *testing.T) {
	told := 0
	requireNil(t, attention.Selftest(nil, func(check string, err error) {
		if check == "" || err != nil {
			t.Errorf("%s: %v", check, err)
		}
		told++
	}))
	if told < 4 {
		t.Errorf("expected more checks than %d", told)
	}
	requireNil(t, attention.Selftest(nil, nil))
	defer func() { requireEqual(t, "visited", recover()) }()
	_ = attention.Selftest(nil, func(string, error) { panic("visited") })
	t.Error("expected the visitor's panic")
}

func TestGoroutinesShareALayerAndAContext(t *testing.T) {
	layer := newLayer(t)
	context := newContext(t, attention.ContextConfig{NumThreads: 2, Engine: attention.EngineFused})
	expected, err := forward(layer, &attention.ForwardOptions{
		Attention: attention.SDPAOptions{Context: context}})
	requireNil(t, err)
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := 0; j < 50; j++ {
				output, err := forward(layer, &attention.ForwardOptions{
					Attention: attention.SDPAOptions{Context: context}})
				if err != nil || fmt.Sprint(output) != fmt.Sprint(expected) {
					t.Errorf("expected %v, got %v, %v", expected, output, err)
				}
			}
		}()
	}
	group.Wait()
}

func TestErrorTextIsThatOfTheGoroutinesOwnCall(t *testing.T) {
	var group sync.WaitGroup
	for i := 1; i <= 64; i++ {
		group.Add(1)
		go func(length int) {
			defer group.Done()
			expected := fmt.Sprintf("got -%d on axis 0", length)
			for j := 0; j < 500; j++ {
				err := attention.NewView([]float32{}, -length).Err()
				if err == nil || !strings.HasSuffix(err.Error(), expected) {
					t.Errorf("expected %q, got %v", expected, err)
				}
			}
		}(i)
	}
	group.Wait()
}

func TestContextForcesItsEngine(t *testing.T) {
	context := newContext(t, attention.ContextConfig{Engine: attention.EngineFused})
	view := attention.NewView(make([]float64, rows*headDim), rows, headDim)
	output := attention.NewView(make([]float64, rows*headDim), rows, headDim)
	err := attention.SDPA(view, view, view, output, &attention.SDPAOptions{Context: context})
	if !errors.Is(err, attention.ErrUnsupported) {
		t.Fatalf("expected a refusal, got %v", err)
	}
}

func TestLayerRunsUnderItsContext(t *testing.T) {
	fused := newContext(t, attention.ContextConfig{Engine: attention.EngineFused})
	layer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: embedDim, NumHeads: numHeads, Dtype: attention.Float64, Context: fused})
	requireNil(t, err)
	t.Cleanup(layer.Close)
	requireNil(t, layer.InitParameters(1))
	tokens := attention.NewView(make([]float64, rows*embedDim), rows, embedDim)
	output := attention.NewView(make([]float64, rows*embedDim), rows, embedDim)
	err = layer.Forward(tokens, tokens, tokens, output, nil)
	if !errors.Is(err, attention.ErrUnsupported) {
		t.Fatalf("expected a refusal, got %v", err)
	}
	other := newContext(t, attention.ContextConfig{})
	requireNil(t, layer.Forward(tokens, tokens, tokens, output, &attention.ForwardOptions{
		Attention: attention.SDPAOptions{Context: other}}))
}

func TestClosedObjectsAreRefused(t *testing.T) {
	layer := newLayer(t)
	context, err := attention.NewContext(attention.ContextConfig{})
	requireNil(t, err)
	context.Close()
	context.Close()
	_, err = forward(layer, &attention.ForwardOptions{
		Attention: attention.SDPAOptions{Context: context}})
	requireError(t, err, attention.ErrValue,
		"context: expected an open one, got one that is closed")
	layer.Close()
	_, err = forward(layer, nil)
	requireError(t, err, attention.ErrValue, "layer: expected an open one, got one that is closed")
	err = layer.LoadParameter("bias_k", attention.NewView(numbers(1), 1))
	requireError(t, err, attention.ErrValue, "layer: expected an open one, got one that is closed")
}

func TestRefusedNamesSayWhatWasWrong(t *testing.T) {
	_, err := attention.NewContext(attention.ContextConfig{Kernels: "abacus"})
	if !errors.Is(err, attention.ErrUnsupported) || !strings.Contains(err.Error(), "abacus") {
		t.Fatalf("expected a refusal, got %v", err)
	}
	_, err = attention.NewContext(attention.ContextConfig{Kernels: "nul\x00"})
	requireError(t, err, attention.ErrValue, `kernels: expected no NUL, got "nul\x00"`)
	layer := newLayer(t)
	values := attention.NewView(numbers(1), 1)
	requireError(t, layer.LoadParameter("in\x00", values), attention.ErrParameter,
		`name: expected no NUL, got "in\x00"`)
	requireError(t, layer.LoadParameter("out_proj.weight", nil), attention.ErrNull,
		"out_proj.weight: expected a tensor, got NULL")
	var refusal *attention.Error
	if err = layer.LoadParameter("in_proj", values); !errors.As(err, &refusal) {
		t.Fatalf("expected an Error, got %v", err)
	}
	requireEqual(t, attention.ErrParameter, refusal.Code)
	requireEqual(t, "unknown or missing layer parameter", refusal.Code.Error())
}
