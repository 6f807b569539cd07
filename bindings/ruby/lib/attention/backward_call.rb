# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/outputs'
require 'attention/report'
require 'attention/sdpa_options'

module Attention
  # The gradients of one call of attention.
  class BackwardCall
    # What has a gradient, and its field of attn_sdpa_gradients.
    FIELDS = { query: :query, key: :key, value: :value, attn_mask: :mask, bias: :bias, position_bias: :position_bias,
               alibi_slopes: :alibi_slopes, sinks: :sinks }.freeze

    # made: the output of the call and its lse, which may be left out; given: the gradients of the same
    # and of the weights, by name.
    def initialize(inputs, made, given, context: nil, wanted: nil, out: {}, accumulate: false, **options)
      @inputs = inputs.map { |tensor| Tensor.wrap(tensor) }
      @output, @lse = made.map { |tensor| Tensor.wrap(tensor) }
      @context = context
      @options = SdpaOptions.new(ABI::ATTN_MASK_BOOL_INCLUDE, **options)
      @options.read_lse(@lse)
      @found = make_places(wanted || (out.empty? ? %i[query key value] : []), out)
      take_given(**given)
      @params = ABI.make(:attn_sdpa_gradients, accumulate: Choice.flag(accumulate), **@given,
                                               **@found.transform_keys { |name| FIELDS[name] })
    end

    def run
      Call.make(:attn_sdpa_backward, @context, *@inputs, @options, @output, @params, nil, 0)
      @found
    end

    def explain
      report = ABI.make(:attn_sdpa_backward_report)
      Call.make(:attn_sdpa_backward_explain, @context, *@inputs, @options, @output, @params, report)
      Report.of_gradients(report)
    end

    private

    def take_given(output: nil, lse: nil, weights: nil)
      @given = { output:, lse:, weights: }.transform_values { |tensor| Tensor.wrap(tensor) }
    end

    # Where gradients go: the caller's tensors, or zeros like their inputs.
    def make_places(wanted, out)
      (wanted | out.keys).to_h do |name|
        field = Choice.of(:wanted, FIELDS, name)
        [name, Outputs.like(input_of(name, field), :"out.#{name}", out[name]) || Tensor.zeros(1)]
      end
    end

    # nil where there is none, which the library says.
    def input_of(name, field)
      at = %i[query key value].index(name)
      (at && @inputs[at]) || @options.tensor(field)
    end
  end
  private_constant :BackwardCall
end
