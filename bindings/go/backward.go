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
	if gradients == nil {
		gradients = &Gradients{}
	}
	views, request := options.operands(query, key, value, output)
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
	return views.run(options.context(), nil, request)
}
