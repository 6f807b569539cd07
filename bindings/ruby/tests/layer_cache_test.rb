# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Steps of a layer with a cache, a rotation and norms are the whole sequence.

require 'attention'
require 'minitest/autorun'

class LayerCacheTest < Minitest::Test
  Tensor = Attention::Tensor

  ROWS = Array.new(5) { |r| Array.new(8) { |e| (((((r * 8) + e) * 37) + 11) % 64 / 32.0) - 1 } }

  def setup
    @layer = Attention::Layer.new(embed_dim: 8, num_heads: 2, num_kv_heads: 1, head_dim: 4, qk_norm: :head,
                                  qk_norm_epsilon: 1e-6, qk_norm_weight_offset: 1.0)
    @layer.init_parameters(3)
    @cache = { key: Tensor.zeros(1, 6, 4), value: Tensor.zeros(1, 6, 4) }
  end

  def test_steps_are_the_whole
    whole = attend(ROWS, ROWS)
    steps = [0...3, 3...4, 4...5].flat_map do |range|
      attend(ROWS[range], ROWS[range], cache: { **@cache, lengths: range.end })
    end
    assert_close whole, steps
    assert_close whole.last(1), attend(ROWS.last(1), nil, cache: { **@cache, lengths: 5 })
  end

  def test_what_a_layer_is
    assert_equal [:head, 1e-6, 1.0],
                 @layer.describe.values_at(:qk_norm, :qk_norm_epsilon, :qk_norm_weight_offset)
    assert_raises(ArgumentError) { Attention::Layer.new(embed_dim: 8, num_heads: 2, qk_norm: :heads) }
  end

  def test_arrays_would_be_lost
    assert_raises(FrozenError) { attend(ROWS, ROWS, cache: { key: [[[0.0] * 4] * 6], value: [[[0.0] * 4] * 6], lengths: 5 }) }
  end

  private

  def attend(query, rows, **options)
    @layer.forward(query, rows, rows, is_causal: true, need_weights: false, rope: { base: 500.0 }, **options).first.to_a
  end

  def assert_close(expected, found)
    expected.flatten.zip(found.flatten) { |x, y| assert_in_delta x, y, 1e-5 }
  end
end
