# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/outputs'

module Attention
  # One call that puts partial results together.
  class MergeCall
    VIEW_BYTES = ABI::STRUCTS[:attn_tensor].size
    NO_VIEW = ("\0" * VIEW_BYTES).freeze
    private_constant :VIEW_BYTES, :NO_VIEW

    # parts: arrays of an output and its lse, which may be left out.
    def initialize(parts, context: nil, sinks: nil, out: nil, out_lse: nil)
      @outputs = parts.map { |output, _| Tensor.wrap(output) }
      @lses = parts.map { |_, lse| Tensor.wrap(lse) }
      @context = context
      @sinks = Tensor.wrap(sinks)
      @params = ABI.make(:attn_merge_params, sinks: @sinks)
      @output = Outputs.like(@outputs.first, :out, out)
      @lse = Outputs.like(@lses.first, :out_lse, out_lse)
    end

    def run
      Call.make(:attn_sdpa_merge, @context, @outputs.size, views(@outputs), (views(@lses) if lses?), @params, @output,
                @lse)
      lses? ? [@output, @lse] : @output
    end

    private

    def lses?
      @lses.any?
    end

    # The C array. A tensor that is missing is one of no dtype: the library names it.
    def views(tensors)
      tensors.map { |tensor| tensor ? tensor.to_ptr[0, VIEW_BYTES] : NO_VIEW }.join
    end
  end
  private_constant :MergeCall
end
