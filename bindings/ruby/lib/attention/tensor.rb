# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/choice'
require 'attention/error'
require 'attention/half'
require 'attention/nested_arrays'

module Attention
  # A view of memory, which it keeps alive. Axes and positions are counted from 0, negative axes from
  # the end.
  class Tensor
    # What the library calls a type of element, what Array#pack calls it, and its size.
    Element = Struct.new(:code, :directive, :bytes)

    ELEMENTS = {
      float32: Element.new(ABI::ATTN_DTYPE_FLOAT32, 'f', 4),
      float64: Element.new(ABI::ATTN_DTYPE_FLOAT64, 'd', 8),
      bfloat16: Element.new(ABI::ATTN_DTYPE_BFLOAT16, 'S', 2),
      float16: Element.new(ABI::ATTN_DTYPE_FLOAT16, 'S', 2),
      bool: Element.new(ABI::ATTN_DTYPE_BOOL, 'C', 1),
      int64: Element.new(ABI::ATTN_DTYPE_INT64, 'q', 8),
      int32: Element.new(ABI::ATTN_DTYPE_INT32, 'l', 4),
      int8: Element.new(ABI::ATTN_DTYPE_INT8, 'c', 1),
      uint8: Element.new(ABI::ATTN_DTYPE_UINT8, 'C', 1)
    }.freeze

    BOOLS = { true => 1, false => 0 }.freeze

    # :float32, :float64, :bfloat16, :float16, :bool, :int64, :int32, :int8 or :uint8
    attr_reader :dtype

    # The lengths of the axes, and the elements from one index of an axis to the next.
    attr_reader :shape, :strides

    class << self
      # Tensor[[1, 2], [3, 4]] is a copy of nested arrays: float32, or bool if they hold booleans.
      def [](*values, dtype: nil)
        from(values, dtype:)
      end

      # A copy of nested arrays, or of one number or boolean.
      def from(values, dtype: nil)
        shape, first = NestedArrays.measure(values)
        dtype ||= BOOLS.key?(first) ? :bool : :float32
        numbers = NestedArrays.flatten(values, shape).map { |value| BOOLS.fetch(value, value) }
        numbers.map! { |number| Half.bits(dtype, number) } if Half.dtype?(dtype)
        from_string(numbers.pack("#{element(dtype).directive}*"), dtype:, shape:)
      end

      # A view of a string's bytes, such as Array#pack or a file gives. It is an input: the library
      # does not write to strings.
      def from_string(bytes, shape:, dtype: :float32)
        expected = count_bytes(dtype, shape)
        unless bytes.bytesize == expected
          raise ArgumentError, "bytes: expected #{expected} for the shape, got #{bytes.bytesize}"
        end

        # The pointer pins the frozen copy, which shares the memory of a long string.
        memory = Fiddle::Pointer[bytes.dup.freeze]
        new(make_view(memory, dtype, shape), memory, writable: false)
      end

      # A view of memory that stays the caller's, in C order unless strides (in elements) are given.
      def from_pointer(pointer, shape:, dtype: :float32, strides: nil)
        raise TypeError, 'pointer: got a String, which from_string views' if pointer.is_a?(String)

        if strides && strides.size != shape.size
          raise ArgumentError, "strides: expected #{shape.size}, one for each axis, got #{strides.size}"
        end

        view = make_view(pointer, dtype, shape, strides)
        check_inside(pointer, view, element(dtype).bytes)
        new(view, pointer)
      end

      # New memory.
      def zeros(*shape, dtype: :float32)
        bytes = count_bytes(dtype, shape)
        memory = Fiddle::Pointer.malloc([bytes, 1].max, Fiddle::RUBY_FREE)
        memory[0, bytes] = "\0" * bytes
        new(make_view(memory, dtype, shape), memory)
      end

      # A tensor as the library describes it, in a C struct, without memory.
      def described(view)
        new(ABI.copy(:attn_tensor, view), nil)
      end

      # New memory for it. What has no dtype stays without: the library refuses it by name.
      def room_for(view)
        tensor = described(view)
        tensor.dtype ? zeros(*tensor.shape, dtype: tensor.dtype) : tensor
      end

      # Tensors as they are, nil too; anything else as Tensor.from makes of it.
      def wrap(values, dtype: nil)
        values.nil? || values.is_a?(Tensor) ? values : from(values, dtype:)
      end

      # The library's number for a dtype.
      def code(dtype)
        element(dtype).code
      end

      private

      def element(dtype)
        Choice.of(:dtype, ELEMENTS, dtype)
      end

      def count_bytes(dtype, shape)
        make_view(nil, dtype, shape)
        shape.inject(element(dtype).bytes, :*)
      end

      # Only of memory that Fiddle allocated, or knows for another reason, is there a size.
      def check_inside(pointer, view, element_bytes)
        size = pointer.is_a?(Fiddle::Pointer) ? pointer.size : 0
        lengths = view.shape.first(view.rank)
        return if size <= 0 || lengths.include?(0)

        last = lengths.zip(view.strides).sum { |length, stride| [(length - 1) * stride, 0].max }
        expected = (last + 1) * element_bytes
        return if expected <= size

        raise ArgumentError, "pointer: expected #{expected} bytes for the shape, got #{size}"
      end

      def make_view(pointer, dtype, shape, strides = nil)
        view = ABI.make(:attn_tensor)
        arguments = [view, pointer, code(dtype), shape.size, shape.pack('q*')]
        status = if strides
                   ABI.attn_tensor_init_strided(*arguments, strides.pack('q*'))
                 else
                   ABI.attn_tensor_init(*arguments)
                 end
        Error.check(status)
        view
      end
    end

    def initialize(view, memory, writable: true)
      @view = view
      @memory = memory
      @writable = writable
      @dtype, @element = ELEMENTS.find { |_, element| element.code == view.dtype }
      @shape = view.shape.first(view.rank).freeze
      @strides = view.strides.first(view.rank).freeze
    end
    private_class_method :new

    # Whether the library may write to it: false for a string's bytes.
    def writable?
      @writable
    end

    def rank
      shape.size
    end

    # The C view.
    def to_ptr
      @view.to_ptr
    end

    # Element (0, ..., 0): a pointer that keeps the memory, but not when it is moved (`data + 4`).
    def data
      @view.data.tap { |pointer| pointer.instance_variable_set(:@tensor, self) }
    end

    def inspect
      "#<#{self.class.name} #{dtype} (#{shape.join(', ')})>"
    end

    # Nested arrays of the values; one value for rank 0.
    def to_a
      read(0, 0)
    end

    # The views below share the tensor's memory.

    def transpose(axis_a = -2, axis_b = -1)
      derive { |view| ABI.attn_tensor_transpose(@view, axis_a, axis_b, view) }
    end

    # `length` positions of an axis: start, start + step, ...
    def slice(axis, start, length, step = 1)
      derive { |view| ABI.attn_tensor_slice(@view, axis, start, length, step, view) }
    end

    # Position `index` of an axis, which the result does not have.
    def select(axis, index)
      derive { |view| ABI.attn_tensor_select(@view, axis, index, view) }
    end

    # (..., L, num_heads * head_dim) -> (..., num_heads, L, head_dim)
    def split_heads(num_heads)
      derive { |view| ABI.attn_tensor_split_heads(@view, num_heads, view) }
    end

    # (..., num_heads, L, head_dim) -> (..., L, num_heads * head_dim)
    def merge_heads
      derive { |view| ABI.attn_tensor_merge_heads(@view, view) }
    end

    private

    def derive
      view = ABI.make(:attn_tensor)
      Error.check(yield(view))
      Tensor.send(:new, view, @memory, writable: @writable)
    end

    def read(axis, position)
      return read_dense(position, 1).first if axis == rank
      return read_dense(position, shape[axis]) if axis == rank - 1 && strides[axis] == 1

      Array.new(shape[axis]) { |index| read(axis + 1, position + (index * strides[axis])) }
    end

    def read_dense(position, count)
      return [] if count.zero?

      numbers = data[position * @element.bytes, count * @element.bytes].unpack("#{@element.directive}*")
      return numbers.map { |bits| Half.number(dtype, bits) } if Half.dtype?(dtype)

      dtype == :bool ? numbers.map { |number| number != 0 } : numbers
    end
  end
end
