// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import "sync"

// An access is how a call holds a layer: with others, or alone.
type access func(mutex *sync.RWMutex) sync.Locker

func shared(mutex *sync.RWMutex) sync.Locker { return mutex.RLocker() }

func alone(mutex *sync.RWMutex) sync.Locker { return mutex }

// use makes a call of the library that gets a context, NULL for nil: the default one, and a layer,
// NULL for nil. Until it has returned neither is closed, and the layer changes only if the call holds
// it alone. The context comes first everywhere, so that no two calls wait for each other.
func use(context *Context, layer *MultiheadAttention, hold access,
	function func(context *C.attn_context, layer *C.attn_mha) C.attn_status) error {
	var cContext *C.attn_context
	var cLayer *C.attn_mha
	if context != nil {
		context.mutex.RLock()
		defer context.mutex.RUnlock()
		if cContext = context.c; cContext == nil {
			return closed("context")
		}
	}
	if layer != nil {
		lock := hold(&layer.mutex)
		lock.Lock()
		defer lock.Unlock()
		if cLayer = layer.c; cLayer == nil {
			return closed("layer")
		}
	}
	return call(func() C.attn_status { return function(cContext, cLayer) })
}

// closed is no NULL: that would be the default context.
func closed(name string) error {
	return failure(ErrValue, "%s: expected an open one, got one that is closed", name)
}
