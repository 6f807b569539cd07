-- SPDX-License-Identifier: BSD-3-Clause
-- Scores, and what models do around attention: parts put together, positions, normalisation.

local attention = require "attention"
local checks = require "checks"

local tests = {}

local assert_equal, assert_close, assert_fails = checks.equal, checks.close, checks.fails
local codes = attention.codes

local rows, num_keys, features = 3, 5, 4

local function numbers(count, factor)
  local made = attention.zeros("float32", {count, features})
  for i = 0, count * features - 1 do
    made:data()[i] = (i * factor + 11) % 64 / 32 - 1
  end
  return made
end

local query, keys = numbers(rows, 37), numbers(num_keys, 29)

local function assert_close_all(expected, found, count)
  for i = 0, count - 1 do
    assert_close(expected:data()[i], found:data()[i])
  end
end

local function part(start, count)
  local seen = keys:slice(0, start, count)
  local output, lse = attention.sdpa(query, seen, seen, {return_lse = true})
  return {output = output, lse = lse}
end

function tests.parts_are_the_whole()
  local output, lse = attention.sdpa(query, keys, keys, {sinks = {0.5}, return_lse = true})
  local parts = {part(0, 2), part(2, 3)}
  local merged, merged_lse = attention.merge(parts, {sinks = {0.5}})
  assert_close_all(output, merged, rows * features)
  assert_close_all(lse, merged_lse, rows)
  local first = parts[1]
  assert_equal(first.output, (attention.merge(parts, {sinks = {0.5}, out = first.output, out_lse = first.lse})))
  assert_close_all(output, first.output, rows * features)
  assert_close_all(lse, first.lse, rows)
end

function tests.parts_without_lse_are_added()
  local one, other = {output = {{1, 2}}}, {output = attention.tensor({{3, -1}}, "bfloat16")}
  local output, lse = attention.merge {one, other}
  assert_equal(4, output:totable()[1][1])
  assert_equal(1, output:totable()[1][2])
  assert_equal(nil, lse)
  one.lse = {0}
  assert_fails(codes.DTYPE, "lses[1]: expected a dtype of enum attn_dtype, got invalid", attention.merge, {one, other})
  assert_fails(codes.VALUE, "count: expected 1 and up, got 0", attention.merge, {})
  assert_fails(codes.VALUE, "sink: expected one of the options", attention.merge, {one}, {sink = {1}})
end

function tests.scores_are_told()
  for _, stage in ipairs {"scaled", "masked"} do
    local _, _, _, scores = attention.sdpa(query, keys, keys, {is_causal = true, scale = 2, return_scores = stage})
    local found = scores:totable()
    for row = 1, rows do
      for column = 1, num_keys do
        local product = 0 -- of few bits: exact
        for e = 0, features - 1 do
          product = product + query:data()[(row - 1) * features + e] * keys:data()[(column - 1) * features + e]
        end
        assert_equal(stage == "masked" and column > row and -math.huge or 2 * product, found[row][column])
      end
    end
  end
  assert_fails(codes.VALUE, "return_scores: expected one of capped, masked, scaled, got raw", attention.sdpa, query,
               keys, keys, {return_scores = "raw"})
  local layer = attention.layer {embed_dim = features, num_heads = 2}
  layer:init_parameters(1)
  local _, _, lse, scores = layer(query, keys, keys, {return_scores = true})
  assert_equal(nil, lse)
  assert_equal("2 3 5", table.concat(scores.shape, " "))
end

function tests.positions_turn_pairs()
  local turns, positions = {1, 0.25}, {7, -3}
  local input = numbers(2, 37)
  local output = attention.rope(input, {frequencies = turns, positions = positions})
  for row, position in ipairs(positions) do
    for i, turn in ipairs(turns) do
      local sin, cos = math.sin(position * turn), math.cos(position * turn)
      local at = (row - 1) * features + i - 1
      local x, y = input:data()[at], input:data()[at + 2]
      assert_close(x * cos - y * sin, output:data()[at])
      assert_close(y * cos + x * sin, output:data()[at + 2])
    end
  end
  attention.rope(output, {frequencies = turns, positions = positions, inverse = true, out = output})
  assert_close_all(input, output, 2 * features)
end

function tests.tables_are_taken_as_they_are()
  local options = {rotary_dim = 4, interleaved = true, magnitude = 2, cos = {{0, 1}}, sin = {{1, 0}}}
  local output = attention.rope({{1, 2, 3, 4, 5}}, options):totable()[1]
  assert_equal("-4 2 6 8 5", table.concat(output, " "))
  options.rotary_dim = 3
  assert_fails(codes.VALUE, "rotary_dim: expected an even number, 0 to E=5, got 3", attention.rope,
               {{1, 2, 3, 4, 5}}, options)
  assert_fails(codes.NULL, "input: expected a tensor, got NULL", attention.rope, nil)
end

function tests.rows_are_normalised()
  -- 12.5 + 3.5 is 16
  local output = attention.rms_norm({{3, 4}}, {epsilon = 3.5, weight = {0, 1}, weight_offset = 1}):totable()[1]
  assert_equal("0.75 2", table.concat(output, " "))
  assert_fails(codes.NULL, "input: expected a tensor, got NULL", attention.rms_norm, nil)
end

-- Tables become tensors that nothing but the call keeps.
function tests.collector_leaves_what_a_call_uses()
  collectgarbage("setpause", 100)
  collectgarbage("setstepmul", 400)
  for _ = 1, 2000 do
    local output = attention.merge {{output = {{1, 2}}, lse = {0}}, {output = {{3, 4}}, lse = {0}}}
    assert_close(2, output:data()[0])
    assert_close(3, output:data()[1])
  end
  collectgarbage("setpause", 200)
  collectgarbage("setstepmul", 200)
end

checks.run(tests)
