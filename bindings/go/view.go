// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import (
	"errors"
	"unsafe"
)

// Element is what views are made of.
type Element interface {
	float32 | float64 | BF16 | F16 | bool | int64 | int32 | int8 | uint8
}

// A Dtype is the element type of a view or a layer.
type Dtype int32

const (
	Float32  Dtype = C.ATTN_DTYPE_FLOAT32
	Float64  Dtype = C.ATTN_DTYPE_FLOAT64
	BFloat16 Dtype = C.ATTN_DTYPE_BFLOAT16 // of BF16
	Float16  Dtype = C.ATTN_DTYPE_FLOAT16  // of F16
	Bool     Dtype = C.ATTN_DTYPE_BOOL
	Int64    Dtype = C.ATTN_DTYPE_INT64
	Int32    Dtype = C.ATTN_DTYPE_INT32
	Int8     Dtype = C.ATTN_DTYPE_INT8  // keys and values of a KV with scales
	Uint8    Dtype = C.ATTN_DTYPE_UINT8 // likewise
)

// A View is a slice with a shape and strides. Nothing is copied: who changes the slice changes what
// the view shows. A view that could not be made is no nil: the call that gets it fails and says
// why, naming the argument; Err says so at once.
type View struct {
	data   unsafe.Pointer // element (0, ..., 0)
	layout C.attn_tensor  // its data stays NULL; see flat.h
	err    error
}

// NewView views all of data in C order: the last axis is the fastest.
func NewView[T Element](data []T, shape ...int) *View {
	view := &View{}
	lengths := int64s(shape)
	view.err = call(func() C.attn_status {
		return C.attn_tensor_init(&view.layout, nil, dtypeOf[T](), C.int32_t(len(shape)),
			first(lengths))
	})
	if view.err != nil {
		return view
	}
	if count := view.count(); count != len(data) {
		view.err = failure(ErrShape, "expected the %d elements of shape %v, got %d", count, shape,
			len(data))
		return view
	}
	if len(data) > 0 {
		view.data = unsafe.Pointer(&data[0])
	}
	return view
}

// NewStridedView views any layout: offset is the place of element (0, ..., 0) in data, and strides
// count elements; they may be zero or negative. What the view reaches must lie in data.
func NewStridedView[T Element](data []T, offset int, shape, strides []int) *View {
	if len(shape) != len(strides) {
		return &View{err: failure(ErrValue, "expected a stride for each axis, got shape %v and "+
			"strides %v", shape, strides)}
	}
	view := &View{}
	lengths, steps := int64s(shape), int64s(strides)
	view.err = call(func() C.attn_status {
		return C.attn_tensor_init_strided(&view.layout, nil, dtypeOf[T](), C.int32_t(len(shape)),
			first(lengths), first(steps))
	})
	if view.err != nil || view.count() == 0 {
		return view
	}
	if !reachesInside(len(data), offset, shape, strides) {
		view.err = failure(ErrShape, "shape %v with strides %v from element %d on leaves its slice "+
			"of %d elements", shape, strides, offset, len(data))
		return view
	}
	view.data = unsafe.Pointer(&data[offset])
	return view
}

// Err tells why the view could not be made.
func (view *View) Err() error { return view.err }

// Shape is the length of each axis.
func (view *View) Shape() []int { return shapeOf(&view.layout) }

// Strides are the elements from one index of each axis to the next.
func (view *View) Strides() []int { return ints(view.layout.strides[:view.layout.rank]) }

// Transpose swaps two axes; negative ones count from the end.
func (view *View) Transpose(axisA, axisB int) *View {
	return view.derive(func(layout *C.attn_tensor) C.attn_status {
		return C.attn_tensor_transpose(layout, C.int32_t(axisA), C.int32_t(axisB), layout)
	})
}

// Select keeps position index of an axis, which may be negative as in Transpose, and drops the axis.
func (view *View) Select(axis, index int) *View {
	made := view.derive(func(layout *C.attn_tensor) C.attn_status {
		return C.attn_tensor_select(layout, C.int32_t(axis), C.int64_t(index), layout)
	})
	if made.err == nil && made.data != nil && made.count() > 0 {
		if axis < 0 {
			axis += len(view.Shape())
		}
		elementSize := int(C.attn_dtype_size_bytes(view.layout.dtype))
		made.data = unsafe.Add(view.data, index*view.Strides()[axis]*elementSize)
	}
	return made
}

// SplitHeads makes (..., numHeads, L, headDim) of (..., L, numHeads * headDim).
func (view *View) SplitHeads(numHeads int) *View {
	return view.derive(func(layout *C.attn_tensor) C.attn_status {
		return C.attn_tensor_split_heads(layout, C.int64_t(numHeads), layout)
	})
}

// MergeHeads makes (..., L, numHeads * headDim) of (..., numHeads, L, headDim), if the heads lie
// headDim features apart.
func (view *View) MergeHeads() *View {
	return view.derive(func(layout *C.attn_tensor) C.attn_status {
		return C.attn_tensor_merge_heads(layout, layout)
	})
}

// derive makes another view of the same elements, by a function that leaves the first one first.
func (view *View) derive(rearrange func(layout *C.attn_tensor) C.attn_status) *View {
	if view.err != nil {
		return view
	}
	layout := view.layout // alone: beside it there is a Go pointer
	err := call(func() C.attn_status { return rearrange(&layout) })
	return &View{view.data, layout, err}
}

// check names the argument in the reason for which its view could not be made.
func (view *View) check(name string) error {
	if view == nil || view.err == nil && view.layout.dtype != C.ATTN_DTYPE_INVALID {
		return nil
	}
	var reason *Error
	if !errors.As(view.err, &reason) {
		return failure(ErrValue, "%s: expected a view made by NewView", name)
	}
	return failure(reason.Code, "%s: %s", name, reason.Message)
}

func (view *View) count() int {
	count := 1
	for _, length := range view.Shape() {
		count *= length
	}
	return count
}

// reachesInside tells whether all elements of a view, of which there are some, lie in its slice.
func reachesInside(count, offset int, shape, strides []int) bool {
	if offset < 0 || offset >= count {
		return false
	}
	lowest, highest := offset, offset
	for axis, stride := range strides {
		steps := shape[axis] - 1
		if steps > 0 && (stride > count/steps || stride < -(count/steps)) {
			return false // and would overflow below
		}
		if stride < 0 {
			lowest += steps * stride
		} else {
			highest += steps * stride
		}
	}
	return lowest >= 0 && highest < count
}

func dtypeOf[T Element]() C.int32_t {
	var element T
	switch any(element).(type) {
	case float32:
		return C.ATTN_DTYPE_FLOAT32
	case float64:
		return C.ATTN_DTYPE_FLOAT64
	case BF16:
		return C.ATTN_DTYPE_BFLOAT16
	case F16:
		return C.ATTN_DTYPE_FLOAT16
	case bool:
		return C.ATTN_DTYPE_BOOL
	case int64:
		return C.ATTN_DTYPE_INT64
	case int8:
		return C.ATTN_DTYPE_INT8
	case uint8:
		return C.ATTN_DTYPE_UINT8
	default:
		return C.ATTN_DTYPE_INT32
	}
}

func int64s(numbers []int) []C.int64_t {
	converted := make([]C.int64_t, len(numbers))
	for i, number := range numbers {
		converted[i] = C.int64_t(number)
	}
	return converted
}

func ints(numbers []C.int64_t) []int {
	converted := make([]int, len(numbers))
	for i, number := range numbers {
		converted[i] = int(number)
	}
	return converted
}

func shapeOf(layout *C.attn_tensor) []int { return ints(layout.shape[:layout.rank]) }

func first(numbers []C.int64_t) *C.int64_t {
	if len(numbers) == 0 {
		return nil
	}
	return &numbers[0]
}
