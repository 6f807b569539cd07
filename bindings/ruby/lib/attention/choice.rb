# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/abi'

module Attention
  # How options given as Ruby values become numbers of the C interface.
  module Choice
    # The value of a name among those there are.
    def self.of(argument, values, name)
      values.fetch(name) do
        raise ArgumentError, "#{argument}: expected one of #{values.keys.join(', ')}, got #{name.inspect}"
      end
    end

    # 0 or 1; numbers are the library's to check.
    def self.flag(value)
      return value if value.is_a?(Integer)

      value ? 1 : 0
    end

    # The kind of a mask; the caller knows whether true includes or excludes.
    def self.mask_kind(mask, bool_kind)
      return ABI::ATTN_MASK_NONE unless mask

      mask.dtype == :bool ? bool_kind : ABI::ATTN_MASK_ADDITIVE
    end
  end
end
