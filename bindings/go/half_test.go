// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"errors"
	"math"
	"testing"

	"attention"
)

// half is what both types of 16 bits have.
type half interface {
	attention.BF16 | attention.F16
	Float32() float32
}

func stored[T half](round func(float32) T, from []float32) []T {
	made := make([]T, len(from))
	for i, number := range from {
		made[i] = round(number)
	}
	return made
}

func widened[T half](from []T) []float32 {
	made := make([]float32, len(from))
	for i, number := range from {
		made[i] = number.Float32()
	}
	return made
}

// requireNear wants numbers within half a step of a type of so many bits, and what float32 is off by.
func requireNear(t *testing.T, bits int, expected, actual []float32) {
	t.Helper()
	largest := 0.0
	for i, number := range expected {
		want, got := float64(number), float64(actual[i])
		_, exponent := math.Frexp(math.Abs(want) + 1e-5)
		if math.Abs(want-got) > math.Ldexp(1, exponent-1-bits)+1e-5 {
			t.Fatalf("%d: expected %v, got %v", i, want, got)
		}
		largest = math.Max(largest, math.Abs(want))
	}
	if largest == 0 || len(expected) != len(actual) {
		t.Fatalf("expected numbers, got %v", actual)
	}
}

func requireRounded[T half](t *testing.T, round func(float32) T, bits map[float32]T) {
	t.Helper()
	for number, expected := range bits {
		if actual := round(number); actual != expected {
			t.Errorf("%v: expected %#x, got %#x", number, expected, actual)
		}
	}
	for i := 0; i <= math.MaxUint16; i++ {
		wide := T(i).Float32()
		if wide == wide && round(wide) != T(i) {
			t.Errorf("%#x: got %#x back", i, round(wide))
		}
	}
	if number := round(math.Float32frombits(0x7f800001)).Float32(); number == number {
		t.Errorf("NaN: got %v", number)
	}
}

func TestNumbersOf16BitsAreTheNearest(t *testing.T) {
	const step = 1.0 / (1 << 24)
	requireRounded(t, attention.ToF16, map[float32]attention.F16{
		1: 0x3c00, -2: 0xc000, 65504: 0x7bff, 65519: 0x7bff, 65520: 0x7c00,
		float32(math.Inf(-1)): 0xfc00, float32(math.Copysign(0, -1)): 0x8000,
		step: 1, step / 2: 0, 1.5 * step: 2, 1023 * step: 0x3ff, 1023.5 * step: 0x400,
		1024 * step: 0x400, 1 + 1.0/2048: 0x3c00, 1 + 3.0/2048: 0x3c02})
	requireRounded(t, attention.ToBF16, map[float32]attention.BF16{
		1: 0x3f80, -2: 0xc000, math.MaxFloat32: 0x7f80, float32(math.Inf(1)): 0x7f80,
		math.Float32frombits(0x10000): 1, 1 + 1.0/256: 0x3f80, 1 + 1.0/256 + 1.0/(1<<23): 0x3f81,
		1 + 3.0/256: 0x3f82})
	if number := attention.F16(0x7c01).Float32(); number == number {
		t.Errorf("expected NaN, got %v", number)
	}
}

func requireAttendedAsFloat32[T half](t *testing.T, round func(float32) T, bits int) {
	t.Helper()
	elements := stored(round, numbers(rows*embedDim))
	attend := func(query, output *attention.View) []float32 {
		lse, sums := room([]int{numHeads, rows})
		requireNil(t, attention.SDPA(query, query, query, output,
			&attention.SDPAOptions{IsCausal: true, LSE: lse}))
		return sums
	}
	narrow := attention.NewView(elements, numHeads, rows, headDim)
	wide := attention.NewView(widened(elements), numHeads, rows, headDim)
	view, expected := room(wide.Shape())
	sums := attend(wide, view)
	output := make([]T, len(elements))
	requireEqual(t, sums, attend(narrow, attention.NewView(output, narrow.Shape()...)))
	requireNear(t, bits, expected, widened(output))
	view, unrounded := room(wide.Shape())
	attend(narrow, view)
	requireEqual(t, expected, unrounded)
}

func TestAttentionIn16BitsIsThatOfTheNumbers(t *testing.T) {
	requireAttendedAsFloat32(t, attention.ToBF16, 8)
	requireAttendedAsFloat32(t, attention.ToF16, 11)
}

func TestKeysAndValuesMayBeOfOtherTypes(t *testing.T) {
	elements := numbers(rows * embedDim)
	shape := []int{numHeads, rows, headDim}
	key, value := make([]uint16, len(elements)), stored(attention.ToF16, elements)
	for i, number := range elements {
		key[i] = uint16(attention.ToBF16(number))
	}
	query := attention.NewView(elements, shape...)
	view, expected := room(shape)
	requireNil(t, attention.SDPA(query, attention.NewView(widened(attention.AsBF16(key)), shape...),
		attention.NewView(widened(value), shape...), view, nil))
	view, actual := room(shape)
	requireNil(t, attention.SDPA(query, attention.NewView(attention.AsBF16(key), shape...),
		attention.NewView(value, shape...), view, nil))
	requireNear(t, 24, expected, actual)
	wide := attention.NewView(make([]float64, len(elements)), shape...)
	requireError(t, attention.SDPA(attention.NewView(value, shape...), wide, wide, view, nil),
		attention.ErrDtype, "key: expected dtype float32, bfloat16 or float16, got float64")
}

// Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256).
func TestWeightsStayFloat32WhereAContextAsks(t *testing.T) {
	query := attention.NewView(stored(attention.ToBF16, []float32{1, 1, 1, 1, 1, 1, 1, 1}), 8, 1)
	key := attention.NewView(stored(attention.ToBF16, []float32{0, -77.0 / 256}), 2, 1)
	value := attention.NewView(stored(attention.ToBF16, []float32{0, 1}), 2, 1)
	for _, kernels := range []string{"", "avx512_bf16", "neon_bf16"} {
		context, err := attention.NewContext(
			attention.ContextConfig{Kernels: kernels, Float32Weights: true})
		if errors.Is(err, attention.ErrUnsupported) {
			t.Logf("not on this machine: %v", err)
			continue
		}
		requireNil(t, err)
		t.Cleanup(context.Close)
		view, output := room([]int{8, 1})
		requireNil(t, attention.SDPA(query, key, value, view,
			&attention.SDPAOptions{Context: context}))
		for _, number := range output {
			if math.Abs(float64(number)-1/(1+math.Exp(77.0/256))) > 1e-5 {
				t.Errorf("kernels %q: got %v", kernels, number)
			}
		}
	}
}

// requireForwardedAsFloat32 compares a layer of T, whose parameters are of P, with one of float32 that
// has the same numbers.
func requireForwardedAsFloat32[T, P half](t *testing.T, config attention.MultiheadConfig,
	round func(float32) T, bits int) {
	t.Helper()
	config.EmbedDim, config.NumHeads = embedDim, numHeads
	layer, err := attention.NewMultiheadAttention(config)
	requireNil(t, err)
	t.Cleanup(layer.Close)
	wideLayer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: embedDim, NumHeads: numHeads})
	requireNil(t, err)
	t.Cleanup(wideLayer.Close)
	requireNil(t, layer.InitParameters(1))
	parameters, err := layer.Parameters()
	requireNil(t, err)
	for _, parameter := range parameters {
		_, zeros := room(parameter.Shape)
		values := make([]P, len(zeros))
		requireNil(t, layer.ReadParameter(parameter.Name,
			attention.NewView(values, parameter.Shape...)))
		requireNil(t, wideLayer.LoadParameter(parameter.Name,
			attention.NewView(widened(values), parameter.Shape...)))
	}
	made, err := layer.Config()
	requireNil(t, err)
	requireEqual(t, config.ParameterDtype, made.ParameterDtype)

	elements := stored(round, numbers(rows*embedDim))
	output := make([]T, len(elements))
	narrow := attention.NewView(elements, rows, embedDim)
	requireNil(t, layer.Forward(narrow, narrow, narrow,
		attention.NewView(output, rows, embedDim), nil))
	wide := attention.NewView(widened(elements), rows, embedDim)
	view, expected := room(wide.Shape())
	requireNil(t, wideLayer.Forward(wide, wide, wide, view, nil))
	requireNear(t, bits, expected, widened(output))
}

func TestLayersKeepAndComputeWith16Bits(t *testing.T) {
	requireForwardedAsFloat32[attention.BF16, attention.BF16](t, attention.MultiheadConfig{
		Dtype: attention.BFloat16, ParameterDtype: attention.BFloat16}, attention.ToBF16, 8)
	requireForwardedAsFloat32[attention.F16, attention.BF16](t, attention.MultiheadConfig{
		Dtype: attention.Float16, ParameterDtype: attention.BFloat16}, attention.ToF16, 11)
	_, err := attention.NewMultiheadAttention(attention.MultiheadConfig{EmbedDim: embedDim,
		NumHeads: numHeads, Dtype: attention.Float64, ParameterDtype: attention.Float16})
	requireError(t, err, attention.ErrDtype,
		"parameter_dtype: expected float64, or 0, beside dtype float64, got float16")
}
