# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention'

# One exported case: lines of text, those of tensors followed by their elements.
class CaseFile
  ELEMENT_BYTES = { float32: 4, float64: 8, bfloat16: 2, float16: 2, bool: 1, int64: 8, int32: 4, uint8: 1 }.freeze
  Expectation = Struct.new(:tolerance, :tensor)
  Refusal = Struct.new(:code, :message)

  attr_reader :call, :options, :tensors, :expected, :error

  def initialize(path)
    @options = {}
    @tensors = {}
    @expected = {}
    File.open(path, 'rb') do |file|
      while (line = file.gets("\n", chomp: true))
        read_record(file, *line.split(' ', 2))
      end
    end
  end

  private

  def read_record(file, kind, rest)
    case kind
    when 'call' then @call = rest
    when 'option' then read_option(*rest.split(' ', 2))
    when 'tensor' then read_tensor(file, *rest.split)
    when 'expect' then read_expected(file, *rest.split)
    when 'error' then read_error(*rest.split(' ', 2))
    else raise "unknown record #{kind}"
    end
  end

  def read_option(name, value)
    @options[name.to_sym] = Integer(value, exception: false) || Float(value, exception: false) || value.to_sym
  end

  def read_tensor(file, name, *header)
    @tensors[name.to_sym] = read_elements(file, *header)
  end

  def read_expected(file, name, tolerance, *header)
    @expected[name.to_sym] = Expectation.new(Float(tolerance), read_elements(file, *header))
  end

  def read_error(code, message)
    @error = Refusal.new(Integer(code), message)
  end

  def read_elements(file, dtype, rank, *lengths)
    shape = lengths.map { |length| Integer(length) }
    raise "expected #{rank} lengths, got #{lengths}" unless shape.size == Integer(rank)

    bytes = shape.inject(ELEMENT_BYTES.fetch(dtype.to_sym), :*)
    Attention::Tensor.from_string(file.read(bytes), shape:, dtype: dtype.to_sym)
  end
end
