// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import (
	"fmt"
	"runtime"
)

// A Code is the kind of a failure, as errors.Is tells it:
//
//	if errors.Is(err, attention.ErrShape) { ... }
//
// Its number is that of the C interface.
type Code int32

const (
	ErrNull        Code = C.ATTN_ERROR_NULL        // a tensor is missing
	ErrValue       Code = C.ATTN_ERROR_VALUE       // a number out of range, or a contradiction
	ErrShape       Code = C.ATTN_ERROR_SHAPE       // a rank or an axis has the wrong length
	ErrDtype       Code = C.ATTN_ERROR_DTYPE       // an element type is not the expected one
	ErrOverlap     Code = C.ATTN_ERROR_OVERLAP     // an output overlaps itself or another tensor
	ErrOverflow    Code = C.ATTN_ERROR_OVERFLOW    // sizes that do not fit the address space
	ErrParameter   Code = C.ATTN_ERROR_PARAMETER   // a layer's parameter is unknown or missing
	ErrWorkspace   Code = C.ATTN_ERROR_WORKSPACE   // the workspace is too small
	ErrMemory      Code = C.ATTN_ERROR_MEMORY      // an allocation failed
	ErrThread      Code = C.ATTN_ERROR_THREAD      // a thread could not be created
	ErrUnsupported Code = C.ATTN_ERROR_UNSUPPORTED // valid, but not in this version or build
	ErrBlas        Code = C.ATTN_ERROR_BLAS        // the BLAS found cannot be used
	ErrSelftest    Code = C.ATTN_ERROR_SELFTEST    // a wrong result in the self-test
)

// Error says what the code means in a few words.
func (code Code) Error() string {
	return C.GoString(C.attn_status_text(C.attn_status(code)))
}

// An Error is a failure of a call. Its outputs are untouched, unless the code is ErrThread.
type Error struct {
	Code Code
	// Message is one line that names the argument, what was expected and what was found.
	Message string
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the code, for errors.Is.
func (e *Error) Unwrap() error { return e.Code }

func failure(code Code, format string, values ...any) error {
	return &Error{code, fmt.Sprintf(format, values...)}
}

// call makes one call of the library. The text of a failure belongs to the thread on which it
// happened, so the goroutine stays there until it is fetched.
func call(function func() C.attn_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	code := function()
	if code == C.ATTN_OK {
		return nil
	}
	return &Error{Code(code), C.GoString(C.attn_last_error())}
}
