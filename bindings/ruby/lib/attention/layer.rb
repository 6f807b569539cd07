# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/handle'
require 'attention/multihead_options'

module Attention
  # Multi-head attention: torch.nn.MultiheadAttention in evaluation mode, parameter names included.
  class Layer < Handle
    Parameter = Struct.new(:name, :shape)

    # :float32 or :float64
    attr_reader :dtype

    # A layer without parameters. config: see make_config. The context's allocator, if any, provides
    # the layer's memory.
    def initialize(context: nil, dtype: :float32, **config)
      @dtype = dtype
      @config = make_config(dtype: Tensor.code(dtype), **config)
      @bound = {}
      created = ABI.pointer_from { |cell| Error.check(ABI.attn_mha_create(context, @config, cell)) }
      super(created, 'attn_mha_destroy')
    end

    # The parameters of PyTorch's state_dict, in its order.
    def parameters
      count = Tensor.zeros(dtype: :int64)
      Error.check(ABI.attn_mha_parameter_count(self, count.data))
      Array.new(count.to_a) { |index| describe_parameter(index) }
    end

    # Copies a parameter into the layer.
    def load(name, values)
      Error.check(ABI.attn_mha_load_parameter(self, name, Tensor.wrap(values, dtype:)))
      @bound.delete(name)
    end

    # Uses a tensor's memory as a parameter, without a copy.
    def bind(name, tensor)
      Error.check(ABI.attn_mha_bind_parameter(self, name, tensor))
      @bound[name] = tensor
    end

    def load_state_dict(parameters)
      parameters.each { |name, values| load(name, values) }
    end

    # Copies of the parameters, by name.
    def state_dict
      parameters.to_h do |parameter|
        values = Tensor.zeros(*parameter.shape, dtype:)
        Error.check(ABI.attn_mha_read_parameter(self, parameter.name, values))
        [parameter.name, values]
      end
    end

    # Fresh values, distributed as PyTorch's; the same for the same seed.
    def init_parameters(seed)
      Error.check(ABI.attn_mha_init_parameters(self, seed))
      @bound.clear
    end

    # Returns attn_output and attn_weights, nil with need_weights: false. In bool masks, true is
    # masked out. attention: options of Attention.sdpa for the attention inside.
    def forward(query, key, value, need_weights: true, context: nil, **options)
      inputs = [query, key, value].map { |tensor| Tensor.wrap(tensor, dtype:) }
      call = MultiheadOptions.new(**options)
      output = Tensor.zeros(*inputs.first.shape[0...-1], @config.embed_dim, dtype:)
      if need_weights
        shape = weights_shape(*inputs.first(2), call.average_attn_weights)
        call.write_to(weights = Tensor.zeros(*shape, dtype:))
      end
      Error.check(ABI.attn_mha_forward(context, self, *inputs, call, output, nil, 0))
      [output, weights]
    end
    alias call forward

    private

    # The C struct; sizes of 0 are the defaults that multihead.h states.
    def make_config(embed_dim:, num_heads:, dtype:, kdim: 0, vdim: 0, qdim: 0, num_kv_heads: 0,
                    head_dim: 0, value_head_dim: 0, bias: true, add_bias_kv: false,
                    add_zero_attn: false, batch_first: false)
      ABI.make(:attn_mha_config,
               embed_dim:, num_heads:, kdim:, vdim:, qdim:,
               num_kv_heads:, head_dim:, value_head_dim:,
               dtype:, bias: Choice.switch(bias), add_bias_kv: Choice.flag(add_bias_kv),
               add_zero_attn: Choice.flag(add_zero_attn), batch_first: Choice.flag(batch_first))
    end

    def describe_parameter(index)
      view = ABI.make(:attn_tensor)
      name = ABI.pointer_from do |cell|
        Error.check(ABI.attn_mha_parameter_describe(self, index, cell, view))
      end
      Parameter.new(name.to_s, view.shape.first(view.rank))
    end

    # (N, L, T), per head (N, H, L, T), unbatched without N; T counts the columns added after the
    # keys. Ranks that contradict each other give any shape: the library says which is wrong.
    def weights_shape(query, key, is_averaged)
      is_batched = query.rank == 3
      sequence_axis = is_batched && @config.batch_first == 1 ? 1 : 0
      num_columns = key.shape.fetch(sequence_axis, 0) + @config.add_bias_kv + @config.add_zero_attn
      [
        *(query.shape[1 - sequence_axis] if is_batched),
        *(@config.num_heads unless is_averaged),
        query.shape.fetch(sequence_axis, 0),
        num_columns
      ]
    end
  end
end
