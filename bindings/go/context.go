// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include <stdlib.h>
// #include "flat.h"
import "C"

import (
	"strings"
	"unsafe"
)

// An Engine is a way to compute attention.
type Engine int32

const (
	EngineAuto  Engine = C.ATTN_ENGINE_AUTO  // the library chooses
	EngineBlas  Engine = C.ATTN_ENGINE_BLAS  // scores and outputs by matrix products
	EngineFused Engine = C.ATTN_ENGINE_FUSED // tiles that never leave the cache; float32 only
)

// A Gemm is who computes matrix products.
type Gemm int32

const (
	GemmDefault Gemm = C.ATTN_GEMM_DEFAULT // the faster one
	GemmBlas    Gemm = C.ATTN_GEMM_BLAS    // BLAS for all of them
	GemmNative  Gemm = C.ATTN_GEMM_NATIVE  // the library: the same bits with any BLAS
)

// ContextOptions are what a Context is made of. The zero value: the machine's threads, the fastest
// kernels.
type ContextOptions struct {
	NumThreads int // 1 to 1024; 0: the CPUs this process may use
	Engine     Engine
	Gemm       Gemm
	Kernels    string // a name that the program `attn info` lists; "": the best the CPU has
}

// A Context is the threads, engine and kernels of calls. Those with a nil one use the process's
// default context. Any number of goroutines may use one at once.
type Context struct {
	c *C.attn_context
}

// NewContext makes a context; no thread is started yet. Close it after the last call that uses it.
func NewContext(options ContextOptions) (*Context, error) {
	if strings.ContainsRune(options.Kernels, 0) {
		return nil, failure(ErrValue, "kernels: expected no NUL, got %q", options.Kernels)
	}
	params := C.attn_context_params{
		struct_size: C.sizeof_attn_context_params,
		num_threads: C.int32_t(options.NumThreads),
		engine:      C.int32_t(options.Engine),
		gemm:        C.int32_t(options.Gemm),
	}
	if options.Kernels != "" {
		params.kernels = C.CString(options.Kernels)
		defer C.free(unsafe.Pointer(params.kernels))
	}
	context := &Context{}
	err := call(func() C.attn_status { return C.attn_context_create(&params, &context.c) })
	if err != nil {
		return nil, err
	}
	return context, nil
}

// Close stops the context's threads and frees it. No call may be using it.
func (context *Context) Close() {
	C.attn_context_destroy(context.c)
	context.c = nil
}

// pointer is NULL, the default context, for nil, but not for one that is closed.
func (context *Context) pointer() (*C.attn_context, error) {
	if context == nil {
		return nil, nil
	}
	if context.c == nil {
		return nil, failure(ErrValue, "context: expected an open one, got one that is closed")
	}
	return context.c, nil
}
