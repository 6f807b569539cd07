# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/tensor'

module Attention
  # Where keys and values of sequences lie, as the C struct and the tensors that it points to.
  class Kv
    # Of the hash that is given as an option, nil for none.
    def self.wrap(fields)
      fields && new(**fields)
    end

    def initialize(key: nil, value: nil, page_table: nil, page_starts: nil, starts: nil, lengths: nil)
      @rows = { key: Tensor.wrap(key), value: Tensor.wrap(value) }
      @places = { page_table:, page_starts:, starts:, lengths: }.transform_values do |places|
        Tensor.wrap(places, dtype: :int64)
      end
      @params = ABI.make(:attn_kv, **@rows, **@places)
    end

    # Raises if what is stored would go nowhere, or where the library does not write.
    def check_writable
      @rows.compact.each do |name, rows|
        next if rows.writable?

        raise FrozenError, "kv.#{name}: expected a tensor of its own memory, got arrays or a view of a String"
      end
    end

    def to_ptr
      @params.to_ptr
    end
  end
  private_constant :Kv
end
