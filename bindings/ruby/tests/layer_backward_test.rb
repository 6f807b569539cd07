# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# What a layer's gradients are taken from, and how they are asked for; their numbers are those of the
# exported cases.

require 'attention'
require 'minitest/autorun'

class LayerBackwardTest < Minitest::Test
  Tensor = Attention::Tensor
  ABI = Attention.const_get(:ABI)

  def self.numbers(rows, columns)
    Array.new(rows) { |r| Array.new(columns) { |c| (((((r * columns) + c) * 37) + 11) % 64 / 32.0) - 1 } }
  end

  TOKENS = Tensor.from(numbers(3, 8), dtype: :float64)
  GIVEN = { output: TOKENS }.freeze
  MASK = numbers(3, 3)
  STEP = 1e-4

  def setup
    @layer = Attention::Layer.new(embed_dim: 8, num_heads: 2, dtype: :float64)
    @layer.init_parameters(7)
  end

  def save(**options)
    @layer.forward_saving(TOKENS, TOKENS, TOKENS, **options)
  end

  def test_a_call_that_saves_returns_what_forward_does
    options = { attn_mask: Tensor.from(MASK, dtype: :float64), is_causal: true, return_lse: true }
    _, *results = save(**options)
    assert_equal @layer.forward(TOKENS, TOKENS, TOKENS, **options).map(&:to_a), results.map(&:to_a)
  end

  def test_all_inputs_and_parameters_have_gradients
    saved, = save
    found = saved.backward(GIVEN)
    assert_equal %i[query key value] + @layer.parameters.map(&:name), found.keys
    @layer.parameters.each { |parameter| assert_equal parameter.shape, found[parameter.name].shape }
  end

  def test_gradients_of_a_mask_and_lse_are_differences
    saved, = save(attn_mask: Tensor.from(MASK, dtype: :float64))
    of_lse = self.class.numbers(2, 3)
    found = saved.backward({ **GIVEN, lse: of_lse }, wanted: [:attn_mask])
    found[:attn_mask].to_a.each_with_index do |row, r|
      row.each_with_index do |gradient, c|
        expected = (loss(moved(r, c, STEP), of_lse) - loss(moved(r, c, -STEP), of_lse)) / (2 * STEP)
        assert_in_delta expected, gradient, 1e-6
      end
    end
  end

  def test_calls_do_not_mix_and_gradients_add_up
    saved, = save
    alone = saved.backward(GIVEN, wanted: [:query, 'in_proj_weight']).transform_values(&:to_a)
    save(is_causal: true)
    GC.start
    found = saved.backward(GIVEN, wanted: [:query, 'in_proj_weight'])
    assert_equal alone, found.transform_values(&:to_a)
    saved.backward(GIVEN, out: found, accumulate: true)
    alone[:query].flatten.zip(found[:query].to_a.flatten) { |one, both| assert_in_delta 2 * one, both, 1e-12 }
  end

  def test_refusals_name_what_is_wrong
    saved, = save
    assert_told(:NULL, /\Agradients.output: /) { saved.backward({}) }
    assert_told(:VALUE, /\Agradients.attention.sinks: /) { saved.backward(GIVEN, wanted: [:sinks]) }
    assert_raises(ArgumentError) { saved.backward(GIVEN, wanted: ['bias_k']) }
    assert_raises(ArgumentError) { saved.backward({ **GIVEN, scores: [0] }) }
    out = { query: Tensor.from_string("\0" * 192, shape: [3, 8], dtype: :float64) }
    assert_raises(FrozenError) { saved.backward(GIVEN, out:) }
    room = Tensor.zeros(2, 3, 4, dtype: :float64)
    assert_told(:UNSUPPORTED, /\Acache: /) { save(cache: { key: room, value: room, lengths: 3 }) }
    @layer.close
    assert_told(:VALUE, /closed/) { saved.backward(GIVEN, wanted: [:query]) }
  end

  # The wrapper has no way to leave it out.
  def test_the_library_refuses_a_call_that_saved_nothing
    params = ABI.make(:attn_mha_params)
    gradients = ABI.make(:attn_mha_gradients, output: TOKENS)
    status = @layer.use { ABI.attn_mha_backward(nil, @layer, TOKENS, TOKENS, TOKENS, params, gradients, nil, 0) }
    assert_told(:NULL, /saved/) { Attention::Error.check(status) }
  end

  private

  def moved(row, column, by)
    changed = MASK.map(&:dup)
    changed[row][column] += by
    changed
  end

  # What the gradients are of.
  def loss(mask, of_lse)
    output, _, lse = @layer.forward(TOKENS, TOKENS, TOKENS, attn_mask: Tensor.from(mask, dtype: :float64),
                                                            need_weights: false, return_lse: true)
    weigh(output.to_a, TOKENS.to_a) + weigh(lse.to_a, of_lse)
  end

  def weigh(made, given)
    made.flatten.zip(given.flatten).sum { |x, y| x * y }
  end

  def assert_told(code, line, &)
    refusal = assert_raises(Attention::Error, &)
    assert_equal Attention::Error.const_get(code), refusal.code
    assert_match line, refusal.message
  end
end
