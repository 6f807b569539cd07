# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/kv'

module Attention
  # One call that stores new rows of keys and values.
  class KvAppend
    def initialize(fields, rows, context: nil, starts: nil, positions: nil)
      @kv = Kv.wrap(fields)
      @kv&.check_writable
      @rows = rows.map { |tensor| Tensor.wrap(tensor) }
      @context = context
      @places = { starts:, positions: }.transform_values { |places| Tensor.wrap(places, dtype: :int64) }
      @params = ABI.make(:attn_kv_append_params, **@places)
    end

    def run
      Call.make(:attn_kv_append, @context, @kv, *@rows, @params)
    end
  end
  private_constant :KvAppend
end
