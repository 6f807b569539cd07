-- SPDX-License-Identifier: BSD-3-Clause
-- What a layer's gradients are taken from, and how they are asked for; their numbers are those of the
-- exported cases.

local ffi = require "ffi"
local attention = require "attention"
local checks = require "checks"
local library = require("attention.abi").library

local tests = {}

local assert_equal, assert_fails, codes = checks.equal, checks.fails, attention.codes

local shape = {3, 8}

local function numbers(dtype, lengths)
  local made, count = attention.zeros(dtype, lengths), 1
  for _, length in ipairs(lengths) do
    count = count * length
  end
  for i = 0, count - 1 do
    made:data()[i] = (i * 37 + 11) % 64 / 32 - 1
  end
  return made
end

local function make_layer(config)
  config = config or {}
  config.embed_dim, config.num_heads, config.dtype = 8, 2, "float64"
  local layer = attention.layer(config)
  layer:init_parameters(7)
  return layer
end

local tokens, mask, given = numbers("float64", shape), numbers("float64", {3, 3}), numbers("float64", shape)

local function first_row(made)
  local row = {}
  for i = 0, 7 do
    row[i + 1] = made:data()[i]
  end
  return table.concat(row, " ")
end

function tests.a_call_that_saves_returns_what_forward_does()
  local layer = make_layer()
  local options = {attn_mask = mask, is_causal = true, return_lse = true}
  local output, weights, lse = layer(tokens, tokens, tokens, options)
  local _, same_output, same_weights, same_lse = layer:forward_saving(tokens, tokens, tokens, options)
  assert_equal(first_row(output), first_row(same_output))
  assert_equal(weights:data()[0], same_weights:data()[0])
  assert_equal(lse:data()[0], same_lse:data()[0])
end

function tests.all_inputs_and_parameters_have_gradients()
  local layer = make_layer {bias = false}
  local found = layer:forward_saving(tokens, tokens, tokens):backward({output = given})
  for _, parameter in ipairs(layer:parameters()) do
    assert_equal(table.concat(parameter.shape, " "), table.concat(found[parameter.name].shape, " "))
    found[parameter.name] = nil
  end
  for _, name in ipairs {"query", "key", "value"} do
    assert_equal("3 8", table.concat(found[name].shape, " "))
    found[name] = nil
  end
  assert_equal(nil, next(found))
end

function tests.gradients_of_a_mask_and_lse_are_differences()
  local layer, step = make_layer(), 1e-4
  local options = {attn_mask = mask, need_weights = false, return_lse = true}
  local of_lse = numbers("float64", {2, 3})
  local function loss()
    local output, _, lse = layer(tokens, tokens, tokens, options)
    local sum = 0
    for i = 0, 23 do
      sum = sum + output:data()[i] * given:data()[i]
    end
    for i = 0, 5 do
      sum = sum + lse:data()[i] * of_lse:data()[i]
    end
    return sum
  end
  local saved = layer:forward_saving(tokens, tokens, tokens, options)
  local found = saved:backward({output = given, lse = of_lse}, {wanted = {"attn_mask"}})
  for i = 0, 8 do
    local before = mask:data()[i]
    mask:data()[i] = before + step
    local above = loss()
    mask:data()[i] = before - step
    local expected = (above - loss()) / (2 * step)
    mask:data()[i] = before
    assert(math.abs(found.attn_mask:data()[i] - expected) < 1e-6, i)
  end
end

function tests.calls_do_not_mix_and_gradients_add_up()
  local layer = make_layer()
  local first = layer:forward_saving(tokens, tokens, tokens)
  local alone = first:backward({output = given}, {wanted = {"query", "in_proj_weight"}})
  layer:forward_saving(given, given, given, {is_causal = true})
  collectgarbage()
  local twice = first:backward({output = given}, {wanted = {"query", "in_proj_weight"}})
  assert_equal(first_row(alone.query), first_row(twice.query))
  local query = alone.query:data()[0]
  first:backward({output = given}, {out = twice, accumulate = true})
  assert(math.abs(2 * query - twice.query:data()[0]) < 1e-12)
end

function tests.refusals_name_what_is_wrong()
  local layer = make_layer()
  local saved = layer:forward_saving(tokens, tokens, tokens)
  local function go_back(gradients, options)
    return saved:backward(gradients, options)
  end
  assert_fails(codes.NULL, "gradients.output: ", go_back, {})
  assert_fails(codes.VALUE, "gradients.attention.sinks: ", go_back, {output = given}, {wanted = {"sinks"}})
  assert_fails(codes.VALUE, "wanted: expected one of ", go_back, {output = given}, {wanted = {"bias_k"}})
  assert_fails(codes.VALUE, "scores: expected one of the options lse, output, weights", go_back, {scores = given})
  local cache = {key = attention.zeros("float64", {2, 3, 4}), value = attention.zeros("float64", {2, 3, 4}),
                 lengths = 3}
  assert_fails(codes.UNSUPPORTED, "cache: ", function()
    return layer:forward_saving(tokens, tokens, tokens, {cache = cache})
  end)
end

-- The wrapper has no way to leave it out.
function tests.the_library_refuses_a_call_that_saved_nothing()
  local layer, gradients = make_layer(), ffi.new("attn_mha_gradients")
  gradients.struct_size, gradients.output = ffi.sizeof(gradients), given.view
  local params = ffi.new("attn_mha_params")
  params.struct_size = ffi.sizeof(params)
  assert_equal(codes.NULL, tonumber(library.attn_mha_backward(nil, layer.object, tokens.view, tokens.view, tokens.view,
                                                              params, gradients, nil, 0)))
  assert(ffi.string(library.attn_last_error()):find("saved", 1, true))
end

checks.run(tests)
