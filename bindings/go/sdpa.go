// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// A Normalizer turns scores into weights.
type Normalizer int32

const (
	Softmax Normalizer = C.ATTN_NORMALIZER_SOFTMAX // exp(score - lse)
	Sigmoid Normalizer = C.ATTN_NORMALIZER_SIGMOID // 1 / (1 + exp(-score))
	Linear  Normalizer = C.ATTN_NORMALIZER_NONE    // the score itself
)

// A Window is how many keys a query sees before and after its own position; -1: all of them.
type Window struct {
	Left, Right int64
}

// SDPAOptions are the options of an attention call; they all compose. The zero value is PyTorch's
// call without options.
type SDPAOptions struct {
	Context    *Context   // inside a layer it is ForwardOptions' that counts
	IsCausal   bool       // query i sees keys j <= i + QueryOffset
	Scale      *float64   // multiplies q . k; nil: 1 / sqrt(E)
	Softcap    float64    // scores become Softcap * tanh(score / Softcap); 0: they stay
	Window     *Window    // nil: unlimited
	EnableGQA  bool       // query heads share the fewer heads of key and value
	Normalizer Normalizer // what turns scores into weights
	Mask       Mask       // broadcastable to (batch axes, Hq, L, S)

	QueryOffset *View // int64, broadcastable to the batch axes: position of query 0 among the keys
	KeyLengths  *View // int64, broadcastable to the batch axes: keys at or past it do not exist
	ALiBiSlopes *View // (Hq) or (1): a score loses slope * distance
	Sinks       *View // (Hq) or (1): one more logit in softmax's denominator

	LSE            *View // out: logarithm of each row's sum of exponentials, (batch axes, Hq, L)
	Weights        *View // out: (batch axes, Hq, L, S)
	AverageWeights bool  // Weights are the mean over heads, (batch axes, L, S)
}

// SDPA is scaled dot-product attention: output = normalise(scale * query * key^T, mask) * value.
//
// Shapes: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
// Ev), of ranks 2 to 8, all float32 or all float64, any strides. options may be nil.
func SDPA(query, key, value, output *View, options *SDPAOptions) error {
	if options == nil {
		options = &SDPAOptions{}
	}
	views := operands{
		C.FLAT_QUERY:   query,
		C.FLAT_KEY:     key,
		C.FLAT_VALUE:   value,
		C.FLAT_OUTPUT:  output,
		C.FLAT_MASK:    options.Mask.view,
		C.FLAT_WEIGHTS: options.Weights,
	}
	options.addViews(&views)
	return views.attend(options.Context, C.flat_call{attention: options.params()})
}

// addViews adds what attention has inside a layer too.
func (options *SDPAOptions) addViews(views *operands) {
	views[C.FLAT_QUERY_OFFSET] = options.QueryOffset
	views[C.FLAT_KEY_LENGTHS] = options.KeyLengths
	views[C.FLAT_ALIBI_SLOPES] = options.ALiBiSlopes
	views[C.FLAT_SINKS] = options.Sinks
	views[C.FLAT_LSE] = options.LSE
}

// params are the options without their tensors.
func (options *SDPAOptions) params() C.attn_sdpa_params {
	params := C.attn_sdpa_params{
		struct_size: C.sizeof_attn_sdpa_params,
		softcap:     C.double(options.Softcap),
		is_causal:   flag(options.IsCausal),
		normalizer:  C.int32_t(options.Normalizer),
		mask_kind:   options.Mask.kind,
	}
	if options.Scale != nil {
		params.flags |= C.ATTN_SDPA_SET_SCALE
		params.scale = C.double(*options.Scale)
	}
	if options.Window != nil {
		params.flags |= C.ATTN_SDPA_SET_WINDOW
		params.window_left = C.int64_t(options.Window.Left)
		params.window_right = C.int64_t(options.Window.Right)
	}
	if options.EnableGQA {
		params.flags |= C.ATTN_SDPA_ENABLE_GQA
	}
	if options.AverageWeights {
		params.flags |= C.ATTN_SDPA_AVERAGE_WEIGHTS
	}
	return params
}

func flag(isSet bool) C.int32_t {
	if isSet {
		return 1
	}
	return 0
}
