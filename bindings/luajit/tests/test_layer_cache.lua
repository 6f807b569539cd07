-- SPDX-License-Identifier: BSD-3-Clause
-- Steps of a layer with a cache, a rotation and norms are the whole sequence.

local attention = require "attention"
local checks = require "checks"

local tests = {}

local assert_equal, assert_close, assert_fails = checks.equal, checks.close, checks.fails
local codes = attention.codes

local rows = {}
for r = 1, 5 do
  rows[r] = {}
  for e = 1, 8 do
    rows[r][e] = (((r - 1) * 8 + e - 1) * 37 + 11) % 64 / 32 - 1
  end
end

local layer = attention.layer {embed_dim = 8, num_heads = 2, num_kv_heads = 1, head_dim = 4, qk_norm = "head",
                               qk_norm_epsilon = 1e-6, qk_norm_weight_offset = 1}
layer:init_parameters(3)

local function attend(first, last, given)
  local part = {unpack(rows, first, last)}
  given.is_causal, given.need_weights, given.rope = true, false, {base = 500}
  return (given.reads_only and layer(part, nil, nil, {cache = given.cache, is_causal = true, need_weights = false,
                                                      rope = given.rope}) or layer(part, part, part, given)):totable()
end

function tests.steps_are_the_whole()
  local whole = attend(1, 5, {})
  local cache = {key = attention.zeros("float32", {1, 6, 4}), value = attention.zeros("float32", {1, 6, 4})}
  for _, step in ipairs {{1, 3}, {4, 4}, {5, 5}} do
    cache.lengths = step[2]
    local found = attend(step[1], step[2], {cache = cache})
    for r = step[1], step[2] do
      for e = 1, 8 do
        assert_close(whole[r][e], found[r - step[1] + 1][e])
      end
    end
  end
  local again = attend(5, 5, {cache = cache, reads_only = true})
  for e = 1, 8 do
    assert_close(whole[5][e], again[1][e])
  end
end

function tests.what_a_layer_is()
  local config = layer:describe()
  assert_equal("head", config.qk_norm)
  assert_equal(1, config.qk_norm_weight_offset)
end

function tests.options_of_a_call_are_refused()
  assert_fails(codes.VALUE, "rope: expected no out and no context", layer.forward, layer, rows, rows, rows,
               {rope = {out = attention.zeros("float32", {1})}})
end

checks.run(tests)
