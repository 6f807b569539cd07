// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include <stdlib.h>
// #include "flat.h"
import "C"

import (
	"strings"
	"sync"
	"unsafe"
)

// An Engine is a way to compute attention.
type Engine int32

const (
	EngineAuto  Engine = C.ATTN_ENGINE_AUTO  // the library chooses
	EngineBlas  Engine = C.ATTN_ENGINE_BLAS  // scores and outputs by matrix products
	EngineFused Engine = C.ATTN_ENGINE_FUSED // tiles that never leave the cache; not float64
)

// A Gemm is who computes matrix products.
type Gemm int32

const (
	GemmAuto   Gemm = C.ATTN_GEMM_AUTO   // the faster one
	GemmBlas   Gemm = C.ATTN_GEMM_BLAS   // BLAS for all of them
	GemmNative Gemm = C.ATTN_GEMM_NATIVE // the library: the same bits with any BLAS
)

// A ContextConfig is what a Context is made of. The zero value: the machine's threads, the fastest
// kernels.
type ContextConfig struct {
	NumThreads int // 1 to 1024; 0: the CPUs this process may use
	Engine     Engine
	Gemm       Gemm
	Kernels    string // a name that the program `attn info` lists; "": the best the CPU has

	// Where query, key and value are bfloat16 and the kernels multiply pairs of them, the weights of
	// many rows are rounded to it; true keeps them float32.
	Float32Weights bool
}

// A Context is the threads, engine and kernels of calls. Those with a nil one use the process's
// default context. Any number of goroutines may use one at once.
type Context struct {
	mutex sync.RWMutex
	c     *C.attn_context // nil: closed
}

// NewContext makes a context; no thread is started yet. Close it after the last call that uses it.
func NewContext(config ContextConfig) (*Context, error) {
	if strings.ContainsRune(config.Kernels, 0) {
		return nil, failure(ErrValue, "kernels: expected no NUL, got %q", config.Kernels)
	}
	c := C.attn_context_config{
		struct_size:     C.sizeof_attn_context_config,
		num_threads:     C.int32_t(config.NumThreads),
		engine:          C.int32_t(config.Engine),
		gemm:            C.int32_t(config.Gemm),
		float32_weights: flag(config.Float32Weights),
	}
	if config.Kernels != "" {
		c.kernels = C.CString(config.Kernels)
		defer C.free(unsafe.Pointer(c.kernels))
	}
	context := &Context{}
	err := call(func() C.attn_status { return C.attn_context_create(&c, &context.c) })
	if err != nil {
		return nil, err
	}
	return context, nil
}

// Close waits for the calls that are using the context, stops its threads and frees it. Later calls
// are refused.
func (context *Context) Close() {
	context.mutex.Lock()
	defer context.mutex.Unlock()
	C.attn_context_destroy(context.c)
	context.c = nil
}

// A ContextInfo is what a context runs with.
type ContextInfo struct {
	NumThreads     int    // the calling one included
	Engine         Engine // as set
	Gemm           Gemm   // as set
	AttentionGemm  Gemm   // who computes the products of EngineBlas
	ProjectionGemm Gemm   // who computes those of a layer's projections
	BlasIsSerial   bool   // BLAS admits one caller at a time
	Kernels        string // the kernels in use
	Blas           string // what BLAS says of itself, "none" without one
}

// Info tells what a context runs with; a nil one is the default context.
func (context *Context) Info() (*ContextInfo, error) {
	info := C.attn_context_info{struct_size: C.sizeof_attn_context_info}
	err := use(context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.attn_context_describe(context, &info)
	})
	if err != nil {
		return nil, err
	}
	return &ContextInfo{
		NumThreads:     int(info.num_threads),
		Engine:         Engine(info.engine),
		Gemm:           Gemm(info.gemm),
		AttentionGemm:  Gemm(info.attention_gemm),
		ProjectionGemm: Gemm(info.projection_gemm),
		BlasIsSerial:   info.blas_is_serial != 0,
		Kernels:        C.GoString(info.kernels),
		Blas:           C.GoString(info.blas),
	}, nil
}

// Start starts the context's threads now, which the first large call would do.
func (context *Context) Start() error {
	return use(context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.attn_context_start(context)
	})
}
