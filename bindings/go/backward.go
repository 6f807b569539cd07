// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// Gradients are those that SDPABackward is given and those that it computes. A gradient has the shape of
// what it is of, and its type or float32; float64 goes with float64. Where an input repeats it is the sum.
type Gradients struct {
	Accumulate bool // what is wanted is added to what is there

	Output  *View // given
	LSE     *View // given, or nil; softmax only
	Weights *View // given, or nil: of those that the call returned

	// Out, or nil: not wanted. Of keys and values in SDPAOptions.KV they lie as those do.
	Query, Key, Value *View

	// Likewise, of the options of that name, which must be set; a mask is additive.
	Mask, Bias, PositionBias, ALiBiSlopes, Sinks *View
}

// SDPABackward computes the gradients of a call of SDPA with the same arguments: output, and options.LSE
// for softmax, are what that wrote. options.Weights and options.Scores do not matter.
func SDPABackward(query, key, value, output *View, gradients *Gradients, options *SDPAOptions) error {
	views, request := options.operands(query, key, value, output)
	gradients.addTo(&views, &request)
	return views.run(options.context(), nil, request)
}

// ExplainBackward tells what SDPABackward would run for the same arguments, and why.
func ExplainBackward(query, key, value, output *View, gradients *Gradients, options *SDPAOptions) (*BackwardReport, error) {
	views, request := options.operands(query, key, value, output)
	gradients.addTo(&views, &request)
	layouts, err := views.layouts()
	if err != nil {
		return nil, err
	}
	c := C.attn_sdpa_backward_report{struct_size: C.sizeof_attn_sdpa_backward_report}
	err = use(options.context(), nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		request.context = context
		return C.flat_explain_backward(&request, &layouts[0], &c)
	})
	if err != nil {
		return nil, err
	}
	return &BackwardReport{
		WholeHeads:     c.whole_heads != 0,
		Staged:         int(c.staged),
		NumItems:       int64(c.num_items),
		RowBlock:       int64(c.row_block),
		KeyBlock:       int64(c.key_block),
		WorkspaceBytes: uint64(c.workspace_bytes),
		Kernels:        C.GoString(c.kernels),
		Reason:         C.GoString(c.reason),
	}, nil
}

// addTo makes a call one that goes back; nil: none is given.
func (gradients *Gradients) addTo(views *operands, request *C.flat_call) {
	if gradients == nil {
		gradients = &Gradients{}
	}
	views[C.FLAT_GRADIENT_OUTPUT] = gradients.Output
	views[C.FLAT_GRADIENT_LSE] = gradients.LSE
	views[C.FLAT_GRADIENT_WEIGHTS] = gradients.Weights
	views[C.FLAT_GRADIENT_QUERY] = gradients.Query
	views[C.FLAT_GRADIENT_KEY] = gradients.Key
	views[C.FLAT_GRADIENT_VALUE] = gradients.Value
	views[C.FLAT_GRADIENT_MASK] = gradients.Mask
	views[C.FLAT_GRADIENT_BIAS] = gradients.Bias
	views[C.FLAT_GRADIENT_POSITION_BIAS] = gradients.PositionBias
	views[C.FLAT_GRADIENT_ALIBI_SLOPES] = gradients.ALiBiSlopes
	views[C.FLAT_GRADIENT_SINKS] = gradients.Sinks
	request.goes_back, request.accumulates = 1, flag(gradients.Accumulate)
}
