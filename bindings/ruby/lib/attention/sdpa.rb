# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/sdpa_options'

module Attention
  # One call, and the shapes of its results. Ranks and lengths that contradict each other give any
  # shape: the library says which is wrong.
  class Sdpa
    def initialize(query, key, value, options)
      @inputs = [query, key, value]
      @options = options
      @rank = [2, *@inputs.map(&:rank)].max
    end

    def call(context, out, return_lse, return_weights)
      output = out ? check_writable(out) : zeros(output_shape)
      lse = zeros(output.shape[0...-1]) if return_lse
      weights = zeros([*output.shape[0...-1], length(key, @rank - 2)]) if return_weights
      @options.write_to(lse:, weights:)
      Error.check(ABI.attn_sdpa(context, *@inputs, @options, output, nil, 0))
      lse || weights ? [output, lse, weights].compact : output
    end

    private

    def key
      @inputs[1]
    end

    def zeros(shape)
      Tensor.zeros(*shape, dtype: @inputs.first.dtype)
    end

    def check_writable(out)
      return out if out.writable?

      raise FrozenError, 'out: expected a tensor of its own memory, got a view of a String'
    end

    def output_shape
      query, _, value = @inputs
      batch = (0...(@rank - 2)).map { |axis| broadcast_length(axis) }
      [*batch, length(query, @rank - 2), length(value, @rank - 1)]
    end

    # The length of an axis, aligned at the last one; 1 where the tensor has none.
    def length(tensor, axis)
      own = axis - @rank + tensor.rank
      own.negative? ? 1 : tensor.shape[own]
    end

    # Length 1 repeats. Grouped heads need no rule of their own: where query has one head, so have key
    # and value.
    def broadcast_length(axis)
      @inputs.map { |tensor| length(tensor, axis) }.find { |length| length != 1 } || 1
    end
  end
  private_constant :Sdpa
end
