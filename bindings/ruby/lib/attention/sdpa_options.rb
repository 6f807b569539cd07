# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/kv'
require 'attention/tensor'

module Attention
  # The options of one attention, as the C struct and the tensors that it points to.
  class SdpaOptions
    NORMALIZERS = {
      softmax: ABI::ATTN_NORMALIZER_SOFTMAX,
      sigmoid: ABI::ATTN_NORMALIZER_SIGMOID,
      linear: ABI::ATTN_NORMALIZER_LINEAR
    }.freeze

    STAGES = {
      scaled: ABI::ATTN_SCORE_SCALED,
      capped: ABI::ATTN_SCORE_CAPPED,
      masked: ABI::ATTN_SCORE_MASKED
    }.freeze

    # bool_kind: what a bool mask means.
    def initialize(bool_kind, scale: nil, window: nil, softcap: 0.0, normalizer: :softmax, is_causal: false,
                   enable_gqa: false, align_end: false, kv: nil, return_scores: false, block_size: nil,
                   dropout: nil, **tensors)
      @kv = Kv.wrap(kv)
      @params = ABI.make(:attn_sdpa_params,
                         kv: @kv, scale: scale || 0.0, softcap:,
                         is_causal: Choice.flag(is_causal), enable_gqa: Choice.flag(enable_gqa),
                         align_end: Choice.flag(align_end),
                         normalizer: Choice.of(:normalizer, NORMALIZERS, normalizer))
      @params.set |= ABI::ATTN_SDPA_SET_SCALE if scale
      take_window(*window) if window
      @params.block_rows, @params.block_columns = block_size if block_size
      take_dropout(**dropout) if dropout
      @wants_scores = return_scores ? true : false
      take_stage(return_scores) if return_scores
      take_tensors(bool_kind, **tensors)
    end

    # Makes the call fill these outputs beside the main one, which may be nil.
    def write_to(outputs)
      @outputs = outputs
      @params.lse = outputs.lse
      @params.weights = outputs.weights
      @params.scores = outputs.scores
    end

    # Makes the call read this lse, which an earlier one wrote.
    def read_lse(lse)
      @lse = lse
      @params.lse = lse
    end

    # The tensor of a field, or that of the kv.
    def tensor(field)
      @tensors[field] || @kv&.rows&.fetch(field, nil)
    end

    # Whether the scores are asked for.
    def scores?
      @wants_scores
    end

    def to_ptr
      @params.to_ptr
    end

    private

    def take_stage(wanted)
      @params.scores_stage = Choice.of(:return_scores, STAGES, wanted == true ? :scaled : wanted)
    end

    def take_window(left, right)
      @params.set |= ABI::ATTN_SDPA_SET_WINDOW
      @params.window_left = left
      @params.window_right = right
    end

    def take_dropout(probability:, seed: 0, offset: 0, batch: 0, head: 0, row: 0, column: 0)
      @dropout = ABI.make(:attn_dropout, probability:, seed:, offset:, batch:, head:, row:, column:)
      @params.dropout = @dropout
    end

    def take_tensors(bool_kind, attn_mask: nil, bias: nil, query_offset: nil, key_lengths: nil, alibi_slopes: nil,
                     sinks: nil, query_starts: nil, mask_start: nil, position_bias: nil,
                     block_mask: nil)
      @tensors = {
        mask: Tensor.wrap(attn_mask),
        mask_start: Tensor.wrap(mask_start, dtype: :int64),
        bias: Tensor.wrap(bias),
        position_bias: Tensor.wrap(position_bias),
        block_mask: Tensor.wrap(block_mask, dtype: :uint8),
        query_offset: Tensor.wrap(query_offset, dtype: :int64),
        key_lengths: Tensor.wrap(key_lengths, dtype: :int64),
        alibi_slopes: Tensor.wrap(alibi_slopes),
        sinks: Tensor.wrap(sinks),
        query_starts: Tensor.wrap(query_starts, dtype: :int64)
      }
      @tensors.each { |field, tensor| @params[field.to_s] = tensor }
      @params.mask_kind = Choice.mask_kind(@tensors[:mask], bool_kind)
    end
  end
  private_constant :SdpaOptions
end
