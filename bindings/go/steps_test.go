// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"math"
	"testing"

	"attention"
)

// Scores, and what models do around attention: parts put together, positions, normalisation.

func TestScoresAreTold(t *testing.T) {
	q, k := numbers(numHeads*rows*headDim), numbers(numHeads*numKeys*headDim)
	query := attention.NewView(q, numHeads, rows, headDim)
	key := attention.NewView(k, numHeads, numKeys, headDim)
	shapes, err := attention.DescribeOutputs(query, key, key, nil)
	requireNil(t, err)
	requireEqual(t, []int{numHeads, rows, numKeys}, shapes.Scores)
	output, _ := room(shapes.Output)
	scale := 2.0
	for _, stage := range []attention.ScoreStage{attention.ScoresScaled, attention.ScoresMasked} {
		view, scores := room(shapes.Scores)
		requireNil(t, attention.SDPA(query, key, key, output, &attention.SDPAOptions{
			IsCausal: true, Scale: &scale, Scores: view, ScoresStage: stage}))
		for i, score := range scores {
			head, row, column := i/(rows*numKeys), i/numKeys%rows, i%numKeys
			var product float32 // numbers has few bits: exact
			for e := 0; e < headDim; e++ {
				product += q[(head*rows+row)*headDim+e] * k[(head*numKeys+column)*headDim+e]
			}
			expected := 2 * product
			if stage == attention.ScoresMasked && column > row {
				expected = float32(math.Inf(-1))
			}
			requireEqual(t, expected, score)
		}
	}
}

func TestPositionsTurnPairs(t *testing.T) {
	input, turns, positions := numbers(2*headDim), []float32{1, 0.25}, []int32{7, -3}
	to, output := room([]int{2, headDim})
	options := attention.RopeOptions{
		Frequencies: attention.NewView(turns, 2), Positions: attention.NewView(positions, 2)}
	requireNil(t, attention.Rope(attention.NewView(input, 2, headDim), to, &options))
	expected := make([]float32, len(input))
	for row, position := range positions {
		for i, turn := range turns {
			sin, cos := math.Sincos(float64(position) * float64(turn))
			x, y := float64(input[row*headDim+i]), float64(input[row*headDim+i+2])
			expected[row*headDim+i] = float32(x*cos - y*sin)
			expected[row*headDim+i+2] = float32(y*cos + x*sin)
		}
	}
	requireNear(t, 16, expected, output)
	options.Inverse = true
	requireNil(t, attention.Rope(to, to, &options))
	requireNear(t, 16, input, output)
}

func TestTablesAreTakenAsTheyAre(t *testing.T) {
	input := attention.NewView([]float32{1, 2, 3, 4, 5}, 1, 5)
	to, output := room([]int{1, 5})
	options := attention.RopeOptions{RotaryDim: 4, Interleaved: true, Magnitude: 2,
		Cos: attention.NewView([]float32{0, 1}, 1, 2), Sin: attention.NewView([]float32{1, 0}, 1, 2)}
	requireNil(t, attention.Rope(input, to, &options))
	requireEqual(t, []float32{-4, 2, 6, 8, 5}, output)
	options.RotaryDim = 3
	requireError(t, attention.Rope(input, to, &options), attention.ErrValue,
		"rotary_dim: expected an even number, 0 to E=5, got 3")
	options.Cos = &attention.View{}
	requireError(t, attention.Rope(input, to, &options), attention.ErrValue,
		"cos: expected a view made by NewView")
	requireError(t, attention.Rope(nil, to, nil), attention.ErrNull,
		"input: expected a tensor, got NULL")
}

func TestRowsAreNormalised(t *testing.T) {
	input := attention.NewView([]float32{3, 4}, 1, 2)
	to, output := room([]int{1, 2})
	requireNil(t, attention.RMSNorm(input, to, &attention.RMSNormOptions{Epsilon: 3.5, // 12.5 + 3.5 is 16
		Weight: attention.NewView([]float32{0, 1}, 2), WeightOffset: 1}))
	requireEqual(t, []float32{0.75, 2}, output)
	requireError(t, attention.RMSNorm(input, to, &attention.RMSNormOptions{Epsilon: -1}), attention.ErrValue,
		"epsilon: expected 0 (the default) or a positive number, got -1")
}

// partialResult is of some of the keys.
func partialResult(t *testing.T, start, count int, sinks *attention.View) (attention.PartialResult, [2][]float32) {
	output, outputs := room([]int{numHeads, rows, headDim})
	lse, lses := room([]int{numHeads, rows})
	query := attention.NewView(numbers(numHeads*rows*headDim), numHeads, rows, headDim)
	seen := attention.NewStridedView(numbers(numHeads*numKeys*headDim), start*headDim,
		[]int{numHeads, count, headDim}, []int{numKeys * headDim, headDim, 1})
	requireNil(t, attention.SDPA(query, seen, seen, output, &attention.SDPAOptions{LSE: lse, Sinks: sinks}))
	return attention.PartialResult{Output: output, LSE: lse}, [2][]float32{outputs, lses}
}

func TestPartsAreTheWhole(t *testing.T) {
	sinks := attention.NewView([]float32{0.5, -1}, numHeads)
	_, whole := partialResult(t, 0, numKeys, sinks)
	var parts []attention.PartialResult
	var merged [2][]float32
	for i := numKeys - 1; i >= 0; i-- {
		part, data := partialResult(t, i, 1, nil)
		parts, merged = append(parts, part), data
	}
	last := parts[numKeys-1]
	requireNil(t, attention.Merge(parts, last.Output, &attention.MergeOptions{Sinks: sinks, LSE: last.LSE}))
	requireNear(t, 16, whole[0], merged[0])
	requireNear(t, 16, whole[1], merged[1])
}

func TestPartsWithoutLSEAreAdded(t *testing.T) {
	one := attention.PartialResult{Output: attention.NewView([]float32{1, 2}, 1, 2)}
	other := attention.PartialResult{Output: attention.NewView([]float32{3, -1}, 1, 2)}
	to, sum := room([]int{1, 2})
	requireNil(t, attention.Merge([]attention.PartialResult{one, other}, to, nil))
	requireEqual(t, []float32{4, 1}, sum)
	one.LSE = attention.NewView([]float32{0}, 1)
	requireError(t, attention.Merge([]attention.PartialResult{one, other}, to, nil), attention.ErrDtype,
		"lses[1]: expected a dtype of enum attn_dtype, got invalid")
	one.LSE = &attention.View{}
	requireError(t, attention.Merge([]attention.PartialResult{other, one}, to, nil), attention.ErrValue,
		"lses[1]: expected a view made by NewView")
	requireError(t, attention.Merge(nil, to, nil), attention.ErrValue, "count: expected 1 and up, got 0")
	many := make([]attention.PartialResult, 129)
	for i := range many {
		many[i] = other
	}
	requireNil(t, attention.Merge(many[:128], to, nil))
	requireEqual(t, []float32{384, -128}, sum)
	requireError(t, attention.Merge(many, to, nil), attention.ErrValue,
		"parts: expected at most 128, got 129")
}
