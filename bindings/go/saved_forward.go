// SPDX-License-Identifier: BSD-3-Clause

package attention

// #include "flat.h"
import "C"

// A SavedForward is a call of a layer and what its gradients need of it: the layer, the arguments and
// memory of its own. What the views show, and the layer's parameters, are to stay as they were.
type SavedForward struct {
	layer   *MultiheadAttention
	context *Context
	views   operands
	request C.flat_call
}

// MultiheadGradients are those that SavedForward.Backward is given and those that it computes: LSE, Weights
// and those of options belong to the attention inside.
type MultiheadGradients struct {
	Gradients

	Parameters map[string]*View // out, by PyTorch's names; those that are missing are not wanted
}

// ForwardSaving attends as Forward does, and keeps what is needed to go back.
func (layer *MultiheadAttention) ForwardSaving(query, key, value, output *View, options *ForwardOptions) (*SavedForward, error) {
	saved := &SavedForward{layer: layer, context: layer.contextOf(options)}
	saved.views, saved.request = layer.operands(query, key, value, output, options)
	bytes, err := saved.countBytes()
	if err != nil {
		return nil, err
	}
	memory := make([]int64, (bytes+7)/8)
	saved.views[C.FLAT_SAVED] = NewView(memory, len(memory))
	if err := saved.views.run(saved.context, layer, saved.request); err != nil {
		return nil, err
	}
	return saved, nil
}

// Backward computes gradients of the call; Output's is to be given. Any number of goroutines may go back
// at once.
func (saved *SavedForward) Backward(gradients *MultiheadGradients) error {
	if saved.layer == nil {
		return failure(ErrNull, "saved: expected what ForwardSaving returns")
	}
	if gradients == nil {
		gradients = &MultiheadGradients{}
	}
	views, request := saved.views, saved.request
	gradients.addTo(&views, &request)
	if err := saved.layer.addGradients(gradients.Parameters, &views, &request); err != nil {
		return err
	}
	return views.run(saved.context, saved.layer, request)
}

func (saved *SavedForward) countBytes() (int, error) {
	layouts, err := saved.views.layouts()
	if err != nil {
		return 0, err
	}
	request := saved.request
	var bytes C.size_t
	err = use(saved.context, saved.layer, shared, func(context *C.attn_context, layer *C.attn_mha) C.attn_status {
		request.context, request.layer = context, layer
		return C.flat_saved_bytes(&request, &layouts[0], &bytes)
	})
	return int(bytes), err
}

// addGradients puts those of parameters in the layer's order.
func (layer *MultiheadAttention) addGradients(wanted map[string]*View, views *operands, request *C.flat_call) error {
	parameters, err := layer.Parameters()
	if err != nil {
		return err
	}
	if len(parameters) > C.FLAT_MOST_PARAMETERS {
		return failure(ErrUnsupported, "layer: expected at most %d parameters, got %d",
			C.FLAT_MOST_PARAMETERS, len(parameters))
	}
	places := map[string]int{}
	for i, parameter := range parameters {
		places[parameter.Name] = C.FLAT_GRADIENT_PARAMETER + i
	}
	for name, view := range wanted {
		place, isKnown := places[name]
		if !isKnown {
			return failure(ErrParameter, "gradients.%s: expected a parameter of the layer", name)
		}
		if err := view.check("gradients." + name); err != nil {
			return err
		}
		views[place] = view
	}
	request.num_parameters = C.int64_t(len(parameters))
	return nil
}
