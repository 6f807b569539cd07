# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/multihead_call'
require 'attention/saved_forward'

module Attention
  # Multi-head attention: torch.nn.MultiheadAttention in evaluation mode, parameter names included.
  # Threads may share a layer: loading, binding and initialising wait for calls under way, and calls for
  # them.
  class Layer < Handle
    Parameter = Struct.new(:name, :shape)

    NORMS = {
      nil => ABI::ATTN_QK_NORM_NONE,
      head: ABI::ATTN_QK_NORM_HEAD,
      all_heads: ABI::ATTN_QK_NORM_ALL_HEADS
    }.freeze
    SIZES = %i[embed_dim num_heads kdim vdim qdim num_kv_heads head_dim value_head_dim].freeze
    FLAGS = %i[add_bias_kv add_zero_attn batch_first].freeze
    private_constant :NORMS, :SIZES, :FLAGS

    # :float32, :float64, :bfloat16 or :float16: of query, key, value and output, and of the parameters
    # that the layer keeps, of which weights may be :int8
    attr_reader :dtype, :parameter_dtype

    # A layer without parameters. config: see make_config. The context's allocator, if any, provides
    # the layer's memory.
    def initialize(context: nil, dtype: :float32, parameter_dtype: dtype, **config)
      @dtype = dtype
      @parameter_dtype = parameter_dtype
      @bound = {}
      made = make_config(dtype: Tensor.code(dtype), parameter_dtype: Tensor.code(parameter_dtype), **config)
      created = ABI.pointer_from { |cell| Call.make(:attn_mha_create, context, made, cell) }
      super(created, 'attn_mha_destroy')
    end

    # What the layer is: keywords that make the same, with every size.
    def describe
      config = ABI.make(:attn_mha_config)
      Call.make(:attn_mha_describe, self, config)
      {
        **SIZES.to_h { |name| [name, config[name.to_s]] },
        **FLAGS.to_h { |name| [name, config[name.to_s] == 1] },
        bias: config.no_bias.zero?, dtype:, parameter_dtype:, qk_norm: NORMS.key(config.qk_norm),
        qk_norm_epsilon: config.qk_norm_epsilon, qk_norm_weight_offset: config.qk_norm_weight_offset
      }
    end

    # The parameters of PyTorch's state_dict, in its order.
    def parameters
      count = Tensor.zeros(dtype: :int64)
      Call.make(:attn_mha_parameter_count, self, count.data)
      Array.new(count.to_a) { |index| describe_parameter(index) }
    end

    # Copies a parameter into the layer, on the threads of a context.
    def load(name, values, context: nil)
      Call.make(:attn_mha_load_parameter, context, self, name, wrap(values), nil) { @bound.delete(name) }
    end

    # Uses a tensor's memory, of the parameter_dtype, as a parameter, without a copy.
    def bind(name, tensor)
      raise TypeError, "tensor: expected an #{Tensor}, got #{tensor.inspect}" unless tensor.is_a?(Tensor)

      Call.make(:attn_mha_bind_parameter, self, name, tensor) { @bound[name] = tensor }
    end

    def load_state_dict(parameters, context: nil)
      parameters.each { |name, values| load(name, values, context:) }
    end

    # Copies of the parameters, by name.
    def state_dict(context: nil)
      parameters.to_h do |parameter|
        values = Tensor.zeros(*parameter.shape, dtype: values_dtype)
        Call.make(:attn_mha_read_parameter, context, self, parameter.name, values)
        [parameter.name, values]
      end
    end

    # Fresh values, distributed as PyTorch's; the same for the same seed.
    def init_parameters(seed = 0, context: nil)
      params = ABI.make(:attn_mha_init_params, seed:)
      Call.make(:attn_mha_init_parameters, context, self, params) { @bound.clear }
    end

    # Returns attn_output and attn_weights, nil with need_weights: false; with return_lse: true also the
    # lse, and with return_scores the scores. In bool masks, true is masked out. The other options are those of Attention.sdpa.
    # With cache, a hash as kv has it, keys and values are stored behind those of earlier calls, which
    # its lengths count already, and all are attended to; without key and value it is only read. rope:
    # the keywords of Attention.rope, {} for its defaults.
    def forward(query, key = nil, value = nil, **options)
      MultiheadCall.new(self, [query, key, value], **options).run
    end
    alias call forward

    # As forward, with a SavedForward as the first result, before the others.
    def forward_saving(query, key, value, **options)
      call = MultiheadCall.new(self, [query, key, value], **options)
      results = call.run_saving
      [SavedForward.new(call), *results]
    end

    # What that call would run, and why.
    def explain(query, key = nil, value = nil, **options)
      MultiheadCall.new(self, [query, key, value], **options).explain
    end

    private

    # Of parameters that go in and out: weights of int8 as what they mean.
    def values_dtype
      parameter_dtype == :int8 ? :float32 : parameter_dtype
    end

    def wrap(values)
      Tensor.wrap(values, dtype: values_dtype)
    end

    # The C struct; sizes of 0 are the defaults that multihead.h states.
    def make_config(embed_dim:, num_heads:, dtype:, parameter_dtype:, kdim: 0, vdim: 0, qdim: 0, num_kv_heads: 0,
                    head_dim: 0, value_head_dim: 0, bias: true, add_bias_kv: false,
                    add_zero_attn: false, batch_first: false, qk_norm: nil, qk_norm_epsilon: 0.0,
                    qk_norm_weight_offset: 0.0)
      ABI.make(:attn_mha_config,
               embed_dim:, num_heads:, kdim:, vdim:, qdim:,
               num_kv_heads:, head_dim:, value_head_dim:,
               dtype:, parameter_dtype:, no_bias: Choice.flag(bias == false), add_bias_kv: Choice.flag(add_bias_kv),
               add_zero_attn: Choice.flag(add_zero_attn), batch_first: Choice.flag(batch_first),
               qk_norm: Choice.of(:qk_norm, NORMS, qk_norm), qk_norm_epsilon:, qk_norm_weight_offset:)
    end

    def describe_parameter(index)
      view = ABI.make(:attn_tensor)
      name = ABI.pointer_from do |cell|
        Call.make(:attn_mha_parameter_describe, self, index, cell, view)
      end
      Parameter.new(name.to_s, view.shape.first(view.rank))
    end
  end
end
