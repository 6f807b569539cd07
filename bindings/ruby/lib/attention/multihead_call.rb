# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/backward_call'
require 'attention/call'
require 'attention/kv'
require 'attention/outputs'
require 'attention/report'
require 'attention/row_calls'
require 'attention/sdpa_options'

module Attention
  # One call of a layer: its inputs and options, and the outputs that belong to them.
  class MultiheadCall
    BOOL_KIND = ABI::ATTN_MASK_BOOL_EXCLUDE

    def initialize(layer, inputs, context: nil, key_padding_mask: nil, need_weights: true, average_attn_weights: true,
                   return_lse: false, cache: nil, rope: nil, **options)
      @layer = layer
      @inputs = inputs.map { |tensor| Tensor.wrap(tensor, dtype: layer.dtype) }
      @context = context
      @asked = { lse: return_lse, weights: need_weights && (average_attn_weights ? :averaged : :per_head) }
      @attention = SdpaOptions.new(BOOL_KIND, **options)
      @mask = Tensor.wrap(key_padding_mask)
      @cache = Kv.wrap(cache)
      @rope = RopeOptions.wrap(rope)
      @params = ABI.make(:attn_mha_params, key_padding_mask: @mask, attention: @attention,
                                           key_padding_mask_kind: Choice.mask_kind(@mask, BOOL_KIND),
                                           cache: @cache, rope: @rope)
    end

    attr_reader :layer

    def run
      @cache.check_writable if @cache && @inputs.all?
      outputs = make_outputs(:room_for)
      Call.make(:attn_mha_forward, @context, @layer, *@inputs, @params, outputs.output, nil, 0)
      [outputs.output, outputs.weights] + [outputs.lse, outputs.scores].compact
    end

    # As run, and go_back can follow.
    def run_saving
      bytes = Tensor.zeros(dtype: :int64)
      Call.make(:attn_mha_saved_bytes, @context, @layer, *@inputs, @params, bytes.data)
      @saved = Fiddle::Pointer.malloc(bytes.to_a, Fiddle::RUBY_FREE)
      @params.saved = @saved
      @params.saved_bytes = bytes.to_a
      run
    end

    # The gradients that this attn_mha_gradients asks for.
    def go_back(gradients, context: nil)
      Call.make(:attn_mha_backward, context || @context, @layer, *@inputs, @params, gradients, nil, 0)
    end

    # What the gradient of this name belongs to; nil where there is none, which the library says.
    def input(name)
      at = %i[query key value].index(name)
      at ? @inputs[at] : @attention.tensor(BackwardCall::FIELDS.fetch(name))
    end

    def explain
      outputs = make_outputs(:described)
      attention = ABI.make(:attn_sdpa_report)
      report = ABI.make(:attn_mha_report, attention:)
      Call.make(:attn_mha_explain, @context, @layer, *@inputs, @params, outputs.output, report)
      Report.of_layer(report, attention)
    end

    private

    def make_outputs(make)
      described = ABI.make(:attn_mha_outputs)
      Call.make(:attn_mha_describe_outputs, @layer, *@inputs, @params, described)
      outputs = Outputs.new(described, make, scores: @attention.scores?, **@asked)
      @attention.write_to(outputs)
      outputs
    end
  end
  private_constant :MultiheadCall
end
