// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"fmt"
	"testing"

	"attention"
)

// Where the keys and the queries of three sequences are, one behind the other.
var (
	keyStarts   = []int64{0, 5, 6, 13}
	queryStarts = []int64{0, 2, 3, 6}
)

const numKeys, numQueries, numSequences = 13, 6, 3

// part is the rows of sequence b.
func part(elements []float32, count int, starts []int64, b int) *attention.View {
	begin, end := int(starts[b]), int(starts[b+1])
	return attention.NewStridedView(elements, begin*headDim, []int{numHeads, end - begin, headDim},
		[]int{count * headDim, headDim, 1})
}

func ragged(elements []float32, count int) *attention.View {
	return attention.NewView(elements, numHeads, count, headDim)
}

func keysAndValues() (keys, values []float32) {
	keys = numbers(numHeads * numKeys * headDim)
	values = make([]float32, len(keys))
	for i, key := range keys {
		values[len(keys)-1-i] = key
	}
	return keys, values
}

func attendedOneByOne(t *testing.T) []float32 {
	t.Helper()
	keys, values := keysAndValues()
	query, output := numbers(numHeads*numQueries*headDim), make([]float32, numHeads*numQueries*headDim)
	for b := 0; b < numSequences; b++ {
		requireNil(t, attention.SDPA(part(query, numQueries, queryStarts, b),
			part(keys, numKeys, keyStarts, b), part(values, numKeys, keyStarts, b),
			part(output, numQueries, queryStarts, b),
			&attention.SDPAOptions{IsCausal: true, AlignEnd: true}))
	}
	return output
}

func attendedIn(kv *attention.KV) ([]float32, error) {
	query, output := numbers(numHeads*numQueries*headDim), make([]float32, numHeads*numQueries*headDim)
	err := attention.SDPA(ragged(query, numQueries), nil, nil, ragged(output, numQueries),
		&attention.SDPAOptions{IsCausal: true, AlignEnd: true, KV: kv,
			QueryStarts: attention.NewView(queryStarts, numSequences+1)})
	return output, err
}

func raggedKV() *attention.KV {
	keys, values := keysAndValues()
	return &attention.KV{Key: ragged(keys, numKeys), Value: ragged(values, numKeys),
		Starts: attention.NewView(keyStarts, numSequences+1)}
}

// pagedKV has pages in no order; an entry that no key needs is no page.
func pagedKV(lengths []int64) (kv *attention.KV, keys []float32) {
	shape := []int{6, numHeads, 4, headDim}
	key, keys := room(shape)
	value, _ := room(shape)
	kv = &attention.KV{Key: key, Value: value,
		PageTable: attention.NewView([]int32{3, 1 /**/, 5, -1 /**/, 0, 2}, numSequences, 2)}
	if lengths != nil {
		kv.Lengths = attention.NewView(lengths, len(lengths))
	}
	return kv, keys
}

func TestPagesAreRaggedRowsAreSingleSequences(t *testing.T) {
	expected := attendedOneByOne(t)
	if fmt.Sprint(expected) == fmt.Sprint(make([]float32, len(expected))) {
		t.Fatal("nothing is attended to")
	}
	rows := raggedKV()
	found, err := attendedIn(rows)
	requireNil(t, err)
	requireEqual(t, expected, found)

	pages, _ := pagedKV([]int64{5, 1, 7})
	requireNil(t, attention.KVAppend(pages, rows.Key, rows.Value,
		&attention.KVAppendOptions{Starts: rows.Starts}))
	found, err = attendedIn(pages)
	requireNil(t, err)
	requireEqual(t, expected, found)

	pages.PageTable = attention.NewView([]int32{3, 1 /**/, 5 /**/, 0, 2}, 5)
	pages.PageStarts = attention.NewView([]int64{0, 2, 3, 5}, numSequences+1)
	found, err = attendedIn(pages)
	requireNil(t, err)
	requireEqual(t, expected, found)
}

func TestPositionsSayWhereRowsGo(t *testing.T) {
	rows := numbers(numSequences * numHeads * headDim)
	view := attention.NewView(rows, numSequences, numHeads, 1, headDim)
	pages, keys := pagedKV(nil)
	requireNil(t, attention.KVAppend(pages, view, view, &attention.KVAppendOptions{
		Positions: attention.NewView([]int32{2, -1, 6}, numSequences, 1)}))
	expected := make([]float32, len(keys))
	for _, place := range []struct{ sequence, page, row int }{{0, 3, 2}, {2, 2, 2}} {
		for h := 0; h < numHeads; h++ {
			from := (place.sequence*numHeads + h) * headDim
			copy(expected[((place.page*numHeads+h)*4+place.row)*headDim:], rows[from:from+headDim])
		}
	}
	requireEqual(t, expected, keys)
}

func TestOutputsAndReportsAreThoseOfThePlaces(t *testing.T) {
	query := ragged(numbers(numHeads*numQueries*headDim), numQueries)
	options := &attention.SDPAOptions{KV: raggedKV(),
		QueryStarts: attention.NewView(queryStarts, numSequences+1)}
	shapes, err := attention.DescribeOutputs(query, nil, nil, options)
	requireNil(t, err)
	requireEqual(t, []int{numHeads, numQueries, numKeys}, shapes.Weights)
	output, _ := room(shapes.Output)
	report, err := attention.Explain(query, nil, nil, output, options)
	requireNil(t, err)
	requireEqual(t, attention.EngineFused, report.Engine)
}

func TestWhatIsNoPlaceIsTold(t *testing.T) {
	kv := raggedKV()
	kv.Starts = attention.NewView([]int64{0, 5, 6, 14}, numSequences+1)
	_, err := attendedIn(kv)
	requireError(t, err, attention.ErrValue,
		"kv.starts: expected 6 (the element before it) to 13, got 14 at element 3")
	kv.Starts = attention.NewView([]int64{0}, 2)
	_, err = attendedIn(kv)
	requireError(t, err, attention.ErrShape, "kv.starts: expected the 2 elements of shape [2], got 1")
	_, err = attendedIn(&attention.KV{})
	requireError(t, err, attention.ErrNull, "kv.key: expected a tensor, got NULL")
	view := ragged(numbers(numHeads*numKeys*headDim), numKeys)
	requireError(t, attention.KVAppend(nil, view, view, nil), attention.ErrNull,
		"kv: expected where keys and values lie, got NULL")
	_, err = forward(newLayer(t), &attention.ForwardOptions{
		Attention: attention.SDPAOptions{KV: raggedKV()}})
	requireError(t, err, attention.ErrValue, "attention.kv: expected NULL in a layer, which "+
		"has cache for it")
}

func TestIntegersInACacheMeanNumbers(t *testing.T) {
	keys, values := make([]int8, 4*2), make([]uint8, 4*2)
	scales, valueScales, valueZeros := make([]float32, 4), make([]float32, 4), make([]float32, 4)
	kv := &attention.KV{
		Key:        attention.NewView(keys, 1, 1, 4, 2),
		Value:      attention.NewView(values, 1, 1, 4, 2),
		Lengths:    attention.NewView([]int64{1}, 1),
		KeyScale:   attention.NewView(scales, 1, 1, 4, 1),
		ValueScale: attention.NewView(valueScales, 1, 1, 4, 1),
		ValueZero:  attention.NewView(valueZeros, 1, 1, 4, 1),
	}
	row := attention.NewView([]float32{-127, 128}, 1, 1, 1, 2)
	requireNil(t, attention.KVAppend(kv, row, row, nil))
	requireEqual(t, []float32{1, 0, 0, 0}, valueScales)
	requireEqual(t, []float32{127, 0, 0, 0}, valueZeros)
	requireEqual(t, []uint8{0, 255}, values[:2])
	requireEqual(t, []int8{-126, 127}, keys[:2])
	output := make([]float32, 2)
	requireNil(t, attention.SDPA(row, nil, nil, attention.NewView(output, 1, 1, 1, 2),
		&attention.SDPAOptions{KV: kv}))
	requireEqual(t, []float32{-127, 128}, output)
	kv.Key = attention.NewView(make([]float32, 4*2), 1, 1, 4, 2)
	requireError(t, attention.KVAppend(kv, row, row, nil), attention.ErrValue,
		"kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled")
}
