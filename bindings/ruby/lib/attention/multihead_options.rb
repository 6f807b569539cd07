# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/sdpa_options'

module Attention
  # The options of one call of a layer, as the C struct and the tensors that it points to.
  class MultiheadOptions
    attr_reader :average_attn_weights

    def initialize(key_padding_mask: nil, attn_mask: nil, is_causal: false,
                   average_attn_weights: true, attention: nil)
      @average_attn_weights = average_attn_weights
      @masks = [key_padding_mask, attn_mask].map { |mask| Tensor.wrap(mask) }
      @attention = attention && SdpaOptions.new(**attention)
      kinds = @masks.map { |mask| Choice.mask_kind(mask, ABI::ATTN_MASK_BOOL_EXCLUDE) }
      @params = ABI.make(:attn_mha_params,
                         key_padding_mask: @masks[0], key_padding_mask_kind: kinds[0],
                         attn_mask: @masks[1], attn_mask_kind: kinds[1],
                         is_causal: Choice.flag(is_causal),
                         average_attn_weights: Choice.switch(average_attn_weights),
                         attention: @attention)
    end

    # Makes the call fill this output.
    def write_to(weights)
      @weights = weights
      @params.attn_weights = weights
    end

    def to_ptr
      @params.to_ptr
    end
  end
  private_constant :MultiheadOptions
end
