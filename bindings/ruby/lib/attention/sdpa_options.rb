# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/tensor'

module Attention
  # The options of one attention, as the C struct and the tensors that it points to.
  class SdpaOptions
    NORMALIZERS = {
      softmax: ABI::ATTN_NORMALIZER_SOFTMAX,
      sigmoid: ABI::ATTN_NORMALIZER_SIGMOID,
      none: ABI::ATTN_NORMALIZER_NONE
    }.freeze

    def initialize(enable_gqa: false, scale: nil, window: nil, softcap: 0.0, is_causal: false,
                   normalizer: :softmax, **tensors)
      @params = ABI.make(:attn_sdpa_params, scale: scale || 0.0, softcap:,
                                            is_causal: Choice.flag(is_causal),
                                            normalizer: Choice.of(:normalizer, NORMALIZERS, normalizer))
      @params.flags = flags(scale, window, enable_gqa)
      @params.window_left, @params.window_right = window if window
      take_tensors(**tensors)
    end

    # Makes the call fill these outputs, which may be nil.
    def write_to(lse:, weights:)
      @outputs = [lse, weights]
      @params.lse = lse
      @params.weights = weights
    end

    def to_ptr
      @params.to_ptr
    end

    private

    def flags(scale, window, enable_gqa)
      (scale ? ABI::ATTN_SDPA_SET_SCALE : 0) |
        (window ? ABI::ATTN_SDPA_SET_WINDOW : 0) |
        (enable_gqa ? ABI::ATTN_SDPA_ENABLE_GQA : 0)
    end

    def take_tensors(attn_mask: nil, query_offset: nil, key_lengths: nil, alibi_slopes: nil, sinks: nil)
      @tensors = {
        mask: Tensor.wrap(attn_mask),
        query_offset: Tensor.wrap(query_offset, dtype: :int64),
        key_lengths: Tensor.wrap(key_lengths, dtype: :int64),
        alibi_slopes: Tensor.wrap(alibi_slopes),
        sinks: Tensor.wrap(sinks)
      }
      @tensors.each { |field, tensor| @params[field.to_s] = tensor }
      @params.mask_kind = Choice.mask_kind(@tensors[:mask], ABI::ATTN_MASK_BOOL_INCLUDE)
    end
  end
  private_constant :SdpaOptions
end
