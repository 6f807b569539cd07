# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Numbers of 16 bits: their conversion, attention on them, layers that keep them.

require 'attention'
require 'minitest/autorun'

# What the tests compute with.
module HalfNumbers
  DIGITS = { bfloat16: 8, float16: 11, float32: 24 }.freeze

  def numbers(*shape)
    flat = Array.new(shape.inject(1, :*)) { |index| (((index * 37) + 11) % 64 / 32.0) - 1 }
    shape.drop(1).reverse.inject(flat) { |values, length| values.each_slice(length).to_a }
  end

  def widened(tensor)
    Attention::Tensor.from(tensor.to_a, dtype: :float32)
  end

  # Within half a step of the result's type and what float32 is off by.
  def assert_near(expected, result)
    wanted = expected.to_a.flatten
    refute wanted.all?(&:zero?)
    wanted.zip(result.to_a.flatten) do |value, found|
      exponent = Math.frexp(value.abs + 1e-5).last
      assert_in_delta value, found, (2.0**(exponent - 1 - DIGITS.fetch(result.dtype))) + 1e-5
    end
  end
end

# Single numbers.
class HalfConversionTest < Minitest::Test
  Half = Attention::Half
  STEP = 2.0**-24
  EXPECTED = {
    float16: {
      1 => 0x3c00, -2 => 0xc000, -0.0 => 0x8000, 65_504 => 0x7bff, 65_519 => 0x7bff, 65_520 => 0x7c00,
      -Float::INFINITY => 0xfc00, STEP => 1, STEP / 2 => 0, 1.5 * STEP => 2, 1023 * STEP => 0x3ff,
      1023.5 * STEP => 0x400, 1024 * STEP => 0x400, 1 + (2.0**-11) => 0x3c00, 1 + (2.0**-11) + (2.0**-50) => 0x3c01,
      1 + (3 * (2.0**-11)) => 0x3c02
    },
    bfloat16: {
      1 => 0x3f80, -2 => 0xc000, 0.0 => 0, Float::INFINITY => 0x7f80, (2.0**128) - (2.0**104) => 0x7f80,
      1e300 => 0x7f80, 2.0**-133 => 1, 1 + (2.0**-8) => 0x3f80, 1 + (2.0**-8) + (2.0**-23) => 0x3f81,
      1 + (3 * (2.0**-8)) => 0x3f82
    }
  }.freeze

  def test_nearest_numbers
    EXPECTED.each do |dtype, list|
      list.each { |number, bits| assert_equal bits, Half.bits(dtype, number), "#{dtype} of #{number}" }
      assert_predicate Half.number(dtype, Half.bits(dtype, Float::NAN)), :nan?
    end
    assert_predicate Half.number(:float16, 0x7c01), :nan?
  end

  def test_all_numbers_come_back
    %i[bfloat16 float16].each do |dtype|
      lost = (0..0xffff).reject do |bits|
        number = Half.number(dtype, bits)
        number.nan? || Half.bits(dtype, number) == bits
      end
      assert_empty lost
    end
  end

  def test_other_types_have_no_bits
    error = assert_raises(ArgumentError) { Half.bits(:float32, 1) }
    assert_equal 'dtype: expected one of bfloat16, float16, got :float32', error.message
  end
end

# Calls and layers.
class HalfCallTest < Minitest::Test
  include HalfNumbers

  Tensor = Attention::Tensor

  def test_attention_is_that_of_the_numbers
    %i[bfloat16 float16].each do |dtype|
      narrow = Tensor.from(numbers(2, 3, 4), dtype:)
      wide = widened(narrow)
      options = { is_causal: true, return_lse: true, return_weights: true }
      expected = Attention.sdpa(wide, wide, wide, **options)
      results = Attention.sdpa(narrow, narrow, narrow, **options)
      assert_equal [dtype, :float32, dtype], results.map(&:dtype)
      expected.zip(results) { |wanted, found| assert_near(wanted, found) }
      unrounded = Tensor.zeros(2, 3, 4)
      Attention.sdpa(narrow, narrow, narrow, **options, out: unrounded)
      assert_equal expected.first.to_a, unrounded.to_a
    end
  end

  def test_keys_and_values_may_be_of_other_types
    query = Tensor.from(numbers(2, 3, 4))
    bits = numbers(24).map { |number| Attention::Half.bits(:bfloat16, number) }.pack('S*')
    key = Tensor.from_string(bits, dtype: :bfloat16, shape: [2, 3, 4])
    value = Tensor.from(numbers(2, 3, 4), dtype: :float16)
    output = Attention.sdpa(query, key, value)
    assert_equal :float32, output.dtype
    assert_near Attention.sdpa(query, widened(key), widened(value)), output
    double = Tensor.zeros(2, 3, 4, dtype: :float64)
    error = assert_raises(Attention::Error) { Attention.sdpa(value, double, double) }
    assert_equal [Attention::Error::DTYPE, 'key: expected dtype float32, bfloat16 or float16, got float64'],
                 [error.code, error.message]
  end

  def test_weights_stay_float32_where_a_context_asks
    [nil, 'avx512_bf16', 'neon_bf16'].each do |kernels|
      Attention::Context.open(kernels:, float32_weights: true) { |context| assert_weights_are_float32(context) }
    rescue Attention::Error => e
      raise unless kernels && e.code == Attention::Error::UNSUPPORTED

      puts "not on this machine: #{e.message}"
    end
  end

  def test_layers_keep_and_compute_with_sixteen_bits
    assert_layer_is_near(:bfloat16, :bfloat16)
    assert_layer_is_near(:float16, :float32)
    assert_layer_is_near(:float32, :bfloat16)
    assert_equal :float16, Attention::Layer.new(embed_dim: 8, num_heads: 2, dtype: :float16).parameter_dtype
  end

  def test_parameters_are_loaded_and_bound
    layer = Attention::Layer.new(embed_dim: 8, num_heads: 2, bias: false, parameter_dtype: :bfloat16)
    layer.load('out_proj.weight', numbers(8, 8))
    layer.bind('in_proj_weight', Tensor.zeros(24, 8, dtype: :bfloat16))
    assert_equal numbers(8, 8), layer.state_dict['out_proj.weight'].to_a
    assert_equal 0, layer.forward(*[numbers(3, 8)] * 3).first.to_a[2][7]
  end

  def test_float64_stands_alone
    error = assert_raises(Attention::Error) do
      Attention::Layer.new(embed_dim: 8, num_heads: 2, dtype: :float64, parameter_dtype: :float16)
    end
    assert_equal 'parameter_dtype: expected float64, or 0, beside dtype float64, got float16', error.message
  end

  private

  # Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256).
  def assert_weights_are_float32(context)
    query = Tensor.from([[1]] * 8, dtype: :bfloat16)
    key = Tensor.from([[0], [-77 / 256.0]], dtype: :bfloat16)
    value = Tensor.from([[0], [1]], dtype: :bfloat16)
    out = Tensor.zeros(8, 1)
    Attention.sdpa(query, key, value, out:, context:)
    out.to_a.flatten.each { |number| assert_in_delta 1 / (1 + Math.exp(77 / 256.0)), number, 1e-5 }
  end

  def assert_layer_is_near(dtype, parameter_dtype)
    layer = Attention::Layer.new(embed_dim: 8, num_heads: 2, dtype:, parameter_dtype:)
    layer.init_parameters(1)
    assert_equal [dtype, parameter_dtype], layer.describe.values_at(:dtype, :parameter_dtype)
    assert_equal [parameter_dtype], layer.state_dict.values.map(&:dtype).uniq
    wide_layer = Attention::Layer.new(embed_dim: 8, num_heads: 2)
    wide_layer.load_state_dict(layer.state_dict)
    tokens = Tensor.from(numbers(3, 8), dtype:)
    wide = widened(tokens)
    results = layer.forward(tokens, tokens, tokens)
    assert_equal [dtype, dtype], results.map(&:dtype)
    wide_layer.forward(wide, wide, wide).zip(results) { |wanted, found| assert_near(wanted, found) }
  end
end
