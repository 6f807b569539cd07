# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/error'
require 'attention/use_lock'

module Attention
  # An object of the library: freed when it is collected, or at once by #close.
  class Handle
    def initialize(pointer, destroy)
      @pointer = Fiddle::Pointer.new(pointer.to_i, 0, ABI[destroy])
      @lock = UseLock.new
    end

    # Waits for the calls under way; later ones are an error.
    def close
      @lock.alone { @pointer.call_free }
    end

    def closed?
      @pointer.freed?
    end

    # Runs the block, for a call of the library, while nobody closes the object or changes it.
    def use(&)
      @lock.share(&)
    end

    # Runs the block while no other call uses the object.
    def change(&)
      @lock.alone(&)
    end

    # Only within use or change.
    def to_ptr
      return @pointer unless closed?

      raise Error.new(Error::VALUE, "#{self.class.name}: expected an open one, got a closed one")
    end
  end
end
