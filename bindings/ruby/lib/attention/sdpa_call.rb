# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/outputs'
require 'attention/report'
require 'attention/sdpa_options'

module Attention
  # One call of attention: its inputs and options, and the outputs that belong to them.
  class SdpaCall
    def initialize(inputs, context: nil, out: nil, return_lse: false, return_weights: false, **options)
      @inputs = inputs.map { |tensor| Tensor.wrap(tensor) }
      @context = context
      @asked = { out:, lse: return_lse, weights: return_weights == true ? :per_head : return_weights }
      @options = SdpaOptions.new(ABI::ATTN_MASK_BOOL_INCLUDE, **options)
    end

    def run
      outputs = make_outputs(:room_for)
      Call.make(:attn_sdpa, @context, *@inputs, @options, outputs.output, nil, 0)
      extras = [outputs.lse, outputs.weights, outputs.scores].compact
      extras.empty? ? outputs.output : [outputs.output, *extras]
    end

    def explain
      outputs = make_outputs(:described)
      report = ABI.make(:attn_sdpa_report)
      Call.make(:attn_sdpa_explain, @context, *@inputs, @options, outputs.output, report)
      Report.of_attention(report)
    end

    private

    def make_outputs(make)
      described = ABI.make(:attn_sdpa_outputs)
      Error.check(ABI.attn_sdpa_describe_outputs(*@inputs, @options, described))
      outputs = Outputs.new(described, make, scores: @options.scores?, **@asked)
      @options.write_to(outputs)
      outputs
    end
  end
  private_constant :SdpaCall
end
