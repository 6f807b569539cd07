-- SPDX-License-Identifier: BSD-3-Clause
-- The gradients of scaled dot-product attention.

local context = require "attention.context"
local failure = require "attention.failure"
local options = require "attention.options"
local sdpa = require "attention.sdpa"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local backward = {}

-- What has a gradient, and its field of attn_sdpa_gradients.
local fields = {query = "query", key = "key", value = "value", attn_mask = "mask", bias = "bias",
                position_bias = "position_bias", alibi_slopes = "alibi_slopes", sinks = "sinks"}

-- What is given, and what it is to be like.
local given_fields = {output = true, lse = true, weights = true}

local own_options = {wanted = true, out = true, accumulate = true}
local call_options = {context = true, kv = true, query_starts = true}
for name in pairs(sdpa.attention_options) do
  call_options[name] = true
end
for name in pairs(own_options) do
  call_options[name] = true
end
call_options.return_lse, call_options.return_scores = nil, nil

-- The names that are wanted, each with the caller's tensor or true.
local function wanted_of(given)
  local wanted = {}
  for _, name in ipairs(given.wanted or (given.out and {} or {"query", "key", "value"})) do
    options.choose("wanted", fields, name)
    wanted[name] = true
  end
  for name, output in pairs(given.out or {}) do
    options.choose("out", fields, name)
    wanted[name] = tensor.writable("out." .. name, output)
  end
  return wanted
end

-- The tensor that a gradient is of; nil: the library says what is missing.
local function input_of(arguments, name)
  return arguments[name] or (arguments.kv and arguments.kv[name])
end

-- Where a gradient goes: the caller's tensor, or zeros like its input, or, without that, any tensor.
local function place_of(arguments, name, wanted)
  if wanted ~= true then
    return wanted
  end
  local input = input_of(arguments, name)
  return input and tensor.zeros(input.dtype, input.shape) or tensor.zeros("float32", {1})
end

-- The gradients of sdpa(query, key, value, given), by the names of what they are of. `made` is what
-- that returned, {output = ..., lse = ...}; `gradients` those of the same, and of weights.
function backward.call(query, key, value, made, gradients, given)
  given = given or {}
  options.check_names(given, call_options)
  options.check_names(gradients, given_fields)
  local arguments = sdpa.make_arguments(given, library.ATTN_MASK_BOOL_INCLUDE)
  sdpa.add_sequences(arguments, given)
  arguments.query, arguments.key, arguments.value = tensor.wrap(query), tensor.wrap(key), tensor.wrap(value)
  arguments.output, arguments.lse = tensor.wrap(made.output), tensor.wrap(made.lse)
  arguments.params.lse = tensor.pointer(arguments.lse)
  -- All that C structs point to is in this table, which is in use until the call returns.
  arguments.gradients, arguments.given, arguments.found = options.sized("attn_sdpa_gradients"), {}, {}
  arguments.gradients.accumulate = options.flag(given.accumulate)
  for name in pairs(given_fields) do
    arguments.given[name] = tensor.wrap(gradients[name])
    arguments.gradients[name] = tensor.pointer(arguments.given[name])
  end
  for name, wanted in pairs(wanted_of(given)) do
    arguments.found[name] = place_of(arguments, name, wanted)
    arguments.gradients[fields[name]] = tensor.pointer(arguments.found[name])
  end
  check(library.attn_sdpa_backward(context.handle(given.context), tensor.pointer(arguments.query),
                                   tensor.pointer(arguments.key), tensor.pointer(arguments.value), arguments.params,
                                   tensor.pointer(arguments.output), arguments.gradients, nil, 0))
  return arguments.found
end

return backward
