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

func newContext(t *testing.T, options attention.ContextOptions) *attention.Context {
	t.Helper()
	context, err := attention.NewContext(options)
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

func TestAveragedWeightsAreTheMeanOverHeads(t *testing.T) {
	view := attention.NewView(numbers(rows*embedDim), numHeads, rows, headDim)
	output := attention.NewView(make([]float32, rows*embedDim), numHeads, rows, headDim)
	weights, average := make([]float32, numHeads*rows*rows), make([]float32, rows*rows)
	requireNil(t, attention.SDPA(view, view, view, output, &attention.SDPAOptions{
		Weights: attention.NewView(weights, numHeads, rows, rows)}))
	requireNil(t, attention.SDPA(view, view, view, output, &attention.SDPAOptions{
		Weights: attention.NewView(average, rows, rows), AverageWeights: true}))
	for i, mean := range average {
		if expected := (weights[i] + weights[rows*rows+i]) / 2; math.Abs(float64(expected-mean)) > 1e-6 {
			t.Fatalf("%d: expected %v, got %v", i, expected, mean)
		}
	}
}

func TestAttentionInsideALayerGetsItsOptions(t *testing.T) {
	layer := newLayer(t)
	lse := make([]float32, numHeads*rows)
	windowed, err := forward(layer, &attention.ForwardOptions{Attention: &attention.SDPAOptions{
		Window: &attention.Window{Left: 0, Right: 0}, LSE: attention.NewView(lse, numHeads, rows)}})
	requireNil(t, err)
	hidden := []bool{false, true, true, true, false, true, true, true, false}
	masked, err := forward(layer, &attention.ForwardOptions{
		AttnMask: attention.Exclude(attention.NewView(hidden, rows, rows))})
	requireNil(t, err)
	requireEqual(t, masked, windowed)
	for _, element := range lse {
		if element == 0 || math.IsInf(float64(element), 0) {
			t.Fatalf("expected the logarithms of sums, got %v", lse)
		}
	}
	_, err = forward(layer, &attention.ForwardOptions{Attention: &attention.SDPAOptions{
		Mask: attention.Exclude(attention.NewView(hidden, rows, rows))}})
	requireError(t, err, attention.ErrValue,
		"attention: expected its mask and weights in ForwardOptions")
}

func TestGoroutinesShareALayerAndAContext(t *testing.T) {
	layer := newLayer(t)
	context := newContext(t, attention.ContextOptions{NumThreads: 2, Engine: attention.EngineFused})
	expected, err := forward(layer, &attention.ForwardOptions{Context: context})
	requireNil(t, err)
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for j := 0; j < 50; j++ {
				output, err := forward(layer, &attention.ForwardOptions{Context: context})
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
	context := newContext(t, attention.ContextOptions{Engine: attention.EngineFused})
	view := attention.NewView(make([]float64, rows*headDim), rows, headDim)
	output := attention.NewView(make([]float64, rows*headDim), rows, headDim)
	err := attention.SDPA(view, view, view, output, &attention.SDPAOptions{Context: context})
	if !errors.Is(err, attention.ErrUnsupported) {
		t.Fatalf("expected a refusal, got %v", err)
	}
}

func TestClosedObjectsAreRefused(t *testing.T) {
	layer := newLayer(t)
	context, err := attention.NewContext(attention.ContextOptions{})
	requireNil(t, err)
	context.Close()
	context.Close()
	_, err = forward(layer, &attention.ForwardOptions{Context: context})
	requireError(t, err, attention.ErrValue,
		"context: expected an open one, got one that is closed")
	layer.Close()
	_, err = forward(layer, nil)
	requireError(t, err, attention.ErrValue, "layer: expected an open one, got one that is closed")
	err = layer.LoadParameter("bias_k", attention.NewView(numbers(1), 1))
	requireError(t, err, attention.ErrNull, "layer: expected a layer, got NULL")
}

func TestRefusedNamesSayWhatWasWrong(t *testing.T) {
	_, err := attention.NewContext(attention.ContextOptions{Kernels: "abacus"})
	if !errors.Is(err, attention.ErrUnsupported) || !strings.Contains(err.Error(), "abacus") {
		t.Fatalf("expected a refusal, got %v", err)
	}
	_, err = attention.NewContext(attention.ContextOptions{Kernels: "nul\x00"})
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
