// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"strings"

	"attention"
)

// gradients are those that a case gives, and room for those that it expects, which made.rooms keeps; nil if
// there are none.
func (made *testCase) gradients() (*attention.MultiheadGradients, error) {
	gradients := &attention.MultiheadGradients{Parameters: map[string]*attention.View{}}
	for i := range made.tensors {
		switch made.tensors[i].name {
		case "gradient.output", "gradient.attn_output":
			gradients.Output = made.tensors[i].view
		case "gradient.attn_weights":
			gradients.Weights = made.tensors[i].view
		}
	}
	if gradients.Output == nil {
		return nil, nil
	}
	for _, expected := range made.expected {
		if name, isGradient := trimmed(expected.name, "gradient."); isGradient {
			room, err := made.room(expected.name, expected.shape)
			if err != nil {
				return nil, err
			}
			made.rooms = append(made.rooms, room)
			if err := want(gradients, name, room.view); err != nil {
				return nil, err
			}
		}
	}
	return gradients, nil
}

func want(gradients *attention.MultiheadGradients, name string, room *attention.View) error {
	places := map[string]**attention.View{
		"query":     &gradients.Query,
		"key":       &gradients.Key,
		"value":     &gradients.Value,
		"attn_mask": &gradients.Mask,
	}
	if parameter, isParameter := parameterName(name); isParameter {
		gradients.Parameters[parameter] = room
		return nil
	}
	place, isKnown := places[name]
	if !isKnown {
		return fmt.Errorf("unknown gradient %s", name)
	}
	*place = room
	return nil
}

func trimmed(name, prefix string) (string, bool) {
	return strings.TrimPrefix(name, prefix), strings.HasPrefix(name, prefix)
}
