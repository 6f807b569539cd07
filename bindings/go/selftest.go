// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import "runtime/cgo"

// A visitor is what attention_tell finds behind a handle.
type visitor struct {
	visit    func(check string, err error)
	panicked any
}

// Selftest computes what has a known result, under a context or, if it is nil, the default one, and
// compares. visit, which may be nil, is told of each check. The error is that of the first check
// that found something wrong.
func Selftest(context *Context, visit func(check string, err error)) error {
	pointer, err := context.pointer()
	if err != nil {
		return err
	}
	told := &visitor{visit: visit}
	handle := cgo.NewHandle(told)
	defer handle.Delete()
	err = call(func() C.attn_status { return C.flat_selftest(pointer, C.uintptr_t(handle)) })
	if told.panicked != nil {
		panic(told.panicked)
	}
	return err
}

// attention_tell tells the visitor; a panic of its waits until the library has returned.
//
//export attention_tell
func attention_tell(handle C.uintptr_t, check *C.char, status C.attn_status, detail *C.char) {
	told := cgo.Handle(handle).Value().(*visitor)
	if told.visit == nil || told.panicked != nil {
		return
	}
	defer func() { told.panicked = recover() }()
	var err error
	if status != C.ATTN_OK {
		err = &Error{Code(status), C.GoString(detail)}
	}
	told.visit(C.GoString(check), err)
}
