# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/outputs'

module Attention
  # One call that makes of every row of a tensor another: an input, options, an output like it.
  class RowCall
    def initialize(function, input, params, tensors, context:, out:)
      @function = function
      @input = Tensor.wrap(input)
      @params = params
      @tensors = tensors
      @tensors.each { |field, tensor| @params[field.to_s] = tensor }
      @context = context
      @output = Outputs.like(@input, :out, out)
    end

    def run
      Call.make(@function, @context, @input, @params, @output)
      @output
    end
  end
  private_constant :RowCall

  # Rotates features by positions.
  class RopeCall < RowCall
    def initialize(input, rotary_dim: 0, base: 0.0, magnitude: 0.0, interleaved: false, inverse: false,
                   frequencies: nil, cos: nil, sin: nil, positions: nil, lengths: nil, context: nil, out: nil)
      params = ABI.make(:attn_rope_params, rotary_dim:, base:, magnitude:, interleaved: Choice.flag(interleaved),
                                           inverse: Choice.flag(inverse))
      tables = { frequencies:, cos:, sin: }.transform_values { |table| Tensor.wrap(table) }
      places = { positions:, lengths: }.transform_values { |numbers| Tensor.wrap(numbers, dtype: :int64) }
      super(:attn_rope, input, params, { **tables, **places }, context:, out:)
    end
  end
  private_constant :RopeCall

  # Divides rows by the root of the mean of their squares.
  class RmsNormCall < RowCall
    def initialize(input, weight: nil, epsilon: 0.0, weight_offset: 0.0, context: nil, out: nil)
      params = ABI.make(:attn_rms_norm_params, epsilon:, weight_offset:)
      super(:attn_rms_norm, input, params, { weight: Tensor.wrap(weight) }, context:, out:)
    end
  end
  private_constant :RmsNormCall
end
