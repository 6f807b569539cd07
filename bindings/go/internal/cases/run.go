// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"strconv"

	"attention"
)

// run calls what a case describes.
func (made *testCase) run() error {
	for _, name := range []string{"query", "key", "value"} {
		if made.tensor(name) == nil {
			return fmt.Errorf("no tensor %s", name)
		}
	}
	switch made.call {
	case "sdpa":
		return made.runSDPA()
	case "mha":
		return made.runMHA()
	default:
		return fmt.Errorf("unknown call %s", made.call)
	}
}

func (made *testCase) tensor(name string) *tensor {
	for i := range made.tensors {
		if made.tensors[i].name == name {
			return &made.tensors[i]
		}
	}
	return nil
}

func (made *testCase) view(name string) *attention.View {
	return made.tensor(name).view
}

// optionalResult is room for a result, if it is expected.
func (made *testCase) optionalResult(name string) (*tensor, error) {
	for _, expected := range made.expected {
		if expected.name == name {
			return made.room(name, expected.shape)
		}
	}
	return nil, nil
}

// mainResult is room for a result that a call always has; if it is to be refused, of query's shape
// with that many features.
func (made *testCase) mainResult(name string, features int) (*tensor, error) {
	if made.refusal == nil {
		return made.optionalResult(name)
	}
	shape := append([]int{}, made.tensor("query").shape...)
	shape[len(shape)-1] = features
	return made.room(name, shape)
}

// room is of query's type, but for lse, which is of the scores'. It holds what no call computes.
func (made *testCase) room(name string, shape []int) (*tensor, error) {
	switch dtype := made.dtype(); {
	case dtype == attention.Float64:
		return makeRoom(name, shape, 1e30)
	case dtype == attention.BFloat16 && name != "lse":
		return makeRoom(name, shape, attention.ToBF16(1e30))
	case dtype == attention.Float16 && name != "lse":
		return makeRoom(name, shape, attention.ToF16(6e4))
	default:
		return makeRoom(name, shape, float32(1e30))
	}
}

// dtype is that of query.
func (made *testCase) dtype() attention.Dtype {
	switch made.tensor("query").elements.(type) {
	case []float64:
		return attention.Float64
	case []attention.BF16:
		return attention.BFloat16
	case []attention.F16:
		return attention.Float16
	default:
		return attention.Float32
	}
}

func makeRoom[T attention.Element](name string, shape []int, filler T) (*tensor, error) {
	count := 1
	for _, length := range shape {
		count *= length
	}
	elements := make([]T, count)
	for i := range elements {
		elements[i] = filler
	}
	result, err := makeTensor(name, shape, elements)
	return &result, err
}

// viewOf is nil for a result that is not asked for.
func viewOf(result *tensor) *attention.View {
	if result == nil {
		return nil
	}
	return result.view
}

func isOn(value string) (bool, error) {
	if value != "0" && value != "1" {
		return false, fmt.Errorf("expected 0 or 1, got %q", value)
	}
	return value == "1", nil
}

// set parses value into the place that an option belongs to.
func set(place any, value string) (err error) {
	switch place := place.(type) {
	case *bool:
		*place, err = isOn(value)
	case *int:
		*place, err = strconv.Atoi(value)
	case *int64:
		*place, err = strconv.ParseInt(value, 10, 64)
	case *uint64:
		*place, err = strconv.ParseUint(value, 10, 64)
	case *float64:
		*place, err = strconv.ParseFloat(value, 64)
	case *attention.Normalizer:
		*place, err = normalizer(value)
	case *attention.Dtype:
		*place, err = dtype(value)
	default:
		err = fmt.Errorf("unknown option")
	}
	return err
}

func normalizer(name string) (attention.Normalizer, error) {
	names := map[string]attention.Normalizer{
		"softmax": attention.Softmax,
		"sigmoid": attention.Sigmoid,
		"linear":  attention.Linear,
	}
	normalizer, isKnown := names[name]
	if !isKnown {
		return 0, fmt.Errorf("unknown normalizer %q", name)
	}
	return normalizer, nil
}

func dtype(name string) (attention.Dtype, error) {
	names := map[string]attention.Dtype{
		"float32":  attention.Float32,
		"float64":  attention.Float64,
		"bfloat16": attention.BFloat16,
		"float16":  attention.Float16,
		"int8":     attention.Int8,
	}
	dtype, isKnown := names[name]
	if !isKnown {
		return 0, fmt.Errorf("unknown dtype %q", name)
	}
	return dtype, nil
}

// readOptions parses every option into its place; one without a place is an error.
func (made *testCase) readOptions(places map[string]any) error {
	for _, option := range made.options {
		if err := set(places[option.name], option.value); err != nil {
			return fmt.Errorf("option %s: %w", option.name, err)
		}
	}
	return nil
}

func (made *testCase) has(option string) bool {
	for _, other := range made.options {
		if other.name == option {
			return true
		}
	}
	return false
}

// mask is added unless it is made of bools, which mean what their call says.
func (made *tensor) mask(ofBools func(*attention.View) attention.Mask) attention.Mask {
	if _, isBool := made.elements.([]bool); isBool {
		return ofBools(made.view)
	}
	return attention.Additive(made.view)
}
