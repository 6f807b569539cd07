// SPDX-License-Identifier: BSD-3-Clause

package attention_test

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"attention"
)

const (
	sharedDim  = 256
	sharedRows = 32
	callers    = 3
	loads      = 150
)

func scaledIdentity(factor float32) *attention.View {
	weight := make([]float32, sharedDim*sharedDim)
	for i := 0; i < sharedDim; i++ {
		weight[i*sharedDim+i] = factor
	}
	return attention.NewView(weight, sharedDim, sharedDim)
}

func newSharedLayer(t *testing.T) *attention.MultiheadAttention {
	t.Helper()
	layer, err := attention.NewMultiheadAttention(attention.MultiheadConfig{
		EmbedDim: sharedDim, NumHeads: 4, NoBias: true})
	requireNil(t, err)
	t.Cleanup(layer.Close)
	requireNil(t, layer.InitParameters(1))
	requireNil(t, layer.LoadParameter("out_proj.weight", scaledIdentity(1)))
	return layer
}

func forwardShared(layer *attention.MultiheadAttention, context *attention.Context) ([]float32, error) {
	tokens := make([]float32, sharedRows*sharedDim)
	for i := range tokens {
		tokens[i] = 0.5
	}
	view := attention.NewView(tokens, sharedRows, sharedDim)
	output := make([]float32, len(tokens))
	err := layer.Forward(view, view, view, attention.NewView(output, sharedRows, sharedDim),
		&attention.ForwardOptions{Attention: attention.SDPAOptions{Context: context}})
	return output, err
}

// whileCalling has other goroutines make calls until change has returned.
func whileCalling(call func(), change func()) {
	var group sync.WaitGroup
	var isOver int32
	for i := 0; i < callers; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for atomic.LoadInt32(&isOver) == 0 {
				call()
			}
		}()
	}
	defer func() {
		atomic.StoreInt32(&isOver, 1)
		group.Wait()
	}()
	change()
}

// isTimes tells whether all numbers are those expected, times the factor.
func isTimes(found, expected []float32, factor float32) bool {
	for i, element := range found {
		if element != factor*expected[i] {
			return false
		}
	}
	return true
}

func TestCallSeesAParameterAsBeforeOrAfterALoad(t *testing.T) {
	layer := newSharedLayer(t)
	context := newContext(t, attention.ContextConfig{NumThreads: 2})
	once, err := forwardShared(layer, context)
	requireNil(t, err)
	whileCalling(func() {
		output, err := forwardShared(layer, context)
		if err != nil || !isTimes(output, once, 1) && !isTimes(output, once, 2) {
			t.Errorf("expected numbers of one of two parameters, got others, %v", err)
		}
	}, func() {
		for load := 0; load < loads; load++ {
			requireNil(t, layer.LoadParameter("out_proj.weight", scaledIdentity(float32(load%2+1))))
		}
	})
	whileCalling(func() {
		if _, err := forwardShared(layer, nil); err != nil {
			t.Error(err)
		}
	}, func() {
		for seed := uint64(0); seed < loads/10; seed++ {
			requireNil(t, layer.InitParameters(seed))
		}
	})
}

func TestClosingWaitsForCalls(t *testing.T) {
	for i := 0; i < 30; i++ {
		layer := newSharedLayer(t)
		context := newContext(t, attention.ContextConfig{NumThreads: 2})
		expected, err := forwardShared(layer, context)
		requireNil(t, err)
		name, closeOne := "context", context.Close
		if i%2 == 0 {
			name, closeOne = "layer", layer.Close
		}
		whileCalling(func() {
			output, err := forwardShared(layer, context)
			refused := errors.Is(err, attention.ErrValue) && strings.HasPrefix(err.Error(), name+": expected an open one")
			if !refused && (err != nil || !isTimes(output, expected, 1)) {
				t.Errorf("expected the same numbers or a closed %s, got %v", name, err)
			}
		}, closeOne)
	}
}

func TestVisitorOfTheSelftestMayCloseItsContext(t *testing.T) {
	context := newContext(t, attention.ContextConfig{})
	requireNil(t, attention.Selftest(context, func(string, error) { context.Close() }))
	requireError(t, attention.Selftest(context, nil), attention.ErrValue,
		"context: expected an open one, got one that is closed")
}

// poison is written to what the collector freed, if it did.
func poison(fresh []float32) {
	for i := range fresh {
		fresh[i] = float32(math.NaN())
	}
}

// The slices behind views that only the call knows are there until it has returned.
func TestCollectorLeavesWhatACallUses(t *testing.T) {
	layer := newSharedLayer(t)
	expected, err := forwardShared(layer, nil)
	requireNil(t, err)
	whileCalling(func() {
		runtime.GC()
		for i := 0; i < 64; i++ {
			poison(make([]float32, sharedRows*sharedDim))
		}
	}, func() {
		for i := 0; i < 100; i++ {
			output, err := forwardShared(layer, nil)
			if err != nil || !isTimes(output, expected, 1) {
				t.Fatalf("numbers changed while the collector ran, %v", err)
			}
		}
	})
}
