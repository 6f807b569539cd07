# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/context'
require 'attention/kv_append'
require 'attention/layer'
require 'attention/sdpa_call'

# PyTorch's attention on the CPU: README.md is the manual.
#
#   output = Attention.sdpa([[1, 0]], [[1, 0], [0, 1]], [[10], [20]], is_causal: false)
module Attention
  # softmax(scale * query * key^T) * value: torch.nn.functional.scaled_dot_product_attention with the
  # options of sdpa.h. In a bool attn_mask, true takes part. With kv, key and value are left out.
  #
  # Returns the output; with return_lse or return_weights (true or :per_head, or :averaged) an array of
  # it, the lse and the weights, of these what is asked for.
  def self.sdpa(query, key = nil, value = nil, **options)
    SdpaCall.new([query, key, value], **options).run
  end

  # What that call would run, and why: a hash.
  def self.explain(query, key = nil, value = nil, **options)
    SdpaCall.new([query, key, value], **options).explain
  end

  # Stores new rows, converted, key (batch axes, Hk, L, E) and value (batch axes, Hv, L, Ev), where kv
  # says, a hash as sdpa takes it, at the end of its lengths, which count them already, or at positions.
  def self.kv_append(kv, key, value, **options)
    KvAppend.new(kv, [key, value], **options).run
  end

  # Raises an Error unless what has a known result is computed so.
  def self.selftest(context: nil)
    Call.make(:attn_selftest, context, nil)
  end

  # The version of the library that runs.
  def self.version
    ABI.attn_version_string.to_s
  end
end
