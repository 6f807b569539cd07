-- SPDX-License-Identifier: BSD-3-Clause
-- The gradients of scaled dot-product attention.

local context = require "attention.context"
local failure = require "attention.failure"
local options = require "attention.options"
local report = require "attention.report"
local sdpa = require "attention.sdpa"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local backward = {}

-- What has a gradient, and its field of attn_sdpa_gradients.
backward.fields = {query = "query", key = "key", value = "value", attn_mask = "mask", bias = "bias",
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

-- The names that are wanted, each with the caller's tensor or true. `known` has all names that may be,
-- `usual` is a list of those wanted where the caller says nothing.
function backward.wanted_of(given, known, usual)
  local wanted = {}
  for _, name in ipairs(given.wanted or (given.out and {} or usual)) do
    options.choose("wanted", known, name)
    wanted[name] = true
  end
  for name, output in pairs(given.out or {}) do
    options.choose("out", known, name)
    wanted[name] = tensor.writable("out." .. name, output)
  end
  return wanted
end

-- The tensor that a gradient is of; nil: the library says what is missing.
local function input_of(arguments, name)
  return arguments[name] or (arguments.kv and arguments.kv[name])
end

-- Where a gradient goes: the caller's tensor, or zeros like what it is of, or, without that, any tensor.
function backward.place_of(wanted, input)
  if wanted ~= true then
    return wanted
  end
  return input and tensor.zeros(input.dtype, input.shape) or tensor.zeros("float32", {1})
end

-- The arguments of a call; all that C structs point to is in this table, which is in use until the call
-- returns.
local function prepare(query, key, value, made, gradients, given)
  options.check_names(given, call_options)
  options.check_names(gradients, given_fields)
  local arguments = sdpa.make_arguments(given, library.ATTN_MASK_BOOL_INCLUDE)
  sdpa.add_sequences(arguments, given)
  arguments.query, arguments.key, arguments.value = tensor.wrap(query), tensor.wrap(key), tensor.wrap(value)
  arguments.output, arguments.lse = tensor.wrap(made.output), tensor.wrap(made.lse)
  arguments.params.lse = tensor.pointer(arguments.lse)
  arguments.gradients, arguments.given, arguments.found = options.sized("attn_sdpa_gradients"), {}, {}
  arguments.gradients.accumulate = options.flag(given.accumulate)
  for name in pairs(given_fields) do
    arguments.given[name] = tensor.wrap(gradients[name])
    arguments.gradients[name] = tensor.pointer(arguments.given[name])
  end
  for name, wanted in pairs(backward.wanted_of(given, backward.fields, {"query", "key", "value"})) do
    arguments.found[name] = backward.place_of(wanted, input_of(arguments, name))
    arguments.gradients[backward.fields[name]] = tensor.pointer(arguments.found[name])
  end
  return arguments
end

-- The gradients of sdpa(query, key, value, given), by the names of what they are of. `made` is what
-- that returned, {output = ..., lse = ...}; `gradients` those of the same, and of weights.
function backward.call(query, key, value, made, gradients, given)
  given = given or {}
  local arguments = prepare(query, key, value, made, gradients, given)
  check(library.attn_sdpa_backward(context.handle(given.context), tensor.pointer(arguments.query),
                                   tensor.pointer(arguments.key), tensor.pointer(arguments.value), arguments.params,
                                   tensor.pointer(arguments.output), arguments.gradients, nil, 0))
  return arguments.found
end

-- What that call would run, and why.
function backward.explain(query, key, value, made, gradients, given)
  given = given or {}
  local arguments = prepare(query, key, value, made, gradients, given)
  local c_report = options.sized("attn_sdpa_backward_report")
  check(library.attn_sdpa_backward_explain(context.handle(given.context), tensor.pointer(arguments.query),
                                           tensor.pointer(arguments.key), tensor.pointer(arguments.value),
                                           arguments.params, tensor.pointer(arguments.output), arguments.gradients,
                                           c_report))
  return report.backward(c_report)
end

return backward
