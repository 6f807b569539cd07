// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"errors"
	"math"
	"reflect"
	"runtime"
	"testing"

	"attention"
)

const (
	rows     = 3
	numHeads = 2
	headDim  = 4
	embedDim = numHeads * headDim
)

func numbers(count int) []float32 {
	made := make([]float32, count)
	for i := range made {
		made[i] = float32((i*37+11)%64)/32 - 1
	}
	return made
}

func requireNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func requireError(t *testing.T, err error, code attention.Code, text string) {
	t.Helper()
	if !errors.Is(err, code) || err.Error() != text {
		t.Fatalf("expected %d %q, got %v", code, text, err)
	}
}

func requireEqual(t *testing.T, expected, actual any) {
	t.Helper()
	if !reflect.DeepEqual(expected, actual) {
		t.Fatalf("expected %v, got %v", expected, actual)
	}
}

func TestViewThatLeavesItsSliceIsRefused(t *testing.T) {
	refused := []struct {
		offset         int
		shape, strides []int
	}{
		{0, []int{13}, []int{1}},
		{1, []int{12}, []int{1}},
		{0, []int{2}, []int{-1}},
		{12, []int{1}, []int{1}},
		{-1, []int{1}, []int{1}},
		{math.MaxInt, []int{2}, []int{1}},
		{0, []int{3, 4}, []int{5, 1}},
		{6, []int{2, 2}, []int{math.MinInt >> 4, math.MaxInt >> 4}},
	}
	data := numbers(12)
	for _, made := range refused {
		err := attention.NewStridedView(data, made.offset, made.shape, made.strides).Err()
		if !errors.Is(err, attention.ErrShape) {
			t.Errorf("%v: expected a refusal, got %v", made, err)
		}
	}
	requireNil(t, attention.NewStridedView(data, 11, []int{12}, []int{-1}).Err())
	requireNil(t, attention.NewStridedView(data, 11, []int{1000}, []int{0}).Err())
	requireNil(t, attention.NewStridedView(data, 99, []int{5, 0}, []int{7, 7}).Err())
}

func TestCallNamesTheViewThatCouldNotBeMade(t *testing.T) {
	data := numbers(12)
	good := attention.NewView(data, 3, 4)
	output := attention.NewView(make([]float32, 12), 3, 4)
	bad := attention.NewView(data, 3, 5)
	requireError(t, bad.Err(), attention.ErrShape,
		"expected the 15 elements of shape [3 5], got 12")
	requireError(t, attention.SDPA(good, bad.Transpose(0, 1), good, output, nil),
		attention.ErrShape, "key: expected the 15 elements of shape [3 5], got 12")
	requireError(t, attention.SDPA(good, good, nil, output, nil),
		attention.ErrNull, "value: expected a tensor, got NULL")
	options := &attention.SDPAOptions{Sinks: &attention.View{}}
	requireError(t, attention.SDPA(good, good, good, output, options),
		attention.ErrValue, "sinks: expected a view made by NewView")
	requireError(t, attention.NewView(data, -3, -4).Err(),
		attention.ErrValue, "tensor: expected lengths of 0 and up, got -3 on axis 0")
	requireError(t, attention.NewStridedView(data, 0, []int{3, 4}, []int{4}).Err(),
		attention.ErrValue, "expected a stride for each axis, got shape [3 4] and strides [4]")
}

func TestHeadsInPlaceComputeWhatHeadsApartDo(t *testing.T) {
	packed := numbers(rows * embedDim)
	apart := make([]float32, len(packed))
	for i, element := range packed {
		row, head, feature := i/embedDim, i/headDim%numHeads, i%headDim
		apart[(head*rows+row)*headDim+feature] = element
	}
	inPlace := attention.NewView(packed, rows, embedDim).SplitHeads(numHeads)
	output, expected := make([]float32, len(packed)), make([]float32, len(packed))
	requireNil(t, attention.SDPA(inPlace, inPlace, inPlace,
		attention.NewView(output, rows, embedDim).SplitHeads(numHeads), nil))
	copied := attention.NewView(apart, numHeads, rows, headDim)
	requireNil(t, attention.SDPA(copied, copied, copied,
		attention.NewView(expected, rows, numHeads, headDim).Transpose(0, 1), nil))
	requireEqual(t, expected, output)
	requireEqual(t, []int{numHeads, rows, headDim}, inPlace.Shape())
	requireEqual(t, []int{embedDim, 1}, inPlace.MergeHeads().Strides())
}

func TestSelectedHeadIsThatOfASlice(t *testing.T) {
	packed := numbers(rows * embedDim)
	split := attention.NewView(packed, rows, embedDim).SplitHeads(numHeads)
	same := attention.NewStridedView(packed, headDim, []int{rows, headDim}, []int{embedDim, 1})
	output, expected := make([]float32, rows*headDim), make([]float32, rows*headDim)
	requireNil(t, attention.SDPA(same, same, same, attention.NewView(expected, rows, headDim), nil))
	for _, axis := range []int{0, -3} {
		head := split.Select(axis, 1)
		requireEqual(t, same.Shape(), head.Shape())
		requireNil(t, attention.SDPA(head, head, head, attention.NewView(output, rows, headDim), nil))
		requireEqual(t, expected, output)
	}
	requireError(t, split.Select(0, numHeads).Err(), attention.ErrValue,
		"index: expected a position within axis 0 of length 2, got 2")
}

func TestViewBackwardsReadsWhatAReversedCopyHolds(t *testing.T) {
	data := numbers(rows * headDim)
	reversed := make([]float32, 0, len(data))
	for row := rows - 1; row >= 0; row-- {
		reversed = append(reversed, data[row*headDim:(row+1)*headDim]...)
	}
	query := attention.NewView(data, rows, headDim)
	backwards := attention.NewStridedView(data, (rows-1)*headDim, []int{rows, headDim},
		[]int{-headDim, 1})
	copied := attention.NewView(reversed, rows, headDim)
	output, expected := make([]float32, len(data)), make([]float32, len(data))
	causal := &attention.SDPAOptions{IsCausal: true}
	requireNil(t, attention.SDPA(query, backwards, backwards,
		attention.NewView(output, rows, headDim), causal))
	requireNil(t, attention.SDPA(query, copied, copied,
		attention.NewView(expected, rows, headDim), causal))
	requireEqual(t, expected, output)
}

func TestViewKeepsItsSlice(t *testing.T) {
	output := make([]float32, 1<<20)
	view := attention.NewView(numbers(1<<20), 1, 1<<20)
	key := attention.NewView(make([]float32, 1), 1, 1)
	for i := 0; i < 3; i++ {
		runtime.GC()
		_ = numbers(1 << 20)
	}
	query := attention.NewView(make([]float32, 1), 1, 1)
	requireNil(t, attention.SDPA(query, key, view, attention.NewView(output, 1, 1<<20), nil))
	requireEqual(t, numbers(1<<20), output)
}

// What Go checks of a pointer that it hands to C may not reach beyond the slice.
func TestArrayBesidePointersIsPassed(t *testing.T) {
	type record struct {
		name  *string
		data  [rows * headDim]float32
		other []*string
	}
	name := "a"
	made := &record{name: &name, other: []*string{&name}}
	copy(made.data[:], numbers(len(made.data)))
	view := attention.NewView(made.data[:], rows, headDim)
	output := make([]float32, len(made.data))
	options := &attention.SDPAOptions{Mask: attention.Additive(
		attention.NewView(made.data[:rows], rows))}
	requireNil(t, attention.SDPA(view, view, view, attention.NewView(output, rows, headDim), options))
	requireEqual(t, &name, made.other[0])
}
