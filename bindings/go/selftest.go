// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import "runtime/cgo"

// A finding is what attention_tell was told of one check.
type finding struct {
	check string
	err   error
}

// Selftest computes what has a known result, under a context or, if it is nil, the default one, and
// compares. visit, which may be nil, is told of each check when all are done. The error is that of the
// first check that found something wrong.
func Selftest(context *Context, visit func(check string, err error)) error {
	var findings []finding
	handle := cgo.NewHandle(&findings)
	defer handle.Delete()
	err := use(context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.flat_selftest(context, C.uintptr_t(handle))
	})
	for _, found := range findings {
		if visit != nil {
			visit(found.check, found.err)
		}
	}
	return err
}

// attention_tell only writes down: the caller's code may close the context, which waits for this call.
//
//export attention_tell
func attention_tell(handle C.uintptr_t, check *C.char, status C.attn_status, detail *C.char) {
	findings := cgo.Handle(handle).Value().(*[]finding)
	var err error
	if status != C.ATTN_OK {
		err = &Error{Code(status), C.GoString(detail)}
	}
	*findings = append(*findings, finding{C.GoString(check), err})
}
