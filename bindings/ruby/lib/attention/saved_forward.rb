# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/layer_gradients'

module Attention
  # What a call of Layer#forward_saving left for its gradients, with the layer, inputs and options of that
  # call, so that nothing else can be taken for them.
  class SavedForward
    def initialize(call)
      @call = call
    end

    # The gradients of the call, while the parameters are still those that it had: a hash of those wanted, by
    # the names of what they are of, by default query, key, value and every parameter, whose name is a String;
    # attn_mask, bias, position_bias, alibi_slopes and sinks have them, too. given: a hash of the gradients of
    # output, and of lse and weights, which may be left out. out: tensors that some go to, to which accumulate
    # adds them.
    def backward(given, context: nil, **asked)
      gradients = LayerGradients.new(@call, given, **asked)
      @call.go_back(gradients, context:)
      gradients.found
    end
  end
end
