// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// RMSNormOptions are the options of RMSNorm. The zero value is PyTorch's without parameters.
type RMSNormOptions struct {
	Context      *Context // nil: the process's default one
	Weight       *View    // broadcastable to input's shape, mostly (E); nil: 1
	Epsilon      float64  // added to the mean of the squares; 0: PyTorch's default
	WeightOffset float64  // added to Weight: 1 where a model stores weight - 1
}

// RMSNorm divides each row of input (..., E) by the root of the mean of its squares, into output of the
// same shape, of input's type or float32 (float64 beside float64). output may be input. options may
// be nil.
func RMSNorm(input, output *View, options *RMSNormOptions) error {
	if options == nil {
		options = &RMSNormOptions{}
	}
	layouts, err := layoutsOf([]*View{input, output, options.Weight},
		[]string{"input", "output", "weight"})
	if err != nil {
		return err
	}
	params := C.attn_rms_norm_params{
		struct_size:   C.sizeof_attn_rms_norm_params,
		epsilon:       C.double(options.Epsilon),
		weight_offset: C.double(options.WeightOffset),
	}
	return use(options.Context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.flat_rms_norm(context, &params, &layouts[0], dataOf(input), dataOf(output),
			dataOf(options.Weight))
	})
}
