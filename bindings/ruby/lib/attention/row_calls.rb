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

  # The options of a rotation, as the C struct and the tensors that it points to.
  class RopeOptions
    attr_reader :params, :tensors

    # Of the hash that is given as an option, nil for none.
    def self.wrap(fields)
      fields && new(**fields)
    end

    def initialize(rotary_dim: 0, base: 0.0, magnitude: 0.0, interleaved: false, inverse: false, **tensors)
      @params = ABI.make(:attn_rope_params, rotary_dim:, base:, magnitude:, interleaved: Choice.flag(interleaved),
                                            inverse: Choice.flag(inverse))
      @tensors = wrap_tensors(**tensors)
      @tensors.each { |field, tensor| @params[field.to_s] = tensor }
    end

    def to_ptr
      @params.to_ptr
    end

    private

    def wrap_tensors(frequencies: nil, cos: nil, sin: nil, positions: nil, lengths: nil)
      tables = { frequencies:, cos:, sin: }.transform_values { |table| Tensor.wrap(table) }
      places = { positions:, lengths: }.transform_values { |numbers| Tensor.wrap(numbers, dtype: :int64) }
      { **tables, **places }
    end
  end
  private_constant :RopeOptions

  # Rotates features by positions.
  class RopeCall < RowCall
    def initialize(input, context: nil, out: nil, **options)
      @options = RopeOptions.new(**options)
      super(:attn_rope, input, @options.params, @options.tensors, context:, out:)
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
