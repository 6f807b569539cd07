// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// A Normalizer turns scores into weights.
type Normalizer int32

const (
	Softmax Normalizer = C.ATTN_NORMALIZER_SOFTMAX // exp(score - lse)
	Sigmoid Normalizer = C.ATTN_NORMALIZER_SIGMOID // 1 / (1 + exp(-score))
	Linear  Normalizer = C.ATTN_NORMALIZER_LINEAR  // the score itself
)

// A ScoreStage says which scores a call tells. In each a key past its sequence's length is not read.
type ScoreStage int32

const (
	ScoresScaled ScoreStage = C.ATTN_SCORE_SCALED // Scale * (q . k) of every row and key
	ScoresCapped ScoreStage = C.ATTN_SCORE_CAPPED // the same after Softcap
	ScoresMasked ScoreStage = C.ATTN_SCORE_MASKED // with biases, and -inf where a row sees no key
)

// Elements of SDPAOptions.BlockMask.
const (
	BlockHidden  uint8 = C.ATTN_BLOCK_HIDDEN  // its queries do not see its keys, which are not read
	BlockVisible uint8 = C.ATTN_BLOCK_VISIBLE // they do, whatever Mask says
	BlockMasked  uint8 = C.ATTN_BLOCK_MASKED  // they do where Mask says so
)

// Dropout says which weights are dropped: each is multiplied by 0 with Probability, else by 1 / (1 -
// Probability). Which ones depends on these numbers and on a weight's place alone.
type Dropout struct {
	Probability  float64 // 0 to below 1
	Seed, Offset uint64

	// Added to the numbers of a weight's place: a part of a larger problem drops what the whole would.
	Batch, Head, Row, Column int64
}

// A Window is how many keys a query sees before and after its own position; -1: all of them.
type Window struct {
	Left, Right int64
}

// SDPAOptions are the options of an attention call; they all compose. The zero value is PyTorch's
// call without options.
type SDPAOptions struct {
	Context    *Context   // nil: the layer's, or the process's default one
	IsCausal   bool       // query i sees keys j <= i + QueryOffset
	AlignEnd   bool       // the last query stands at the last key; without QueryOffset
	Scale      *float64   // multiplies q . k; nil: 1 / sqrt(E)
	Softcap    float64    // scores become Softcap * tanh(score / Softcap); 0: they stay
	Window     *Window    // nil: unlimited
	EnableGQA  bool       // query heads share the fewer heads of key and value
	Normalizer Normalizer // what turns scores into weights
	Mask       Mask       // broadcastable to (batch axes, Hq, L, S)
	Bias       *View      // likewise: floats added to the scores, beside any mask

	// Of int64 or int32, broadcastable to the batch axes.
	QueryOffset *View // position of query 0 among the keys
	KeyLengths  *View // keys at or past it do not exist
	MaskStart   *View // key that Mask's first column belongs to; those behind its last are hidden

	PositionBias *View // (Hq or 1, 2 R + 1): floats added by distance, at most R and at least -R

	// Of uint8, broadcastable to (batch axes, Hq, rows of blocks, columns of blocks): what a block of
	// BlockRows queries and BlockColumns keys is, BlockHidden, BlockVisible or BlockMasked.
	BlockMask               *View
	BlockRows, BlockColumns int64

	Dropout *Dropout // nil: none, as in evaluation

	ALiBiSlopes *View // (Hq) or (1): a score loses slope * distance
	Sinks       *View // (Hq) or (1): one more logit in softmax's denominator

	// Keys and values in a cache, ragged or in pages; the arguments key and value, and KeyLengths, are
	// nil then. Not in a layer.
	KV *KV

	// Of int64 or int32, (B + 1): query is (Hq, total, E), and sequence b has the rows from
	// QueryStarts[b] on; output, LSE, Weights and the rows of masks lie likewise. Not in a layer.
	QueryStarts *View

	LSE     *View // out: logarithm of each row's sum of exponentials, (batch axes, Hq, L)
	Weights *View // out: (batch axes, Hq, L, S), or their mean over heads, (batch axes, L, S)

	Scores      *View // out: (batch axes, Hq, L, S)
	ScoresStage ScoreStage
}

// SDPA is scaled dot-product attention: output = normalise(scale * query * key^T, bias, mask) *
// value.
//
// Shapes: query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L,
// Ev), of ranks 2 to 8, any strides. All of float64; or query, key and value each of float32, BF16
// or F16, output and weights of query's type or float32, LSE of float32. options may be nil.
func SDPA(query, key, value, output *View, options *SDPAOptions) error {
	views, request := options.operands(query, key, value, output)
	return views.run(options.context(), nil, request)
}

// DescribeOutputs tells the shapes of SDPA's outputs. LSE and Weights of the options do not matter.
func DescribeOutputs(query, key, value *View, options *SDPAOptions) (*OutputShapes, error) {
	views, request := options.operands(query, key, value, nil)
	return views.describeOutputs(nil, request)
}

// Explain tells what SDPA would run for the same arguments, and why.
func Explain(query, key, value, output *View, options *SDPAOptions) (*SDPAReport, error) {
	views, request := options.operands(query, key, value, output)
	report, err := views.explain(options.context(), nil, request)
	if err != nil {
		return nil, err
	}
	return &report.Attention, nil
}

// operands are the tensors of a call, and the call without them.
func (options *SDPAOptions) operands(query, key, value, output *View) (operands, C.flat_call) {
	if options == nil {
		options = &SDPAOptions{}
	}
	views := operands{
		C.FLAT_QUERY:         query,
		C.FLAT_KEY:           key,
		C.FLAT_VALUE:         value,
		C.FLAT_OUTPUT:        output,
		C.FLAT_MASK:          options.Mask.view,
		C.FLAT_BIAS:          options.Bias,
		C.FLAT_QUERY_OFFSET:  options.QueryOffset,
		C.FLAT_KEY_LENGTHS:   options.KeyLengths,
		C.FLAT_ALIBI_SLOPES:  options.ALiBiSlopes,
		C.FLAT_SINKS:         options.Sinks,
		C.FLAT_LSE:           options.LSE,
		C.FLAT_WEIGHTS:       options.Weights,
		C.FLAT_SCORES:        options.Scores,
		C.FLAT_QUERY_STARTS:  options.QueryStarts,
		C.FLAT_MASK_START:    options.MaskStart,
		C.FLAT_POSITION_BIAS: options.PositionBias,
		C.FLAT_BLOCK_MASK:    options.BlockMask,
	}
	request := C.flat_call{attention: options.params()}
	options.Dropout.addTo(&request)
	options.KV.addTo(&views, &request)
	return views, request
}

func (options *SDPAOptions) context() *Context {
	if options == nil {
		return nil
	}
	return options.Context
}

// params are the options without their tensors.
func (options *SDPAOptions) params() C.attn_sdpa_params {
	params := C.attn_sdpa_params{
		struct_size:   C.sizeof_attn_sdpa_params,
		block_rows:    C.int64_t(options.BlockRows),
		block_columns: C.int64_t(options.BlockColumns),
		softcap:       C.double(options.Softcap),
		is_causal:     flag(options.IsCausal),
		align_end:     flag(options.AlignEnd),
		enable_gqa:    flag(options.EnableGQA),
		normalizer:    C.int32_t(options.Normalizer),
		mask_kind:     options.Mask.kind,
		scores_stage:  C.int32_t(options.ScoresStage),
	}
	if options.Scale != nil {
		params.set |= C.ATTN_SDPA_SET_SCALE
		params.scale = C.double(*options.Scale)
	}
	if options.Window != nil {
		params.set |= C.ATTN_SDPA_SET_WINDOW
		params.window_left = C.int64_t(options.Window.Left)
		params.window_right = C.int64_t(options.Window.Right)
	}
	return params
}

func (dropout *Dropout) addTo(request *C.flat_call) {
	if dropout == nil {
		return
	}
	request.has_dropout = 1
	request.dropout = C.attn_dropout{
		struct_size: C.sizeof_attn_dropout,
		probability: C.double(dropout.Probability),
		seed:        C.uint64_t(dropout.Seed),
		offset:      C.uint64_t(dropout.Offset),
		batch:       C.int64_t(dropout.Batch),
		head:        C.int64_t(dropout.Head),
		row:         C.int64_t(dropout.Row),
		column:      C.int64_t(dropout.Column),
	}
}

func flag(isSet bool) C.int32_t {
	if isSet {
		return 1
	}
	return 0
}
