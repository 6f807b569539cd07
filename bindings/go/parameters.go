// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include <stdlib.h>
// #include "flat.h"
import "C"

import (
	"strings"
	"unsafe"
)

// A Parameter is what a layer has: a name of PyTorch's state_dict, and its shape.
type Parameter struct {
	Name  string
	Shape []int
}

// Parameters are those of the layer, in PyTorch's order.
func (layer *MultiheadAttention) Parameters() ([]Parameter, error) {
	var count C.int64_t
	err := use(nil, layer, shared, func(_ *C.attn_context, layer *C.attn_mha) C.attn_status {
		return C.attn_mha_parameter_count(layer, &count)
	})
	parameters := make([]Parameter, int(count))
	for i := 0; i < len(parameters) && err == nil; i++ {
		var name *C.char
		var shape C.attn_tensor
		err = use(nil, layer, shared, func(_ *C.attn_context, layer *C.attn_mha) C.attn_status {
			return C.attn_mha_parameter_describe(layer, C.int64_t(i), &name, &shape)
		})
		parameters[i] = Parameter{C.GoString(name), shapeOf(&shape)}
	}
	return parameters, err
}

// LoadParameter copies a parameter into the layer, by its name in PyTorch's state_dict; other
// floats are converted to the layer's ParameterDtype.
func (layer *MultiheadAttention) LoadParameter(name string, values *View) error {
	return layer.move(alone, name, values, func(context *C.attn_context, layer *C.attn_mha, name *C.char) C.attn_status {
		return C.flat_mha_load_parameter(context, layer, name, &values.layout,
			(*C.flat_data)(values.data))
	})
}

// ReadParameter copies a parameter out of the layer into values, of its shape and the layer's
// ParameterDtype; weights that are kept as Int8 as the float32 that they mean, or as they are.
func (layer *MultiheadAttention) ReadParameter(name string, values *View) error {
	return layer.move(shared, name, values, func(context *C.attn_context, layer *C.attn_mha, name *C.char) C.attn_status {
		return C.flat_mha_read_parameter(context, layer, name, &values.layout,
			(*C.flat_data)(values.data))
	})
}

// InitParameters gives every parameter fresh random values, distributed as PyTorch's constructor
// does.
func (layer *MultiheadAttention) InitParameters(seed uint64) error {
	params := C.attn_mha_init_params{
		struct_size: C.sizeof_attn_mha_init_params,
		seed:        C.uint64_t(seed),
	}
	return use(layer.context, layer, alone, func(context *C.attn_context, layer *C.attn_mha) C.attn_status {
		return C.attn_mha_init_parameters(context, layer, &params)
	})
}

// move checks what both ways have and copies.
func (layer *MultiheadAttention) move(hold access, name string, values *View,
	transfer func(*C.attn_context, *C.attn_mha, *C.char) C.attn_status) error {
	if strings.ContainsRune(name, 0) {
		return failure(ErrParameter, "name: expected no NUL, got %q", name)
	}
	if values == nil {
		return failure(ErrNull, "%s: expected a tensor, got NULL", name)
	}
	if err := values.check(name); err != nil {
		return err
	}
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	return use(layer.context, layer, hold, func(context *C.attn_context, layer *C.attn_mha) C.attn_status {
		return transfer(context, layer, cName)
	})
}
