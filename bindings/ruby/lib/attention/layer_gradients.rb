# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/backward_call'

module Attention
  # The gradients of a layer's call that are given and wanted, as the C struct and what it points to.
  class LayerGradients
    INPUTS = %i[query key value].freeze
    OPTIONS = BackwardCall::FIELDS.except(*INPUTS).freeze
    private_constant :INPUTS, :OPTIONS

    # The gradients that are wanted, by the names of what they are of.
    attr_reader :found

    # call: that of the layer; given: the gradients of output, and of lse and weights, by name.
    def initialize(call, given, wanted: nil, out: {}, accumulate: false)
      @call = call
      @parameters = call.layer.parameters
      take_given(**given)
      names = wanted || (out.empty? ? INPUTS + @parameters.map(&:name) : [])
      @found = (names | out.keys).to_h { |name| [name, make_place(name, out[name])] }
      @views = Fiddle::Pointer[ABI.views(@parameters.map { |parameter| @found[parameter.name] })]
      @attention = ABI.make(:attn_sdpa_gradients, lse: @lse, weights: @weights,
                                                  **@found.slice(*OPTIONS.keys).transform_keys(OPTIONS))
      @params = ABI.make(:attn_mha_gradients, accumulate: Choice.flag(accumulate), output: @output,
                                              parameters: @views, num_parameters: @parameters.size,
                                              attention: @attention, **@found.slice(*INPUTS))
    end

    def to_ptr
      @params.to_ptr
    end

    private

    def take_given(output: nil, lse: nil, weights: nil)
      dtype = @call.layer.dtype
      @output = Tensor.wrap(output, dtype:)
      @lse = Tensor.wrap(lse, dtype: dtype == :float64 ? dtype : :float32)
      @weights = Tensor.wrap(weights, dtype:)
    end

    # The caller's tensor, or zeros like what it is the gradient of.
    def make_place(name, given)
      parameter = @parameters.find { |one| one.name == name }
      return Outputs.like(input(name), :"out.#{name}", given) || Tensor.zeros(1) unless parameter

      given ? Outputs.check_writable(:"out.#{name}", given) : zeros_like(parameter)
    end

    def zeros_like(parameter)
      Tensor.zeros(*parameter.shape, dtype: @call.layer.parameter_dtype)
    end

    # nil where the call has none, which the library says.
    def input(name)
      Choice.of(:wanted, { **BackwardCall::FIELDS, **@parameters.to_h(&:to_a) }, name)
      @call.input(name)
    end
  end
  private_constant :LayerGradients
end
