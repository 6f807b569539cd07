# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Gradients against differences of the forward call, in float64.

require 'attention'
require 'minitest/autorun'

class BackwardTest < Minitest::Test
  Tensor = Attention::Tensor

  SHAPES = { query: [2, 3, 4], key: [2, 5, 4], value: [2, 5, 4], attn_mask: [3, 5] }.freeze
  LSE_SHAPE = [2, 3].freeze
  STEP = 1e-4

  def self.numbers(shape)
    Array.new(shape.reduce(:*)) { |i| (((i * 37) + 11) % 64 / 32.0) - 1 }
  end

  GIVEN = { output: numbers(SHAPES[:query]), lse: numbers(LSE_SHAPE) }.freeze

  def test_gradients_are_differences
    found = go_back(inputs, wanted: SHAPES.keys)
    assert_differences found, 1
    go_back(inputs, out: found, accumulate: true)
    assert_differences found, 2
  end

  def test_gradients_lie_where_caches_do
    query, key = inputs.values_at(:query, :key).zip(SHAPES.values).map { |numbers, shape| tensor(numbers, shape) }
    options = { kv: { key:, value: key, lengths: 2 } }
    made = Attention.sdpa(query, return_lse: true, **options)
    found = Attention.sdpa_backward(query, nil, nil, made, { output: made.first }, wanted: [:key], **options)
    assert_equal [:key], found.keys
    found[:key].to_a.each do |head|
      head.each_with_index { |row, at| assert_equal at >= 2, row.all?(&:zero?) }
    end
  end

  def test_refusals_name_the_gradient
    assert_told('gradients.output: expected a tensor, got NULL') { go_back(inputs, given: {}) }
    assert_told('gradients.sinks: expected NULL without sinks') { go_back(inputs, wanted: [:sinks]) }
    assert_raises(ArgumentError) { go_back(inputs, wanted: [:keys]) }
    assert_raises(ArgumentError) { go_back(inputs, given: { scores: [0] }) }
    out = { query: Tensor.from_string("\0" * 192, shape: SHAPES[:query], dtype: :float64) }
    assert_raises(FrozenError) { go_back(inputs, out:) }
  end

  def test_explain_tells_what_runs
    tensors = tensors_of(inputs)
    call = [*tensors.values_at(:query, :key, :value), attend(tensors), given_tensors]
    report = Attention.explain_backward(*call, attn_mask: tensors[:attn_mask], is_causal: true)
    assert_includes [true, false], report[:whole_heads]
    assert_operator report[:num_items], :>, 0
    refute_empty report[:reason]
    assert_equal 0, Attention.explain_backward(*call, wanted: [])[:num_items]
  end

  private

  def tensor(numbers, shape)
    *outer, last = shape
    nested = outer.reverse.reduce(numbers.each_slice(last).to_a) { |rows, length| rows.each_slice(length).to_a }
    Tensor.from(nested.first, dtype: :float64)
  end

  def inputs
    SHAPES.transform_values { |shape| self.class.numbers(shape) }
  end

  def tensors_of(inputs)
    inputs.to_h { |name, numbers| [name, tensor(numbers, SHAPES[name])] }
  end

  def attend(tensors)
    Attention.sdpa(*tensors.values_at(:query, :key, :value), attn_mask: tensors[:attn_mask], is_causal: true,
                                                             return_lse: true)
  end

  def given_tensors
    { output: tensor(GIVEN[:output], SHAPES[:query]), lse: tensor(GIVEN[:lse], LSE_SHAPE) }
  end

  def go_back(inputs, given: given_tensors, **options)
    tensors = tensors_of(inputs)
    Attention.sdpa_backward(*tensors.values_at(:query, :key, :value), attend(tensors), given,
                            attn_mask: tensors[:attn_mask], is_causal: true, **options)
  end

  # What the gradients are of.
  def loss(inputs)
    attend(tensors_of(inputs)).zip(GIVEN.values).sum do |made, given|
      made.to_a.flatten.zip(given).sum { |x, y| x * y }
    end
  end

  def moved(name, index, by)
    changed = inputs
    changed[name][index] += by
    loss(changed)
  end

  def assert_differences(found, times)
    found.each do |name, gradient|
      gradient.to_a.flatten.each_with_index do |number, index|
        expected = times * (moved(name, index, STEP) - moved(name, index, -STEP)) / (2 * STEP)
        assert_in_delta expected, number, 1e-6, "#{name} #{index}"
      end
    end
  end

  def assert_told(line, &)
    assert_equal line, assert_raises(Attention::Error, &).message
  end
end
