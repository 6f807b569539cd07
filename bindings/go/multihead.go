// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include <stdlib.h>
// #include "flat.h"
import "C"

import (
	"strings"
	"unsafe"
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
	Dtype        Dtype // 0: Float32
	NoBias       bool  // there is no in_proj_bias and no out_proj.bias
	AddBiasKV    bool  // one learned key and value after the source keys
	AddZeroAttn  bool  // one key and value of zeros after those
	BatchFirst   bool  // (N, L, E) instead of (L, N, E)
}

// A MultiheadAttention is a layer: PyTorch's nn.MultiheadAttention in evaluation mode, and its
// generalisations. Any number of goroutines may call Forward at once.
type MultiheadAttention struct {
	c *C.attn_mha
}

// NewMultiheadAttention makes a layer without parameters. Close it after its last call.
func NewMultiheadAttention(config MultiheadConfig) (*MultiheadAttention, error) {
	c := C.attn_mha_config{
		struct_size:    C.sizeof_attn_mha_config,
		embed_dim:      C.int64_t(config.EmbedDim),
		num_heads:      C.int64_t(config.NumHeads),
		kdim:           C.int64_t(config.KDim),
		vdim:           C.int64_t(config.VDim),
		qdim:           C.int64_t(config.QDim),
		num_kv_heads:   C.int64_t(config.NumKVHeads),
		head_dim:       C.int64_t(config.HeadDim),
		value_head_dim: C.int64_t(config.ValueHeadDim),
		dtype:          C.int32_t(config.Dtype),
		bias:           unless(config.NoBias),
		add_bias_kv:    flag(config.AddBiasKV),
		add_zero_attn:  flag(config.AddZeroAttn),
		batch_first:    flag(config.BatchFirst),
	}
	layer := &MultiheadAttention{}
	err := call(func() C.attn_status { return C.attn_mha_create(nil, &c, &layer.c) })
	if err != nil {
		return nil, err
	}
	return layer, nil
}

// unless is a switch whose default is on.
func unless(isOff bool) C.int32_t {
	if isOff {
		return C.ATTN_OFF
	}
	return C.ATTN_DEFAULT
}

// Close frees the layer. No call may be using it.
func (layer *MultiheadAttention) Close() {
	C.attn_mha_destroy(layer.c)
	layer.c = nil
}

// LoadParameter copies a parameter into the layer, by its name in PyTorch's state_dict. No other
// call may be using the layer.
func (layer *MultiheadAttention) LoadParameter(name string, values *View) error {
	if strings.ContainsRune(name, 0) {
		return failure(ErrParameter, "name: expected no NUL, got %q", name)
	}
	if err := values.check(name); err != nil {
		return err
	}
	if values == nil {
		values = &View{}
	}
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	return call(func() C.attn_status {
		return C.flat_mha_load_parameter(layer.c, cName, &values.layout,
			(*C.flat_data)(values.data))
	})
}

// ForwardOptions are the options of a layer's call. The zero value: no mask, no weights.
type ForwardOptions struct {
	Context        *Context
	KeyPaddingMask Mask // (N, S), unbatched (S); keys it excludes may hold NaN
	AttnMask       Mask // (L, S), or one for each head: (N * H, L, S), unbatched (H, L, S)
	IsCausal       bool // query i sees keys j <= i

	AttnWeights    *View // out: (N, L, T), T = S and the extra keys; unbatched (L, T)
	PerHeadWeights bool  // AttnWeights are not the mean over heads but (N, H, L, T)

	// Attention has further options of the attention inside: scale, window, LSE and so on.
	Attention *SDPAOptions
}

// Forward attends. Shapes: query (L, N, qdim), key (S, N, kdim), value (S, N, vdim), output (L, N,
// EmbedDim); with BatchFirst the batch N comes first; unbatched without N. options may be nil.
func (layer *MultiheadAttention) Forward(query, key, value, output *View, options *ForwardOptions) error {
	if options == nil {
		options = &ForwardOptions{}
	}
	if layer.c == nil {
		return failure(ErrValue, "layer: expected an open one, got one that is closed")
	}
	attention := options.Attention
	if attention == nil {
		attention = &SDPAOptions{}
	}
	if attention.Mask.view != nil || attention.Weights != nil {
		return failure(ErrValue, "attention: expected its mask and weights in ForwardOptions")
	}
	views := operands{
		C.FLAT_QUERY:            query,
		C.FLAT_KEY:              key,
		C.FLAT_VALUE:            value,
		C.FLAT_OUTPUT:           output,
		C.FLAT_MASK:             options.AttnMask.view,
		C.FLAT_KEY_PADDING_MASK: options.KeyPaddingMask.view,
		C.FLAT_WEIGHTS:          options.AttnWeights,
	}
	attention.addViews(&views)
	return views.attend(options.Context, C.flat_call{
		layer:     layer.c,
		attention: attention.params(),
		forward:   options.params(),
	})
}

// params are the options without their tensors.
func (options *ForwardOptions) params() C.attn_mha_params {
	return C.attn_mha_params{
		struct_size:           C.sizeof_attn_mha_params,
		key_padding_mask_kind: options.KeyPaddingMask.kind,
		attn_mask_kind:        options.AttnMask.kind,
		is_causal:             flag(options.IsCausal),
		average_attn_weights:  unless(options.PerHeadWeights),
	}
}
