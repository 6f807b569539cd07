# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/choice'

module Attention
  # Numbers of 16 bits from and to Ruby's, by their definition: a sign, an exponent, a fraction. A type's
  # numbers grow with their bits, which count the steps from 0.
  module Half
    # Numbers below 2**lowest are as far apart as those above it.
    Format = Struct.new(:fraction, :lowest, :infinity)

    FORMATS = {
      bfloat16: Format.new(7, -126, 0x7f80),
      float16: Format.new(10, -14, 0x7c00)
    }.freeze
    private_constant :Format, :FORMATS

    # Whether a dtype is one of these.
    def self.dtype?(dtype)
      FORMATS.key?(dtype)
    end

    # The bits of the nearest number, of two as near the one whose last bit is 0; from half a step beyond
    # the largest number on it is infinite.
    def self.bits(dtype, number)
      format = Choice.of(:dtype, FORMATS, dtype)
      number = Float(number)
      return format.infinity | (1 << (format.fraction - 1)) if number.nan?

      size_bits(format, number.abs) | (number.negative? || (1 / number).negative? ? 0x8000 : 0)
    end

    # Exactly the number that the bits are.
    def self.number(dtype, bits)
      format = Choice.of(:dtype, FORMATS, dtype)
      size = bits & 0x7fff
      return Float::NAN if size > format.infinity

      number = size == format.infinity ? Float::INFINITY : size_number(format, size)
      bits == size ? number : -number
    end

    def self.size_bits(format, size)
      return 0 if size.zero?
      return format.infinity if size.infinite?

      binade = [Math.frexp(size).last - 1, format.lowest].max
      steps = Math.ldexp(size, format.fraction - binade).round(half: :even)
      [steps + ((binade - format.lowest) << format.fraction), format.infinity].min
    end

    def self.size_number(format, size)
      binade = [(size >> format.fraction) - 1, 0].max
      Math.ldexp((size - (binade << format.fraction)).to_f, binade + format.lowest - format.fraction)
    end
    private_class_method :size_bits, :size_number
  end
end
