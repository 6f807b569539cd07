# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# What the wrapper adds to the library: memory, options, errors, layers as Ruby objects.

require 'attention'
require 'minitest/autorun'

QUERY = [[1, 0, 0, 0], [0, 4, 0, 0]].freeze
KEY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]].freeze
VALUE = [[10], [20], [30]].freeze
TOKENS = [[1, 0], [0, 1], [1, 1]].freeze
IDENTITY = [[1, 0], [0, 1]].freeze

# Nested arrays, strings and pointers as tensors.
class TensorTest < Minitest::Test
  Tensor = Attention::Tensor

  def test_nested_arrays_become_tensors
    floats = Tensor[[1, 2, 3], [4, 5, 6]]
    assert_equal [:float32, [2, 3], [3, 1]], [floats.dtype, floats.shape, floats.strides]
    assert_equal [[1, 2, 3], [4, 5, 6]], floats.to_a
    assert_equal [:bool, [true, false]], [Tensor[true, false].dtype, Tensor[true, false].to_a]
    assert_equal 7, Tensor.from(7, dtype: :int64).to_a
    assert_equal '#<Attention::Tensor float32 (2, 3)>', floats.inspect
  end

  def test_uneven_arrays_are_an_error
    error = assert_raises(ArgumentError) { Tensor[[1, 2], [3]] }
    assert_equal 'values: expected 2 in each array on axis 1, got [3]', error.message
  end

  def test_unknown_dtype_is_an_error
    error = assert_raises(ArgumentError) { Tensor.zeros(1, dtype: :half) }
    assert_equal 'dtype: expected one of float32, float64, bfloat16, float16, bool, int64, int32, int8, uint8, ' \
                 'got :half', error.message
  end

  def test_impossible_shape_is_an_error_of_the_library
    error = assert_raises(Attention::Error) { Tensor.zeros(-1) }
    assert_equal Attention::Error::VALUE, error.code
  end

  def test_string_is_viewed_and_stays_as_it_was
    bytes = [1.0, 2.0].pack('f*')
    tensor = Tensor.from_string(bytes, shape: [2])
    bytes.replace([3.0, 4.0].pack('f*'))
    assert_equal [1, 2], tensor.to_a
    refute_predicate tensor, :writable?
  end

  def test_string_of_the_wrong_length_is_an_error
    error = assert_raises(ArgumentError) { Tensor.from_string('1234567', shape: [2]) }
    assert_equal 'bytes: expected 8 for the shape, got 7', error.message
  end

  def test_pointer_is_read_by_strides
    memory = Fiddle::Pointer.malloc(24, Fiddle::RUBY_FREE)
    memory[0, 24] = [1, 2, 3, 4, 5, 6].pack('f*')
    columns = Tensor.from_pointer(memory, shape: [3, 2], strides: [1, 3])
    assert_equal [[1, 4], [2, 5], [3, 6]], columns.to_a
    memory[0, 4] = [7].pack('f')
    assert_equal [[7, 2, 3], [4, 5, 6]], columns.transpose.to_a
    assert_equal [[3, 6], [2, 5]], columns.slice(0, 2, 2, -1).to_a
    assert_equal [4, 5, 6], columns.select(-1, 1).to_a
    assert_raises(ArgumentError) { Tensor.from_pointer(memory, shape: [3, 2], strides: [1]) }
  end

  def test_view_leaves_no_memory_of_known_size
    memory = Fiddle::Pointer.malloc(24, Fiddle::RUBY_FREE)
    { float32: 6, float64: 3, bfloat16: 12, float16: 12, int64: 3, int32: 6, bool: 24 }.each do |dtype, count|
      assert_equal [count], Tensor.from_pointer(memory, shape: [count], dtype:).shape
      assert_equal [2, 0], Tensor.from_pointer(memory, shape: [2, 0], dtype:).shape
      error = assert_raises(ArgumentError) { Tensor.from_pointer(memory, shape: [count + 1], dtype:) }
      assert_match(/\Apointer: expected \d+ bytes for the shape, got 24\z/, error.message)
    end
    assert_raises(ArgumentError) { Tensor.from_pointer(memory + 4, shape: [2], strides: [5]) }
    assert_equal [2], Tensor.from_pointer(memory + 20, shape: [2], strides: [-5]).shape
    assert_raises(TypeError) { Tensor.from_pointer('12345678', shape: [2]) }
  end

  def test_pointer_to_data_keeps_the_memory
    pointers = Array.new(1000) { |index| Tensor[1, index].data }
    GC.start
    Array.new(1000) { Tensor[-1, -1] }
    pointers.each_with_index { |pointer, index| assert_equal [1, index], pointer[0, 8].unpack('ff') }
  end

  def test_heads_split_and_merge
    packed = Tensor[[1, 2, 3, 4], [5, 6, 7, 8]]
    heads = packed.split_heads(2)
    assert_equal [[[1, 2], [5, 6]], [[3, 4], [7, 8]]], heads.to_a
    assert_equal packed.to_a, heads.merge_heads.to_a
  end

  def test_view_keeps_its_memory_alive
    views = Array.new(1000) { |index| Tensor[[1, 2], [3, index]].transpose.slice(0, 1, 1) }
    GC.start
    GC.compact
    views.each_with_index { |view, index| assert_equal [[2, index]], view.to_a }
  end

  def test_empty_tensors_have_shapes
    assert_equal [[], []], Tensor.zeros(2, 0).to_a
    assert_equal [], Tensor.zeros(0, 2).to_a
  end
end

# Options, results and errors of a call.
class SdpaTest < Minitest::Test
  def test_returns_what_is_asked_for
    assert_in_delta 18.222059, Attention.sdpa(QUERY, KEY, VALUE).to_a[0][0], 1e-5
    output, lse = Attention.sdpa(QUERY, KEY, VALUE, return_lse: true)
    assert_equal [[2, 1], [2]], [output.shape, lse.shape]
    output, lse, weights = Attention.sdpa(QUERY, KEY, VALUE, return_lse: true, return_weights: true)
    assert_in_delta 20, output.to_a[1][0], 1e-5
    assert_in_delta Math.log(Math.exp(0.5) + 2), lse.to_a[0], 1e-5
    assert_in_delta 0.451863, weights.to_a[0][0], 1e-5
  end

  def test_writes_into_out_unless_it_is_a_string
    out = Attention::Tensor.zeros(2, 1)
    assert_same out, Attention.sdpa(QUERY, KEY, VALUE, out:)
    assert_in_delta 18.222059, out.to_a[0][0], 1e-5
    string = Attention::Tensor.from_string("\0" * 8, shape: [2, 1])
    assert_raises(FrozenError) { Attention.sdpa(QUERY, KEY, VALUE, out: string) }
  end

  def test_takes_plain_numbers_as_options
    assert_in_delta 10, Attention.sdpa(QUERY, KEY, VALUE, key_lengths: 1, scale: 0).to_a[1][0], 1e-5
    shifted = Attention.sdpa(QUERY, KEY, VALUE, is_causal: true, query_offset: 1, scale: 0)
    assert_in_delta 15, shifted.to_a[0][0], 1e-5
    assert_in_delta 25, Attention.sdpa(QUERY, KEY, VALUE, window: [0, 1], scale: 0).to_a[1][0], 1e-5
  end

  def test_true_in_a_mask_attends
    assert_in_delta 20, Attention.sdpa(QUERY, KEY, VALUE, attn_mask: [false, true, false]).to_a[0][0], 1e-5
  end

  def test_weights_are_per_head_or_averaged
    inputs = [[QUERY, [[0] * 4] * 2], [KEY, KEY], [VALUE, VALUE]]
    _, per_head = Attention.sdpa(*inputs, return_weights: true)
    _, averaged = Attention.sdpa(*inputs, return_weights: :averaged)
    assert_equal [[2, 2, 3], [2, 3]], [per_head.shape, averaged.shape]
    assert_in_delta (per_head.to_a[0][1][1] + (1 / 3r)) / 2, averaged.to_a[1][1], 1e-5
    error = assert_raises(ArgumentError) { Attention.sdpa(*inputs, return_weights: :both) }
    assert_equal 'return_weights: expected one of per_head, averaged, got :both', error.message
  end

  def test_bias_adds_beside_a_mask
    output = Attention.sdpa(QUERY, KEY, VALUE, scale: 0, bias: [[Math.log(3), 0, 0]], attn_mask: [true, true, false])
    assert_in_delta 12.5, output.to_a[0][0], 1e-5
  end

  def test_align_end_puts_the_last_query_at_the_last_key
    output = Attention.sdpa(QUERY, KEY, VALUE, is_causal: true, align_end: true, scale: 0)
    assert_in_delta 15, output.to_a[0][0], 1e-5
    assert_in_delta 20, output.to_a[1][0], 1e-5
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, KEY, VALUE, align_end: true, query_offset: 1) }
    assert_equal Attention::Error::VALUE, error.code
  end

  def test_lengths_may_be_int32
    lengths = Attention::Tensor.from(1, dtype: :int32)
    assert_in_delta 10, Attention.sdpa(QUERY, KEY, VALUE, key_lengths: lengths).to_a[1][0], 1e-5
  end

  def test_linear_weights_have_no_lse
    output = Attention.sdpa(QUERY, KEY, VALUE, normalizer: :linear, scale: 1)
    assert_in_delta 80, output.to_a[1][0], 1e-5
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, KEY, VALUE, normalizer: :linear, return_lse: true) }
    assert_match(/\Alse: /, error.message)
  end

  def test_what_a_later_version_may_know_is_unsupported
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, KEY, VALUE, is_causal: 2) }
    assert_equal [Attention::Error::UNSUPPORTED, 'is_causal'], [error.code, error.message[/\w+/]]
  end

  def test_explain_tells_what_runs
    Attention::Context.open(engine: :fused) do |context|
      report = Attention.explain(QUERY, KEY, VALUE, context:)
      assert_equal %i[fused native], report.values_at(:engine, :gemm)
      assert_includes report[:packs], :query
      assert_equal context.describe[:kernels], report[:kernels]
    end
  end

  def test_unknown_options_are_errors
    assert_raises(ArgumentError) { Attention.sdpa(QUERY, KEY, VALUE, causal: true) }
    error = assert_raises(ArgumentError) { Attention.sdpa(QUERY, KEY, VALUE, normalizer: :hardmax) }
    assert_equal 'normalizer: expected one of softmax, sigmoid, linear, got :hardmax', error.message
  end

  def test_error_has_code_name_and_message
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, VALUE, VALUE) }
    assert_equal [Attention::Error::SHAPE, 'ATTN_ERROR_SHAPE'], [error.code, error.code_name]
    assert_match(/\Akey: expected shape/, error.message)
    assert_equal Encoding::UTF_8, error.message.encoding
  end

  def test_threads_get_their_own_errors_without_the_global_lock
    refute_predicate Attention::ABI['attn_sdpa'], :need_gvl?
    threads = Array.new(4) do |number|
      Thread.new { Array.new(50) { refusal_of_width(number + 5) } }
    end
    threads.each_with_index do |thread, number|
      assert_equal ["(1, #{number + 5})"], thread.value.uniq
    end
  end

  private

  # The shape that the message names.
  def refusal_of_width(width)
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, [[0] * width], VALUE) }
    error.message[/got (.*)/, 1]
  end
end

# Contexts are described, used and closed.
class ContextTest < Minitest::Test
  def test_describes_itself_until_closed
    settings = { num_threads: 2, engine: :fused, gemm: :native }
    closed = Attention::Context.open(**settings, float32_weights: true) do |context|
      assert_equal settings, context.describe.slice(*settings.keys)
      assert_equal :native, context.describe[:projection_gemm]
      context.start
      assert_in_delta 20, Attention.sdpa(QUERY, KEY, VALUE, context:).to_a[1][0], 1e-5
      context
    end
    assert_predicate closed, :closed?
    closed.close
    error = assert_raises(Attention::Error) { Attention.sdpa(QUERY, KEY, VALUE, context: closed) }
    assert_equal 'Attention::Context: expected an open one, got a closed one', error.message
  end

  def test_selftest_passes
    assert_nil Attention.selftest
    Attention::Context.open(num_threads: 2) { |context| assert_nil Attention.selftest(context:) }
  end

  def test_takes_kernels_by_name
    Attention::Context.open(kernels: 'baseline') { |context| assert_equal 'baseline', context.describe[:kernels] }
    error = assert_raises(Attention::Error) { Attention::Context.new(kernels: 'abacus') }
    assert_equal Attention::Error::UNSUPPORTED, error.code
  end

  def test_context_is_no_address
    error = assert_raises(TypeError) { Attention.sdpa(QUERY, KEY, VALUE, context: 4096) }
    assert_equal 'context: expected an Attention::Context, got 4096', error.message
    assert_raises(TypeError) { Attention::Layer.new(embed_dim: 2, num_heads: 1, context: 'fused') }
    assert_raises(TypeError) { Attention::Layer.new(embed_dim: 2, num_heads: 1).bind('bias_k', 'bytes') }
  end

  def test_unknown_engine_is_an_error
    error = assert_raises(ArgumentError) { Attention::Context.new(engine: :gpu) }
    assert_equal 'engine: expected one of auto, blas, fused, got :gpu', error.message
  end
end

# Layers and their parameters.
class LayerTest < Minitest::Test
  def test_true_in_a_mask_is_excluded
    output, weights = identity_layer.call(TOKENS, TOKENS, TOKENS, key_padding_mask: [true, false, true])
    assert_in_delta 1, output.to_a[0][1], 1e-5
    assert_in_delta 1, weights.to_a[2][1], 1e-5
  end

  def test_takes_options_of_the_attention_inside
    layer = identity_layer
    causal, = layer.forward(TOKENS, TOKENS, TOKENS, is_causal: true)
    window, = layer.forward(TOKENS, TOKENS, TOKENS, window: [-1, 0])
    assert_equal causal.to_a, window.to_a
    _, weights = layer.forward(TOKENS, TOKENS, TOKENS, bias: [0, 0, -Float::INFINITY])
    assert_equal [0, 0, 0], weights.to_a.map(&:last)
    error = assert_raises(Attention::Error) { layer.forward(TOKENS, TOKENS, TOKENS, align_end: 2) }
    assert_equal Attention::Error::UNSUPPORTED, error.code
    assert_match(/\Aattention.align_end: /, error.message)
  end

  def test_returns_weights_per_head_and_lse
    layer = Attention::Layer.new(embed_dim: 4, num_heads: 2, add_zero_attn: true)
    layer.init_parameters
    tokens = Attention::Tensor.zeros(3, 5, 4)
    assert_equal [5, 3, 4], layer.call(tokens, tokens, tokens).last.shape
    _, weights, lse = layer.call(tokens, tokens, tokens, average_attn_weights: false, return_lse: true)
    assert_equal [[5, 2, 3, 4], [5, 2, 3]], [weights.shape, lse.shape]
    assert_in_delta Math.log(4), lse.to_a[0][0][0], 1e-5
  end

  def test_describes_itself
    config = Attention::Layer.new(embed_dim: 6, num_heads: 2, bias: false, batch_first: true).describe
    assert_equal [6, 3, false, true, :float32],
                 config.values_at(:kdim, :head_dim, :bias, :batch_first, :dtype)
    assert_equal config, Attention::Layer.new(**config).describe
  end

  def test_explains_a_call
    Attention::Context.open(engine: :blas, gemm: :native) do |context|
      report = identity_layer.explain(TOKENS, TOKENS, TOKENS, context:)
      assert_equal [:native, false], report.values_at(:projection_gemm, :depends_on_blas_threads)
      assert_equal :blas, report[:attention][:engine]
    end
  end

  def test_lists_and_returns_its_parameters
    layer = Attention::Layer.new(embed_dim: 4, num_heads: 2)
    assert_equal ['in_proj_weight', [12, 4]], layer.parameters.first.to_a
    assert_raises(Attention::Error) { layer.state_dict }
    layer.init_parameters(7)
    copy = Attention::Layer.new(embed_dim: 4, num_heads: 2)
    Attention::Context.open { |context| copy.load_state_dict(layer.state_dict(context:), context:) }
    tokens = Attention::Tensor[[1, 2, 3, 4], [4, 3, 2, 1]]
    assert_equal layer.call(tokens, tokens, tokens).first.to_a, copy.call(tokens, tokens, tokens).first.to_a
  end

  def test_bound_parameter_lives_with_the_layer_and_is_read_anew
    layer = identity_layer
    before = layer.call(TOKENS, TOKENS, TOKENS).first.to_a[0][0]
    memory = bind_zeros(layer)
    GC.start
    memory[0, 4] = [3].pack('f')
    assert_in_delta 3 * before, layer.call(TOKENS, TOKENS, TOKENS).first.to_a[0][0], 1e-5
  end

  def test_float64_converts_arrays
    output, weights = identity_layer(dtype: :float64).call(TOKENS, TOKENS, TOKENS, need_weights: false)
    assert_equal :float64, output.dtype
    assert_nil weights
  end

  def test_closed_layer_is_an_error
    layer = identity_layer
    layer.close
    error = assert_raises(Attention::Error) { layer.call(TOKENS, TOKENS, TOKENS) }
    assert_equal 'Attention::Layer: expected an open one, got a closed one', error.message
  end

  def test_unknown_sizes_are_errors
    assert_raises(ArgumentError) { Attention::Layer.new(embed_dim: 4, heads: 2) }
  end

  # 64 layers of a megabyte each.
  def test_collected_layers_free_their_parameters
    before = resident_kilobytes
    64.times do |seed|
      Attention::Layer.new(embed_dim: 256, num_heads: 4).init_parameters(seed)
      GC.start
    end
    assert_operator resident_kilobytes - before, :<, 16 * 1024
  end

  private

  # One head whose projections are all the identity.
  def identity_layer(dtype: :float32)
    layer = Attention::Layer.new(embed_dim: 2, num_heads: 1, bias: false, dtype:)
    %w[q_proj_weight k_proj_weight v_proj_weight out_proj.weight].each { |name| layer.load(name, IDENTITY) }
    layer
  end

  # Binds a parameter that nobody else holds and returns its memory.
  def bind_zeros(layer)
    weight = Attention::Tensor.zeros(2, 2)
    layer.bind('out_proj.weight', weight)
    weight.data
  end

  def resident_kilobytes
    File.read('/proc/self/status')[/^VmRSS:\s*(\d+)/, 1].to_i
  end
end
