# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Keys and values in caches, ragged and in pages, and ragged queries.

require 'attention'
require 'minitest/autorun'

class PlacesTest < Minitest::Test
  Tensor = Attention::Tensor

  # Where the keys and the queries of three sequences are, one behind the other.
  KEY_STARTS = [0, 5, 6, 13].freeze
  QUERY_STARTS = [0, 2, 3, 6].freeze
  HEADS = 2
  FEATURES = 4
  DECODING = { is_causal: true, align_end: true }.freeze

  def self.numbers(rows, factor)
    elements = Array.new(HEADS * rows * FEATURES) { |i| (((i * factor) + 11) % 64 / 32.0) - 1 }
    Tensor.from_string(elements.pack('f*'), shape: [HEADS, rows, FEATURES])
  end

  KEYS = numbers(13, 37)
  VALUES = numbers(13, 29)
  QUERIES = numbers(6, 37)
  THREE_ROWS = VALUES.slice(1, 0, 3)

  def test_pages_are_ragged_rows_are_single_sequences
    expected = attended_one_by_one
    refute(expected.flatten.all?(&:zero?))
    assert_equal expected, attended(key: KEYS, value: VALUES, starts: KEY_STARTS)
    pages = paged
    Attention.kv_append(pages, KEYS, VALUES, starts: KEY_STARTS)
    assert_equal expected, attended(pages)
    assert_equal expected, attended({ **pages, page_table: [3, 1, 5, 0, 2], page_starts: [0, 2, 3, 5] })
  end

  def test_positions_say_where_rows_go
    pages = paged.except(:lengths)
    rows = [[[[1, 2, 3, 4]], [[5, 6, 7, 8]]], [[[0, 0, 0, 9]]] * 2, [[[9, 10, 11, 12]], [[13, 14, 15, 16]]]]
    Attention.kv_append(pages, rows, rows, positions: [[2], [-1], [6]])
    expected = Tensor.zeros(6, HEADS, 4, FEATURES).to_a
    HEADS.times do |head|
      expected[3][head][2] = rows[0][head][0]
      expected[2][head][2] = rows[2][head][0]
    end
    assert_equal [expected, expected], [pages[:key].to_a, pages[:value].to_a]
  end

  def test_reports_are_those_of_the_places
    kv = { key: KEYS, value: VALUES, starts: KEY_STARTS }
    assert_equal :fused, Attention.explain(QUERIES, kv:, query_starts: QUERY_STARTS)[:engine]
  end

  def test_what_is_no_place_is_told
    kv = { key: KEYS, value: VALUES, starts: [0, 5, 6, 14] }
    assert_told('kv.starts: expected 6 (the element before it) to 13, got 14 at element 3') { attended(kv) }
    assert_told('kv.key: expected a tensor, got NULL') { attended({}) }
    assert_told('key: expected a tensor, got NULL') { Attention.sdpa(QUERIES) }
    assert_told('kv: expected where keys and values lie, got NULL') { Attention.kv_append(nil, KEYS, VALUES) }
    layer = Attention::Layer.new(embed_dim: 4, num_heads: 2)
    assert_told(/\Aattention.kv: expected NULL in a layer/) { layer.call([[0] * 4], [[0] * 4], [[0] * 4], kv:) }
    assert_raises(ArgumentError) { attended({ **kv, start: 0 }) }
  end

  # Rows from 0 to their first element: 127 / 64 has a scale of 1 / 64 in int8, 255 / 128 one of 1 / 128
  # in uint8, and so keys are integers exactly. Of values the largest scale is that of a row from -1 to 1.
  { int8: [127 / 64r, 1 / 127r], uint8: [255 / 128r, 2 / 255r] }.each do |dtype, (first, largest_scale)|
    define_method("test_integers_of_#{dtype}_mean_numbers") do
      key = exact_rows(first)
      kv = integers(dtype)
      Attention.kv_append(kv, key, THREE_ROWS)
      assert_equal key.flatten, numbers_of(kv, :key)
      assert_near THREE_ROWS.to_a, numbers_of(kv, :value), largest_scale / 2
      query = QUERIES.slice(1, 0, 1)
      expected = Attention.sdpa(query, key, THREE_ROWS)
      assert_near expected.to_a, Attention.sdpa(query, kv:).to_a.flatten, largest_scale / 2
    end
  end

  def test_a_scale_is_written_or_read
    kv = { **integers(:int8), key_scale: [[[1 / 64r]]] }
    Attention.kv_append(kv, exact_rows(127 / 64r), THREE_ROWS)
    assert_equal [127, 127], kv[:key].select(-1, 0).select(-1, 0).to_a
    error = assert_raises(FrozenError) do
      Attention.kv_append({ **kv, value_scale: [[[1]] * 4] * HEADS }, THREE_ROWS, THREE_ROWS)
    end
    assert_match(/\Akv.value_scale: expected a tensor of its own memory/, error.message)
    told = 'kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled'
    assert_told(told) { attended({ key: KEYS, value: VALUES, starts: KEY_STARTS, key_scale: [[[1]]] }) }
    assert_raises(ArgumentError) { attended({ key: KEYS, value: VALUES, starts: KEY_STARTS, key_scales: [[[1]]] }) }
  end

  def test_what_cannot_be_written_is_told
    [[[[1.0]]], Tensor.from_string("\0" * 768, shape: [6, HEADS, 4, FEATURES])].each do |key|
      error = assert_raises(FrozenError) { Attention.kv_append({ **paged, key: }, KEYS, VALUES) }
      assert_equal 'kv.key: expected a tensor of its own memory, got arrays or a view of a String', error.message
    end
  end

  def test_only_the_call_knows_its_objects
    expected = attended_one_by_one
    collector = Thread.new { loop { GC.start(full_mark: true, immediate_sweep: true) } }
    40.times do
      pages = paged
      Attention.kv_append(pages, KEYS, VALUES, starts: KEY_STARTS)
      assert expected == attended(pages), 'numbers changed while the collector ran'
    end
  ensure
    collector&.kill&.join
  end

  private

  # Pages in no order; an entry that no key needs is no page.
  def paged
    {
      key: Tensor.zeros(6, HEADS, 4, FEATURES), value: Tensor.zeros(6, HEADS, 4, FEATURES),
      page_table: [[3, 1], [5, -1], [0, 2]], lengths: [5, 1, 7]
    }
  end

  def exact_rows(first)
    Array.new(HEADS) { Array.new(3) { |row| [first.to_f] + Array.new(FEATURES - 1) { |i| ((row * 17) + i) / 64.0 } } }
  end

  # Room for four rows of integers, a scale for each, and a zero where there is no sign.
  def integers(dtype)
    scales = %i[key_scale value_scale] + (dtype == :uint8 ? %i[key_zero value_zero] : [])
    scales.to_h { |name| [name, Tensor.zeros(HEADS, 4, 1)] }.merge(
      key: Tensor.zeros(HEADS, 4, FEATURES, dtype:), value: Tensor.zeros(HEADS, 4, FEATURES, dtype:), lengths: 3
    )
  end

  # What three rows of each head mean.
  def numbers_of(fields, name)
    scales, zeros = %i[scale zero].map { |of| fields[:"#{name}_#{of}"]&.to_a&.flatten || Array.new(4 * HEADS, 0) }
    rows = fields[name].to_a.flatten.each_slice(FEATURES).zip(scales, zeros)
    rows.each_slice(4).flat_map { |head| head.first(3) }.flat_map do |row, scale, zero|
      row.map { |element| (element - zero) * scale }
    end
  end

  def assert_near(expected, found, distance)
    refute(expected.flatten.all?(&:zero?))
    expected.flatten.zip(found) { |number, other| assert_in_delta number, other, distance + 1e-6 }
  end

  def attended(kv)
    Attention.sdpa(QUERIES, kv:, query_starts: QUERY_STARTS, **DECODING).to_a
  end

  def attended_one_by_one
    output = Tensor.zeros(*QUERIES.shape)
    3.times do |b|
      part = ->(rows, starts) { rows.slice(1, starts[b], starts[b + 1] - starts[b]) }
      Attention.sdpa(part[QUERIES, QUERY_STARTS], part[KEYS, KEY_STARTS], part[VALUES, KEY_STARTS],
                     out: part[output, QUERY_STARTS], **DECODING)
    end
    output.to_a
  end

  def assert_told(message, &)
    error = assert_raises(Attention::Error, &)
    assert_match message, error.message
  end
end
