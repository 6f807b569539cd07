# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Scores, and what models do around attention: parts put together, positions, normalisation.

require 'attention'
require 'minitest/autorun'

class StepsTest < Minitest::Test
  Tensor = Attention::Tensor

  def self.numbers(rows, factor)
    Tensor.from(Array.new(rows) { |r| Array.new(4) { |e| (((((r * 4) + e) * factor) + 11) % 64 / 32.0) - 1 } })
  end

  QUERY = numbers(3, 37)
  KEYS = numbers(5, 29)

  def test_parts_are_the_whole
    whole = Attention.sdpa(QUERY, KEYS, KEYS, sinks: [0.5], return_lse: true)
    parts = [part(0, 2), part(2, 3)]
    assert_all_close whole, Attention.merge(parts, sinks: [0.5])
    out, out_lse = parts.first
    assert_equal [out, out_lse], Attention.merge(parts, sinks: [0.5], out:, out_lse:)
    assert_all_close whole, parts.first
  end

  def test_parts_without_lse_are_added
    one = [[1, 2]]
    other = Tensor[[3, -1], dtype: :bfloat16]
    assert_equal [[4.0, 1.0]], Attention.merge([[one], [other]]).to_a
    assert_told('lses[1]: expected a dtype of enum attn_dtype, got invalid') { Attention.merge([[one, [0]], [other]]) }
    assert_told('count: expected 1 and up, got 0') { Attention.merge([]) }
    out = Tensor.from_string("\0" * 8, shape: [1, 2])
    assert_raises(FrozenError) { Attention.merge([[one]], out:) }
  end

  def test_scores_are_told
    products = QUERY.to_a.map { |q| KEYS.to_a.map { |k| q.zip(k).sum { |x, y| 2 * x * y } } }
    assert_equal products, scores(true)
    hidden = products.each_with_index.map do |row, i|
      row.each_with_index.map { |score, j| j > i ? -Float::INFINITY : score }
    end
    assert_equal hidden, scores(:masked)
    assert_raises(ArgumentError) { scores(:raw) }
    layer = Attention::Layer.new(embed_dim: 4, num_heads: 2)
    layer.init_parameters(1)
    assert_equal [2, 3, 5], layer.call(QUERY, KEYS, KEYS, return_scores: :capped).last.shape
  end

  def test_positions_turn_pairs
    input = KEYS.slice(0, 0, 2)
    options = { frequencies: [1, 0.25], positions: [7, -3] }
    output = Attention.rope(input, **options)
    expected = input.to_a.zip([7, -3]).map do |(a, b, c, d), position|
      turned = [[a, c, position], [b, d, position * 0.25]].map do |x, y, angle|
        [(x * Math.cos(angle)) - (y * Math.sin(angle)), (y * Math.cos(angle)) + (x * Math.sin(angle))]
      end
      turned.transpose.flatten
    end
    assert_all_close [expected], [output]
    assert_same output, Attention.rope(output, inverse: true, out: output, **options)
    assert_all_close [input], [output]
  end

  def test_tables_are_taken_as_they_are
    options = { interleaved: true, magnitude: 2, cos: [[0, 1]], sin: [[1, 0]] }
    assert_equal [[-4.0, 2.0, 6.0, 8.0, 5.0]], Attention.rope([[1, 2, 3, 4, 5]], rotary_dim: 4, **options).to_a
    assert_told('rotary_dim: expected an even number, 0 to E=5, got 3') do
      Attention.rope([[1, 2, 3, 4, 5]], rotary_dim: 3, **options)
    end
    assert_told('input: expected a tensor, got NULL') { Attention.rope(nil) }
  end

  def test_rows_are_normalised
    # 12.5 + 3.5 is 16
    assert_equal [[0.75, 2.0]], Attention.rms_norm([[3, 4]], epsilon: 3.5, weight: [0, 1], weight_offset: 1).to_a
    assert_told('input: expected a tensor, got NULL') { Attention.rms_norm(nil) }
  end

  private

  def part(start, count)
    seen = KEYS.slice(0, start, count)
    Attention.sdpa(QUERY, seen, seen, return_lse: true)
  end

  def scores(stage)
    Attention.sdpa(QUERY, KEYS, KEYS, is_causal: true, scale: 2, return_scores: stage).last.to_a
  end

  def assert_all_close(expected, found)
    expected.zip(found) do |wanted, got|
      wanted.to_a.flatten.zip(got.to_a.flatten) { |x, y| assert_in_delta x, y, 1e-5 }
    end
  end

  def assert_told(message, &)
    assert_equal message, assert_raises(Attention::Error, &).message
  end
end
