-- SPDX-License-Identifier: BSD-3-Clause
-- Gradients against differences of the forward call, in float64.

local attention = require "attention"
local checks = require "checks"

local tests = {}

local assert_equal, assert_fails, codes = checks.equal, checks.fails, attention.codes

local shapes = {query = {2, 3, 4}, key = {2, 5, 4}, value = {2, 5, 4}, attn_mask = {3, 5}}
local names = {"query", "key", "value", "attn_mask"}
local lse_shape, step = {2, 3}, 1e-4

local function count_of(shape)
  local count = 1
  for _, length in ipairs(shape) do
    count = count * length
  end
  return count
end

local function numbers(shape)
  local made = attention.zeros("float64", shape)
  for i = 0, count_of(shape) - 1 do
    made:data()[i] = (i * 37 + 11) % 64 / 32 - 1
  end
  return made
end

local function attend(inputs)
  local output, lse = attention.sdpa(inputs.query, inputs.key, inputs.value,
                                     {is_causal = true, attn_mask = inputs.attn_mask, return_lse = true})
  return {output = output, lse = lse}
end

local given = {output = numbers(shapes.query), lse = numbers(lse_shape)}

-- What the gradients are of.
local function loss(inputs)
  local made, sum = attend(inputs), 0
  for i = 0, count_of(shapes.query) - 1 do
    sum = sum + made.output:data()[i] * given.output:data()[i]
  end
  for i = 0, count_of(lse_shape) - 1 do
    sum = sum + made.lse:data()[i] * given.lse:data()[i]
  end
  return sum
end

local function inputs_of_numbers()
  local inputs = {}
  for name, shape in pairs(shapes) do
    inputs[name] = numbers(shape)
  end
  return inputs
end

function tests.gradients_are_differences()
  local inputs = inputs_of_numbers()
  local made = attend(inputs)
  local options = {is_causal = true, attn_mask = inputs.attn_mask, wanted = names}
  local found = attention.sdpa_backward(inputs.query, inputs.key, inputs.value, made, given, options)
  for times = 1, 2 do
    for _, name in ipairs(names) do
      for i = 0, count_of(shapes[name]) - 1 do
        local data = inputs[name]:data()
        local before = data[i]
        data[i] = before + step
        local above = loss(inputs)
        data[i] = before - step
        local expected = times * (above - loss(inputs)) / (2 * step)
        data[i] = before
        assert(math.abs(found[name]:data()[i] - expected) < 1e-6, name .. " " .. i)
      end
    end
    options.wanted, options.out, options.accumulate = nil, found, true
    attention.sdpa_backward(inputs.query, inputs.key, inputs.value, made, given, options)
  end
end

function tests.gradients_lie_where_caches_do()
  local inputs = inputs_of_numbers()
  local options = {kv = {key = inputs.key, value = inputs.value, lengths = 2}, return_lse = true}
  local output, lse = attention.sdpa(inputs.query, nil, nil, options)
  options.return_lse, options.wanted = nil, {"key"}
  local found = attention.sdpa_backward(inputs.query, nil, nil, {output = output, lse = lse}, {output = output}, options)
  assert_equal(nil, found.query)
  for i = 0, count_of(shapes.key) - 1 do
    assert_equal(math.floor(i / 4) % 5 >= 2, found.key:data()[i] == 0)
  end
end

function tests.refusals_name_the_gradient()
  local inputs = inputs_of_numbers()
  local made = attend(inputs)
  local function go_back(gradients, options)
    return attention.sdpa_backward(inputs.query, inputs.key, inputs.value, made, gradients, options)
  end
  assert_fails(codes.NULL, "gradients.output: expected a tensor, got NULL", go_back, {})
  assert_fails(codes.VALUE, "gradients.sinks: expected NULL without sinks", go_back, given, {wanted = {"sinks"}})
  assert_fails(codes.VALUE, "wanted: expected one of alibi_slopes, attn_mask, bias, key, position_bias, query, sinks, value, got keys",
               go_back, given, {wanted = {"keys"}})
  assert_fails(codes.VALUE, "scores: expected one of the options lse, output, weights", go_back, {scores = given.lse})
end

function tests.explain_tells_what_runs()
  local inputs = inputs_of_numbers()
  local report = attention.explain_backward(inputs.query, inputs.key, inputs.value, attend(inputs), given,
                                            {is_causal = true, wanted = {"query", "key"}})
  assert_equal("boolean", type(report.whole_heads))
  assert(report.num_items > 0 and report.workspace_bytes > 0 and #report.kernels > 0 and #report.reason > 0)
  local nothing = attention.explain_backward(inputs.query, inputs.key, inputs.value, attend(inputs), given, {wanted = {}})
  assert_equal(0, nothing.num_items)
end

checks.run(tests)
