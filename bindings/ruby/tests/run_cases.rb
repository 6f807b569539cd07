# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Runs the exported cases: ruby run_cases.rb <folder>. The last line counts them.

require_relative 'case_file'

# A case by the calls of this wrapper. What they do not know is an ArgumentError.
class CaseRun
  BOOLEANS = %i[is_causal enable_gqa align_end no_bias add_bias_kv add_zero_attn batch_first need_weights
                average_attn_weights].freeze
  INPUTS = %i[query key value].freeze
  CONFIG_OPTIONS = %i[embed_dim num_heads kdim vdim qdim num_kv_heads head_dim value_head_dim add_bias_kv
                      add_zero_attn batch_first parameter_dtype].freeze

  def initialize(made)
    @made = made
    @inputs = made.tensors.fetch_values(*INPUTS)
    @tensors = made.tensors.except(*INPUTS)
    @options = made.options.to_h do |name, value|
      [name, BOOLEANS.include?(name) ? { 0 => false, 1 => true }.fetch(value) : value]
    end
    take_window
    take_block_size
    take_dropout
    take_gradients
    @options[:return_lse] = true if @made.expected.key?(:lse)
  end

  # Raises what is wrong.
  def check
    return check_error if @made.error
    raise 'the case expects nothing' if @made.expected.empty?

    results = compute
    @made.expected.each { |name, expected| compare(name, results.fetch(name), expected) }
  end

  private

  def compute
    case @made.call
    when 'sdpa' then attend
    when 'mha' then run_layer
    else raise "unknown call #{@made.call}"
    end
  end

  def take_window
    window = [@options.delete(:window_left), @options.delete(:window_right)]
    @options[:window] = window.map { |side| side || -1 } if window.any?
  end

  def take_block_size
    size = [@options.delete(:block_rows), @options.delete(:block_columns)]
    @options[:block_size] = size if size.any?
  end

  def take_dropout
    named = @options.keys.grep(/\Adropout_/).to_h { |name| [name.to_s.delete_prefix('dropout_').to_sym, @options.delete(name)] }
    @options[:dropout] = named if named.any?
  end

  # Gradients that are given, by the names of what they are of, and those that are expected, likewise.
  def take_gradients
    given, @tensors = @tensors.partition { |name, _| name.start_with?('gradient.') }.map(&:to_h)
    @given = given.transform_keys { |name| name.to_s.delete_prefix('gradient.').delete_prefix('attn_').to_sym }
    expected = @made.expected.keys.grep(/\Agradient\./)
    @wanted = expected.to_h do |name|
      of = name.to_s.delete_prefix('gradient.')
      [of.start_with?('parameter.') ? of.delete_prefix('parameter.') : of.to_sym, name]
    end
  end

  def named(gradients)
    gradients.transform_keys(@wanted)
  end

  def attend
    asked = %i[lse weights].select { |name| @made.expected.key?(name) || (name == :lse && @given.any?) }
    outputs = { return_lse: asked.include?(:lse), return_weights: asked.include?(:weights) }
    results = Attention.sdpa(*@inputs, **@options, **@tensors, **outputs)
    made = [:output, *asked].zip(asked.empty? ? [results] : results).to_h
    return made if @given.empty?

    found = Attention.sdpa_backward(*@inputs, made.values_at(:output, :lse), @given, wanted: @wanted.keys,
                                                                                     **@options, **@tensors)
    { **made, **named(found) }
  end

  def run_layer
    parameters, tensors = @tensors.partition { |name, _| name.start_with?('parameter.') }.map(&:to_h)
    layer = Attention::Layer.new(dtype: @inputs.first.dtype, bias: !@options.delete(:no_bias),
                                 **@options.slice(*CONFIG_OPTIONS))
    layer.load_state_dict(parameters.transform_keys { |name| name.to_s.delete_prefix('parameter.') })
    options = { **tensors, **@options.except(*CONFIG_OPTIONS) }
    names = %i[attn_output attn_weights lse]
    return names.zip(layer.forward(*@inputs, **options)).to_h if @given.empty?

    saved, *results = layer.forward_saving(*@inputs, **options)
    { **names.zip(results).to_h, **named(saved.backward(@given, wanted: @wanted.keys)) }
  end

  def check_error
    compute
  rescue Attention::Error => e
    return if e.code == @made.error.code && e.message == @made.error.message

    raise "expected error #{@made.error.to_a}, got #{[e.code, e.message]}"
  else
    raise "expected error #{@made.error.to_a}, got none"
  end

  def compare(name, actual, expected)
    unless actual.shape == expected.tensor.shape
      raise "#{name}: expected shape #{expected.tensor.shape}, got #{actual.shape}"
    end

    actual.to_a.flatten.zip(expected.tensor.to_a.flatten).each_with_index do |(got, wanted), index|
      next if close?(got, wanted, expected.tolerance)

      raise "#{name}: element #{index}: expected #{wanted}, got #{got}"
    end
  end

  def close?(actual, expected, tolerance)
    return actual.nan? if expected.nan?

    actual == expected || (actual - expected).abs <= tolerance
  end
end

folder = ARGV.fetch(0)
counts = { cases: 0, errors: 0, failures: 0 }
File.foreach("#{folder}/cases.txt", chomp: true) do |name|
  made = CaseFile.new("#{folder}/#{name}.case")
  counts[made.error ? :errors : :cases] += 1
  CaseRun.new(made).check
rescue StandardError => e
  counts[:failures] += 1
  puts "#{name}: #{e.message}"
end
puts "ruby: #{counts.map { |what, count| "#{count} #{what}" }.join(', ')}"
exit counts[:failures].zero? && counts[:cases] >= 60 && counts[:errors] >= 5
