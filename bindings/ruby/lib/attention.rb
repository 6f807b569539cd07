# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/backward_call'
require 'attention/context'
require 'attention/kv_append'
require 'attention/layer'
require 'attention/merge_call'
require 'attention/row_calls'
require 'attention/sdpa_call'

# PyTorch's attention on the CPU: README.md is the manual.
#
#   output = Attention.sdpa([[1, 0]], [[1, 0], [0, 1]], [[10], [20]], is_causal: false)
module Attention
  # softmax(scale * query * key^T) * value: torch.nn.functional.scaled_dot_product_attention with the
  # options of sdpa.h. In a bool attn_mask, true takes part. With kv, key and value are left out.
  #
  # Returns the output; with return_lse, return_weights (true or :per_head, or :averaged) or
  # return_scores (true or :scaled, :capped or :masked) an array of it, the lse, the weights and the
  # scores, of these what is asked for.
  def self.sdpa(query, key = nil, value = nil, **options)
    SdpaCall.new([query, key, value], **options).run
  end

  # The gradients of a call of sdpa with the same options: a hash of those wanted, by the names of what
  # they are of. made: an array of what that call returned, the output and its lse. given: a hash of the
  # gradients of output, and of lse and weights, which may be left out. out: tensors that some go to, to
  # which accumulate adds them.
  def self.sdpa_backward(query, key, value, made, given, **options)
    BackwardCall.new([query, key, value], made, given, **options).run
  end

  # What a call of sdpa would run, and why: a hash.
  def self.explain(query, key = nil, value = nil, **options)
    SdpaCall.new([query, key, value], **options).explain
  end

  # What a call of sdpa_backward would run, and why: a hash.
  def self.explain_backward(query, key, value, made, given, **options)
    BackwardCall.new([query, key, value], made, given, **options).explain
  end

  # Stores new rows, converted, key (batch axes, Hk, L, E) and value (batch axes, Hv, L, Ev), where kv
  # says, a hash as sdpa takes it, at the end of its lengths, which count them already, or at positions.
  def self.kv_append(kv, key, value, **options)
    KvAppend.new(kv, [key, value], **options).run
  end

  # Puts together what was attended over parts of the keys, arrays of an output and its lse, and returns
  # these two; without any lse the outputs are added, and the sum is returned. Options: sinks, out,
  # out_lse, context.
  def self.merge(parts, **options)
    MergeCall.new(parts, **options).run
  end

  # Rotates the features of an input (batch axes, H, L, E) by the positions of its rows; the options are
  # those of rope.h, out (which may be the input) and context. Returns the output.
  def self.rope(input, **options)
    RopeCall.new(input, **options).run
  end

  # Divides each row of an input (..., E) by the root of the mean of its squares. Options: weight,
  # epsilon, weight_offset, out (which may be the input), context. Returns the output.
  def self.rms_norm(input, **options)
    RmsNormCall.new(input, **options).run
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
