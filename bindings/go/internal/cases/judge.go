// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"math"

	"attention"
)

// judge compares the outcome of a call with what its case expects.
func (made *testCase) judge(outcome error, results ...*tensor) error {
	if outcome != nil || made.refusal != nil {
		return made.judgeRefusal(outcome)
	}
	if len(made.expected) == 0 {
		return fmt.Errorf("nothing is expected")
	}
	for _, expected := range made.expected {
		actual := find(results, expected.name)
		if actual == nil {
			return fmt.Errorf("unknown result %s", expected.name)
		}
		if err := expected.compare(actual); err != nil {
			return err
		}
	}
	return nil
}

func (made *testCase) judgeRefusal(outcome error) error {
	var refusal *attention.Error
	isRefused := errors.As(outcome, &refusal)
	if made.refusal == nil || !isRefused || *refusal != *made.refusal {
		return fmt.Errorf("expected error %#v, got %#v", made.refusal, outcome)
	}
	return nil
}

func find(results []*tensor, name string) *tensor {
	for _, result := range results {
		if result != nil && result.name == name {
			return result
		}
	}
	return nil
}

func (want *expected) compare(actual *tensor) error {
	elements, isWide := want.elements.([]float64)
	if !isWide {
		return fmt.Errorf("%s: expected values that are float64", want.name)
	}
	for i, element := range elements {
		got := actual.float(i)
		if !isNear(got, element, want.tolerance) {
			return fmt.Errorf("%s[%d]: expected %.9g within %.2g, got %.9g", want.name, i, element,
				want.tolerance, got)
		}
	}
	return nil
}

func (made *tensor) float(index int) float64 {
	switch elements := made.elements.(type) {
	case []float64:
		return elements[index]
	case []attention.BF16:
		return float64(elements[index].Float32())
	case []attention.F16:
		return float64(elements[index].Float32())
	default:
		return float64(elements.([]float32)[index])
	}
}

func isNear(actual, expected, tolerance float64) bool {
	if math.IsNaN(expected) {
		return math.IsNaN(actual)
	}
	return actual == expected || math.Abs(actual-expected) <= tolerance
}
