# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

module Attention
  # Arrays of arrays as shape and values.
  module NestedArrays
    # The lengths on the way to the first value, and that value.
    def self.measure(values)
      shape = []
      while values.is_a?(Array)
        shape << values.size
        values = values.first
      end
      [shape, values]
    end

    # The values in C order; every array must have the length that its axis has.
    def self.flatten(values, shape, axis = 0)
      return [values] if axis == shape.size

      unless values.is_a?(Array) && values.size == shape[axis]
        raise ArgumentError,
              "values: expected #{shape[axis]} in each array on axis #{axis}, got #{values.inspect}"
      end
      values.flat_map { |value| flatten(value, shape, axis + 1) }
    end
  end
end
