# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/tensor'

module Attention
  # Where keys and values of sequences lie, as the C struct and the tensors that it points to.
  class Kv
    # key and value.
    attr_reader :rows

    # Of the hash that is given as an option, nil for none.
    def self.wrap(fields)
      fields && new(**fields)
    end

    def initialize(key: nil, value: nil, page_table: nil, page_starts: nil, starts: nil, lengths: nil, **scales)
      @rows = { key: Tensor.wrap(key), value: Tensor.wrap(value) }
      @scales = wrap_scales(**scales)
      @places = { page_table:, page_starts:, starts:, lengths: }.transform_values do |places|
        Tensor.wrap(places, dtype: :int64)
      end
      @params = ABI.make(:attn_kv, **@rows, **@places, **@scales)
    end

    # Raises if what is stored would go nowhere, or where the library does not write.
    def check_writable
      { **@rows, **@scales.select { |name, scale| written?(name, scale) } }.compact.each do |name, tensor|
        next if tensor.writable?

        raise FrozenError, "kv.#{name}: expected a tensor of its own memory, got arrays or a view of a String"
      end
    end

    def to_ptr
      @params.to_ptr
    end

    private

    # Of keys and values of integers, which mean (element - zero) * scale.
    def wrap_scales(key_scale: nil, value_scale: nil, key_zero: nil, value_zero: nil)
      { key_scale:, value_scale:, key_zero:, value_zero: }.transform_values { |scale| Tensor.wrap(scale) }
    end

    # Whether a scale or zero is each row's own; a coarser one is read.
    def written?(name, scale)
      rows = @rows[name.start_with?('key') ? :key : :value]
      scale && rows && scale.shape[-2] == rows.shape[-2]
    end
  end
  private_constant :Kv
end
