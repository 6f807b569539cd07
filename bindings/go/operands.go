// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// operands are the tensors of a call in the order of flat.h; nil: absent.
type operands [C.FLAT_TENSORS]*View

var operandNames = [C.FLAT_TENSORS]string{
	C.FLAT_QUERY:                  "query",
	C.FLAT_KEY:                    "key",
	C.FLAT_VALUE:                  "value",
	C.FLAT_OUTPUT:                 "output",
	C.FLAT_MASK:                   "mask",
	C.FLAT_BIAS:                   "bias",
	C.FLAT_KEY_PADDING_MASK:       "key_padding_mask",
	C.FLAT_QUERY_OFFSET:           "query_offset",
	C.FLAT_KEY_LENGTHS:            "key_lengths",
	C.FLAT_ALIBI_SLOPES:           "alibi_slopes",
	C.FLAT_SINKS:                  "sinks",
	C.FLAT_LSE:                    "lse",
	C.FLAT_WEIGHTS:                "weights",
	C.FLAT_SCORES:                 "scores",
	C.FLAT_QUERY_STARTS:           "query_starts",
	C.FLAT_MASK_START:             "mask_start",
	C.FLAT_POSITION_BIAS:          "position_bias",
	C.FLAT_BLOCK_MASK:             "block_mask",
	C.FLAT_KV_KEY:                 "kv.key",
	C.FLAT_KV_VALUE:               "kv.value",
	C.FLAT_KV_PAGE_TABLE:          "kv.page_table",
	C.FLAT_KV_PAGE_STARTS:         "kv.page_starts",
	C.FLAT_KV_STARTS:              "kv.starts",
	C.FLAT_KV_LENGTHS:             "kv.lengths",
	C.FLAT_KV_KEY_SCALE:           "kv.key_scale",
	C.FLAT_KV_VALUE_SCALE:         "kv.value_scale",
	C.FLAT_KV_KEY_ZERO:            "kv.key_zero",
	C.FLAT_KV_VALUE_ZERO:          "kv.value_zero",
	C.FLAT_NEW_STARTS:             "starts",
	C.FLAT_NEW_POSITIONS:          "positions",
	C.FLAT_ROPE_FREQUENCIES:       "rope.frequencies",
	C.FLAT_ROPE_COS:               "rope.cos",
	C.FLAT_ROPE_SIN:               "rope.sin",
	C.FLAT_ROPE_POSITIONS:         "rope.positions",
	C.FLAT_ROPE_LENGTHS:           "rope.lengths",
	C.FLAT_GRADIENT_OUTPUT:        "gradients.output",
	C.FLAT_GRADIENT_LSE:           "gradients.lse",
	C.FLAT_GRADIENT_WEIGHTS:       "gradients.weights",
	C.FLAT_GRADIENT_QUERY:         "gradients.query",
	C.FLAT_GRADIENT_KEY:           "gradients.key",
	C.FLAT_GRADIENT_VALUE:         "gradients.value",
	C.FLAT_GRADIENT_MASK:          "gradients.mask",
	C.FLAT_GRADIENT_BIAS:          "gradients.bias",
	C.FLAT_GRADIENT_POSITION_BIAS: "gradients.position_bias",
	C.FLAT_GRADIENT_ALIBI_SLOPES:  "gradients.alibi_slopes",
	C.FLAT_GRADIENT_SINKS:         "gradients.sinks",
	C.FLAT_SAVED:                  "saved",
}

// run checks the views and makes the call that request describes, forwards or back; without a layer, nil,
// it is one of attention alone, or stores new rows.
func (views *operands) run(context *Context, layer *MultiheadAttention, request C.flat_call) error {
	layouts, err := views.layouts()
	if err != nil {
		return err
	}
	return use(context, layer, shared, func(context *C.attn_context, layer *C.attn_mha) C.attn_status {
		request.context, request.layer = context, layer
		return C.flat_run(&request, &layouts[0],
			views.data(C.FLAT_QUERY), views.data(C.FLAT_KEY), views.data(C.FLAT_VALUE),
			views.data(C.FLAT_OUTPUT), views.data(C.FLAT_MASK), views.data(C.FLAT_BIAS),
			views.data(C.FLAT_KEY_PADDING_MASK), views.data(C.FLAT_QUERY_OFFSET),
			views.data(C.FLAT_KEY_LENGTHS), views.data(C.FLAT_ALIBI_SLOPES),
			views.data(C.FLAT_SINKS), views.data(C.FLAT_LSE), views.data(C.FLAT_WEIGHTS),
			views.data(C.FLAT_SCORES), views.data(C.FLAT_QUERY_STARTS),
			views.data(C.FLAT_MASK_START), views.data(C.FLAT_POSITION_BIAS),
			views.data(C.FLAT_BLOCK_MASK),
			views.data(C.FLAT_KV_KEY), views.data(C.FLAT_KV_VALUE),
			views.data(C.FLAT_KV_PAGE_TABLE), views.data(C.FLAT_KV_PAGE_STARTS),
			views.data(C.FLAT_KV_STARTS), views.data(C.FLAT_KV_LENGTHS),
			views.data(C.FLAT_KV_KEY_SCALE), views.data(C.FLAT_KV_VALUE_SCALE),
			views.data(C.FLAT_KV_KEY_ZERO), views.data(C.FLAT_KV_VALUE_ZERO),
			views.data(C.FLAT_NEW_STARTS), views.data(C.FLAT_NEW_POSITIONS),
			views.data(C.FLAT_ROPE_FREQUENCIES), views.data(C.FLAT_ROPE_COS),
			views.data(C.FLAT_ROPE_SIN), views.data(C.FLAT_ROPE_POSITIONS),
			views.data(C.FLAT_ROPE_LENGTHS),
			views.data(C.FLAT_GRADIENT_OUTPUT), views.data(C.FLAT_GRADIENT_LSE),
			views.data(C.FLAT_GRADIENT_WEIGHTS), views.data(C.FLAT_GRADIENT_QUERY),
			views.data(C.FLAT_GRADIENT_KEY), views.data(C.FLAT_GRADIENT_VALUE),
			views.data(C.FLAT_GRADIENT_MASK), views.data(C.FLAT_GRADIENT_BIAS),
			views.data(C.FLAT_GRADIENT_POSITION_BIAS), views.data(C.FLAT_GRADIENT_ALIBI_SLOPES),
			views.data(C.FLAT_GRADIENT_SINKS), views.data(C.FLAT_SAVED),
			views.data(C.FLAT_GRADIENT_PARAMETER+0), views.data(C.FLAT_GRADIENT_PARAMETER+1),
			views.data(C.FLAT_GRADIENT_PARAMETER+2), views.data(C.FLAT_GRADIENT_PARAMETER+3),
			views.data(C.FLAT_GRADIENT_PARAMETER+4), views.data(C.FLAT_GRADIENT_PARAMETER+5),
			views.data(C.FLAT_GRADIENT_PARAMETER+6), views.data(C.FLAT_GRADIENT_PARAMETER+7),
			views.data(C.FLAT_GRADIENT_PARAMETER+8), views.data(C.FLAT_GRADIENT_PARAMETER+9))
	})
}

func (views *operands) layouts() ([]C.attn_tensor, error) {
	return layoutsOf(views[:], operandNames[:])
}

func (views *operands) data(index int) *C.flat_data { return dataOf(views[index]) }

// layoutsOf are the views without their data, of an invalid dtype for nil; or why one is none, by its
// name.
func layoutsOf(views []*View, names []string) ([]C.attn_tensor, error) {
	layouts := make([]C.attn_tensor, len(views))
	for i, view := range views {
		if err := view.check(names[i]); err != nil {
			return nil, err
		}
		if view != nil {
			layouts[i] = view.layout
		}
	}
	return layouts, nil
}

func dataOf(view *View) *C.flat_data {
	if view == nil {
		return nil
	}
	return (*C.flat_data)(view.data)
}
