# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/outputs'

module Attention
  # One call that puts partial results together.
  class MergeCall
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
      lses = ABI.views(@lses) if lses?
      Call.make(:attn_sdpa_merge, @context, @outputs.size, ABI.views(@outputs), lses, @params, @output, @lse)
      lses? ? [@output, @lse] : @output
    end

    private

    def lses?
      @lses.any?
    end
  end
  private_constant :MergeCall
end
