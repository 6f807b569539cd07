# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/handle'

module Attention
  # The way of every call that gets a context or a layer: other Ruby threads run meanwhile, and none of
  # them may free or change what the call uses.
  module Call
    # Calls a function of the library and raises what it reports; then, still undisturbed, runs the
    # block.
    def self.make(function, *arguments)
      check_context(arguments.first) if ABI::WITH_CONTEXT.include?(function)
      holding(function, arguments.grep(Handle)) do
        Error.check(ABI.public_send(function, *arguments))
        yield if block_given?
      end
    end

    # Anything else would be taken for an address.
    def self.check_context(context)
      return if context.nil? || context.is_a?(Context)

      raise TypeError, "context: expected an #{Context}, got #{context.inspect}"
    end

    # A context comes before a layer, here as in every function: no two calls wait for each other.
    def self.holding(function, handles, &block)
      return yield if handles.empty?

      first, *others = handles
      within = -> { holding(function, others, &block) }
      changes?(function, first) ? first.change(&within) : first.use(&within)
    end

    def self.changes?(function, handle)
      handle.is_a?(Layer) && ABI::CHANGE_THEIR_LAYER.include?(function)
    end
    private_class_method :check_context, :holding, :changes?
  end
  private_constant :Call
end
