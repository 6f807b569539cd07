# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Layers and contexts that threads share: loaded, bound, closed and collected while others call them.

require 'attention'
require 'minitest/autorun'
require 'timeout'

# Every call here runs without the global lock, beside those of the other threads.
class SharingTest < Minitest::Test
  EMBED_DIM = 256
  ROWS = 256
  CALLERS = 3
  LOADS = 150
  WEIGHT = 'out_proj.weight'

  def test_call_sees_a_parameter_as_before_or_after_a_load
    layer = make_layer
    once, twice = expected_outputs(layer)
    weights = [scaled_identity(1), scaled_identity(2)]
    while_calling(-> { assert [once, twice].include?(forward(layer)), 'a parameter that nobody loaded' }) do
      LOADS.times do |load|
        layer.public_send(load % 3 == 0 ? :bind : :load, WEIGHT, weights[load % 2])
      end
    end
  end

  def test_initialising_waits_for_calls
    layer = make_layer
    while_calling(-> { forward(layer) }) do
      (LOADS / 10).times { |seed| layer.init_parameters(seed) }
    end
  end

  def test_closing_a_layer_waits_for_calls
    30.times do
      layer = make_layer
      expected = forward(layer)
      while_calling(-> { expect_or_closed(expected, 'Attention::Layer') { forward(layer) } }) { layer.close }
    end
  end

  def test_closing_a_context_waits_for_calls
    layer = make_layer
    expected = forward(layer)
    30.times do
      context = Attention::Context.new(num_threads: 2)
      while_calling(-> { expect_or_closed(expected, 'Attention::Context') { forward(layer, context:) } }) do
        context.close
      end
    end
  end

  def test_only_the_call_knows_its_objects
    expected = forward_unowned
    collector = Thread.new { loop { GC.start(full_mark: true, immediate_sweep: true) } }
    churn = Thread.new { loop { Attention::Tensor.from_string([Float::NAN].pack('f') * 65_536, shape: [65_536]) } }
    40.times { assert expected == forward_unowned, 'numbers changed while the collector ran' }
  ensure
    [collector, churn].each { |thread| thread&.kill&.join }
  end

  # The parent's other thread is in a call, and never leaves it in the child.
  def test_forked_child_waits_for_no_thread_of_its_parent
    layer = make_layer
    calling = Thread.new { 200.times { forward(layer) } }
    sleep 0.02
    child = fork do
      layer.load(WEIGHT, scaled_identity(1))
      layer.close
      exit!(true)
    end
    status = Timeout.timeout(30) { Process.wait2(child).last }
    assert_predicate status, :success?
  ensure
    calling&.join
  end

  # An interrupt arrives after the call, and leaves nothing locked.
  def test_interrupted_calls_leave_the_layer_free
    layer = make_layer
    30.times do
      caller = Thread.new { loop { forward(layer) } }
      caller.report_on_exception = false
      sleep 0.002
      caller.raise(IOError, 'enough')
      assert_raises(IOError) { caller.join }
      Timeout.timeout(30) { layer.load(WEIGHT, scaled_identity(1)) }
    end
  end

  private

  def tokens
    Attention::Tensor.from_string([0.5].pack('f') * (ROWS * EMBED_DIM), shape: [ROWS, EMBED_DIM])
  end

  def scaled_identity(factor)
    row = [factor] + ([0] * EMBED_DIM)
    Attention::Tensor.from_string((row * EMBED_DIM).first(EMBED_DIM * EMBED_DIM).pack('f*'),
                                  shape: [EMBED_DIM, EMBED_DIM])
  end

  def make_layer
    layer = Attention::Layer.new(embed_dim: EMBED_DIM, num_heads: 4, bias: false)
    layer.init_parameters(1)
    layer.load(WEIGHT, scaled_identity(1))
    layer
  end

  # The bytes of the output.
  def forward(layer, context: nil)
    given = tokens
    output, = layer.forward(given, given, given, need_weights: false, context:)
    output.data[0, ROWS * EMBED_DIM * 4]
  end

  def forward_unowned
    forward(make_layer, context: Attention::Context.new(num_threads: 2))
  end

  def expected_outputs(layer)
    once = forward(layer)
    layer.load(WEIGHT, scaled_identity(2))
    [once, forward(layer)]
  end

  # Other threads call until the block has returned, which begins when all of them may be in a call.
  def while_calling(call)
    over = false
    called = Queue.new
    callers = Array.new(CALLERS) do
      Thread.new do
        called << call.call until over
      end
    end
    CALLERS.times { called.pop }
    yield
  ensure
    over = true
    callers.each(&:join)
  end

  def expect_or_closed(expected, name)
    assert expected == yield, 'numbers changed while the object was closed'
  rescue Attention::Error => e
    assert_equal "#{name}: expected an open one, got a closed one", e.message
  end
end
