# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/tensor'

module Attention
  # The outputs of a call that are asked for, with memory or only as the library describes them.
  class Outputs
    WEIGHTS = { per_head: :weights, averaged: :averaged_weights }.freeze

    attr_reader :output, :lse, :weights

    # described: an attn_sdpa_outputs or attn_mha_outputs that the library filled; make: :room_for or
    # :described; out: the caller's output; weights: false or one of WEIGHTS.
    def initialize(described, make, out: nil, lse: false, weights: false)
      @output = out ? check_writable(out) : Tensor.public_send(make, described.output)
      @lse = Tensor.public_send(make, described.lse) if lse
      return unless weights

      field = Choice.of(:return_weights, WEIGHTS, weights)
      @weights = Tensor.public_send(make, described.public_send(field))
    end

    private

    def check_writable(out)
      return out if out.writable?

      raise FrozenError, 'out: expected a tensor of its own memory, got a view of a String'
    end
  end
  private_constant :Outputs
end
