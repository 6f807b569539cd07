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

func (made *testCase) room(name string, shape []int) (*tensor, error) {
	if _, isWide := made.tensor("query").elements.([]float64); isWide {
		return makeRoom[float64](name, shape)
	}
	return makeRoom[float32](name, shape)
}

// makeRoom fills it with what no call computes.
func makeRoom[T float32 | float64](name string, shape []int) (*tensor, error) {
	count := 1
	for _, length := range shape {
		count *= length
	}
	elements := make([]T, count)
	for i := range elements {
		elements[i] = 1e30
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
	case *float64:
		*place, err = strconv.ParseFloat(value, 64)
	case *attention.Normalizer:
		*place, err = normalizer(value)
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
