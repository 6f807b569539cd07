# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/error'

module Attention
  # An object of the library: freed when it is collected, or at once by #close.
  class Handle
    def initialize(pointer, destroy)
      @pointer = Fiddle::Pointer.new(pointer.to_i, 0, ABI[destroy])
    end

    # Must not run while another thread uses the object.
    def close
      @pointer.call_free
    end

    def closed?
      @pointer.freed?
    end

    def to_ptr
      return @pointer unless closed?

      raise Error.new(Error::VALUE, "#{self.class.name}: expected an open one, got a closed one")
    end
  end
end
