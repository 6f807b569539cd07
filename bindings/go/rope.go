// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// RopeOptions are the options of Rope. The zero value rotates all features, in pairs of halves, with
// base 10000 and positions 0, 1, ...
type RopeOptions struct {
	Context     *Context // nil: the process's default one
	RotaryDim   int      // the first R features are rotated, the others copied; 0: all
	Base        float64  // pair i turns by Base^(-2 i / R) for each position; 0: 10000
	Magnitude   float64  // of cosines and sines; 0: 1
	Interleaved bool     // pairs are features (2 i, 2 i + 1), not halves
	Inverse     bool     // by the negative angle

	Frequencies *View // (R / 2): the turn of each pair, instead of Base

	// Instead of Base and Frequencies: (P, R / 2) beside Positions or Lengths, else broadcastable to
	// (batch axes, L, R / 2).
	Cos, Sin *View

	// Of int64 or int32.
	Positions *View // broadcastable to (batch axes, L)
	Lengths   *View // over the batch axes: rows, those of input the last; instead of Positions
}

var ropeNames = []string{"input", "output", "frequencies", "cos", "sin", "positions", "lengths"}

// Rope rotates the features of input (batch axes, H, L, E) by the positions of its rows, into output of
// the same shape, of input's type or float32 (float64 beside float64). output may be input. options
// may be nil.
func Rope(input, output *View, options *RopeOptions) error {
	if options == nil {
		options = &RopeOptions{}
	}
	layouts, err := layoutsOf([]*View{input, output, options.Frequencies, options.Cos, options.Sin,
		options.Positions, options.Lengths}, ropeNames)
	if err != nil {
		return err
	}
	params := options.numbers()
	return use(options.Context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.flat_rope(context, &params, &layouts[0], dataOf(input), dataOf(output),
			dataOf(options.Frequencies), dataOf(options.Cos), dataOf(options.Sin),
			dataOf(options.Positions), dataOf(options.Lengths))
	})
}

// numbers are the options but for their tensors.
func (options *RopeOptions) numbers() C.attn_rope_params {
	return C.attn_rope_params{
		struct_size: C.sizeof_attn_rope_params,
		rotary_dim:  C.int64_t(options.RotaryDim),
		base:        C.double(options.Base),
		magnitude:   C.double(options.Magnitude),
		interleaved: flag(options.Interleaved),
		inverse:     flag(options.Inverse),
	}
}

// addTo makes a layer's call rotate what it projects; nil: not.
func (options *RopeOptions) addTo(views *operands, request *C.flat_call) {
	if options == nil {
		return
	}
	request.has_rope = 1
	request.rope = options.numbers()
	views[C.FLAT_ROPE_FREQUENCIES] = options.Frequencies
	views[C.FLAT_ROPE_COS] = options.Cos
	views[C.FLAT_ROPE_SIN] = options.Sin
	views[C.FLAT_ROPE_POSITIONS] = options.Positions
	views[C.FLAT_ROPE_LENGTHS] = options.Lengths
}
