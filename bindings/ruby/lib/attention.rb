# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/context'
require 'attention/layer'
require 'attention/sdpa'

# PyTorch's attention on the CPU: README.md is the manual.
#
#   output = Attention.sdpa([[1, 0]], [[1, 0], [0, 1]], [[10], [20]], is_causal: false)
module Attention
  # softmax(scale * query * key^T) * value: torch.nn.functional.scaled_dot_product_attention with the
  # options of sdpa.h. In a bool attn_mask, true takes part.
  #
  # Returns the output; with return_lse or return_weights an array of it, the lse and the weights, of
  # these what is asked for.
  def self.sdpa(query, key, value, context: nil, out: nil, return_lse: false, return_weights: false,
                **options)
    inputs = [query, key, value].map { |tensor| Tensor.wrap(tensor) }
    Sdpa.new(*inputs, SdpaOptions.new(**options)).call(context, out, return_lse, return_weights)
  end

  # The version of the library that runs.
  def self.version
    ABI.attn_version_string.to_s
  end
end
