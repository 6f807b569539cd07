// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

import "sync"

// A QKNorm says what is normalised of queries and keys.
type QKNorm int32

const (
	NoQKNorm       QKNorm = C.ATTN_QK_NORM_NONE
	QKNormHead     QKNorm = C.ATTN_QK_NORM_HEAD      // each head: Qwen 3, Gemma 3
	QKNormAllHeads QKNorm = C.ATTN_QK_NORM_ALL_HEADS // all heads as one row: OLMo 2
)

// A MultiheadConfig is what a layer is. With EmbedDim and NumHeads alone it is PyTorch's
// MultiheadAttention(embed_dim, num_heads).
type MultiheadConfig struct {
	EmbedDim     int
	NumHeads     int
	KDim         int   // features of key; 0: EmbedDim
	VDim         int   // features of value; 0: EmbedDim
	QDim         int   // features of query; 0: EmbedDim
	NumKVHeads   int   // key and value heads, a divisor of NumHeads; 0: NumHeads
	HeadDim      int   // features of a query or key head; 0: EmbedDim / NumHeads
	ValueHeadDim int   // features of a value head; 0: HeadDim
	Dtype        Dtype // of query, key, value and output; 0: Float32
	NoBias       bool  // there is no in_proj_bias and no out_proj.bias
	AddBiasKV    bool  // one learned key and value after the source keys
	AddZeroAttn  bool  // one key and value of zeros after those
	BatchFirst   bool  // (N, L, E) instead of (L, N, E)

	// ParameterDtype is of the parameters that the layer keeps; 0: Dtype. Beside any Dtype but Float64
	// it may be Float32, BFloat16, Float16 or, of weights, which are rounded when they are loaded, Int8.
	ParameterDtype Dtype

	// QKNorm is what RMSNorm does to projected queries and keys, by q_norm.weight and k_norm.weight.
	QKNorm             QKNorm
	QKNormEpsilon      float64 // 0: the default of RMSNorm
	QKNormWeightOffset float64 // added to the weights: 1 for Gemma's

	Context *Context // of calls that have none of their own; nil: the process's default one
}

// A MultiheadAttention is a layer: PyTorch's nn.MultiheadAttention in evaluation mode, and its
// generalisations. Any number of goroutines may use one at once: what changes its parameters waits
// for the calls under way, and calls wait for it.
type MultiheadAttention struct {
	mutex   sync.RWMutex
	c       *C.attn_mha // nil: closed
	context *Context
}

// NewMultiheadAttention makes a layer without parameters. Close it after its last call.
func NewMultiheadAttention(config MultiheadConfig) (*MultiheadAttention, error) {
	c := C.attn_mha_config{
		struct_size:     C.sizeof_attn_mha_config,
		embed_dim:       C.int64_t(config.EmbedDim),
		num_heads:       C.int64_t(config.NumHeads),
		kdim:            C.int64_t(config.KDim),
		vdim:            C.int64_t(config.VDim),
		qdim:            C.int64_t(config.QDim),
		num_kv_heads:    C.int64_t(config.NumKVHeads),
		head_dim:        C.int64_t(config.HeadDim),
		value_head_dim:  C.int64_t(config.ValueHeadDim),
		dtype:           C.int32_t(config.Dtype),
		no_bias:         flag(config.NoBias),
		add_bias_kv:     flag(config.AddBiasKV),
		add_zero_attn:   flag(config.AddZeroAttn),
		batch_first:     flag(config.BatchFirst),
		parameter_dtype: C.int32_t(config.ParameterDtype),

		qk_norm:               C.int32_t(config.QKNorm),
		qk_norm_epsilon:       C.double(config.QKNormEpsilon),
		qk_norm_weight_offset: C.double(config.QKNormWeightOffset),
	}
	layer := &MultiheadAttention{context: config.Context}
	err := use(config.Context, nil, shared, func(context *C.attn_context, _ *C.attn_mha) C.attn_status {
		return C.attn_mha_create(context, &c, &layer.c)
	})
	if err != nil {
		return nil, err
	}
	return layer, nil
}

// Close waits for the calls that are using the layer and frees it. Later calls are refused.
func (layer *MultiheadAttention) Close() {
	layer.mutex.Lock()
	defer layer.mutex.Unlock()
	C.attn_mha_destroy(layer.c)
	layer.c = nil
}

// Config is what the layer is: zeros that stood for a size have become that size.
func (layer *MultiheadAttention) Config() (MultiheadConfig, error) {
	c := C.attn_mha_config{struct_size: C.sizeof_attn_mha_config}
	err := use(nil, layer, shared, func(_ *C.attn_context, layer *C.attn_mha) C.attn_status {
		return C.attn_mha_describe(layer, &c)
	})
	if err != nil {
		return MultiheadConfig{}, err
	}
	return MultiheadConfig{
		EmbedDim:       int(c.embed_dim),
		NumHeads:       int(c.num_heads),
		KDim:           int(c.kdim),
		VDim:           int(c.vdim),
		QDim:           int(c.qdim),
		NumKVHeads:     int(c.num_kv_heads),
		HeadDim:        int(c.head_dim),
		ValueHeadDim:   int(c.value_head_dim),
		Dtype:          Dtype(c.dtype),
		NoBias:         c.no_bias != 0,
		AddBiasKV:      c.add_bias_kv != 0,
		AddZeroAttn:    c.add_zero_attn != 0,
		BatchFirst:     c.batch_first != 0,
		ParameterDtype: Dtype(c.parameter_dtype),
		Context:        layer.context,

		QKNorm:             QKNorm(c.qk_norm),
		QKNormEpsilon:      float64(c.qk_norm_epsilon),
		QKNormWeightOffset: float64(c.qk_norm_weight_offset),
	}, nil
}

// ForwardOptions are the options of a layer's call. The zero value: no mask, no weights.
type ForwardOptions struct {
	KeyPaddingMask Mask // (N, S), unbatched (S); keys it excludes may hold NaN

	// Attention has every option of the attention inside. Its shapes, unbatched without N: Mask (L, S),
	// or one for each head, (N * H, L, S) or (N, H, L, S); LSE (N, H, L); Weights (N, H, L, T), or their
	// mean over heads, (N, L, T), where T is S and the extra keys.
	Attention SDPAOptions

	// Cache has the keys and values of earlier calls: Key (N, Hk, C, D) and Value, or as KV has them,
	// with Lengths, which count the new rows already. Those of this call are stored behind them, and
	// all are attended to. With key and value nil it is only read.
	Cache *KV

	// Rope rotates projected queries and keys before they are stored; its Context does not matter.
	// Without Positions and Lengths rows stand where they are stored.
	Rope *RopeOptions
}

// Forward attends. Shapes: query (L, N, qdim), key (S, N, kdim), value (S, N, vdim), output (L, N,
// EmbedDim); with BatchFirst the batch N comes first; unbatched without N. options may be nil.
func (layer *MultiheadAttention) Forward(query, key, value, output *View, options *ForwardOptions) error {
	views, request := layer.operands(query, key, value, output, options)
	return views.run(layer.contextOf(options), layer, request)
}

// DescribeOutputs tells the shapes of Forward's outputs. LSE and Weights of the options do not
// matter.
func (layer *MultiheadAttention) DescribeOutputs(query, key, value *View, options *ForwardOptions) (*OutputShapes, error) {
	views, request := layer.operands(query, key, value, nil, options)
	return views.describeOutputs(layer, request)
}

// Explain tells what Forward would run for the same arguments, and why.
func (layer *MultiheadAttention) Explain(query, key, value, output *View, options *ForwardOptions) (*MultiheadReport, error) {
	views, request := layer.operands(query, key, value, output, options)
	return views.explain(layer.contextOf(options), layer, request)
}

// operands are the tensors of a call, and the call without them.
func (layer *MultiheadAttention) operands(query, key, value, output *View, options *ForwardOptions) (operands, C.flat_call) {
	if options == nil {
		options = &ForwardOptions{}
	}
	views, request := options.Attention.operands(query, key, value, output)
	views[C.FLAT_KEY_PADDING_MASK] = options.KeyPaddingMask.view
	request.forward = C.attn_mha_params{
		struct_size:           C.sizeof_attn_mha_params,
		key_padding_mask_kind: options.KeyPaddingMask.kind,
	}
	options.Cache.addAsCache(&views, &request)
	options.Rope.addTo(&views, &request)
	return views, request
}

func (layer *MultiheadAttention) contextOf(options *ForwardOptions) *Context {
	if options == nil || options.Attention.Context == nil {
		return layer.context
	}
	return options.Attention.Context
}
