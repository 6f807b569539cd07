# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/tensor'

module Attention
  # The outputs of a call that are asked for, with memory or only as the library describes them.
  class Outputs
    WEIGHTS = { per_head: :weights, averaged: :averaged_weights }.freeze

    attr_reader :output, :lse, :weights, :scores

    # The tensor that a call is to fill: the caller's, or a new one like `model`; nil where that is nil.
    def self.like(model, name, given)
      return check_writable(name, given) if given

      Tensor.zeros(*model.shape, dtype: model.dtype) if model
    end

    def self.check_writable(name, given)
      return given if given.writable?

      raise FrozenError, "#{name}: expected a tensor of its own memory, got a view of a String"
    end

    # described: an attn_sdpa_outputs or attn_mha_outputs that the library filled; make: :room_for or
    # :described; out: the caller's output; weights: false or one of WEIGHTS.
    def initialize(described, make, out: nil, lse: false, weights: false, scores: false)
      @output = out ? Outputs.check_writable(:out, out) : Tensor.public_send(make, described.output)
      @lse = Tensor.public_send(make, described.lse) if lse
      @scores = Tensor.public_send(make, described.scores) if scores
      return unless weights

      field = Choice.of(:return_weights, WEIGHTS, weights)
      @weights = Tensor.public_send(make, described.public_send(field))
    end
  end
  private_constant :Outputs
end
