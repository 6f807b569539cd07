-- SPDX-License-Identifier: BSD-3-Clause
-- What models do around attention: partial results put together, rotary positions, RMS normalisation.

local ffi = require "ffi"
local context = require "attention.context"
local failure = require "attention.failure"
local options = require "attention.options"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local steps = {}

-- The tensor that a call is to fill: the caller's, or one like `model`, nil where that is missing,
-- which the library refuses by its name.
local function output_like(given, name, model)
  if given then
    return tensor.writable(name, given)
  end
  return model and tensor.zeros(model.dtype, model.shape)
end

-- The views in a C array. A tensor that is missing is one of no dtype: the library names it.
local function view_array(tensors, count)
  local views = ffi.new("attn_tensor[?]", count)
  for i = 1, count do
    if tensors[i] then
      views[i - 1] = tensors[i].view
    end
  end
  return views
end

local merge_options = {sinks = true, out = true, out_lse = true, context = true}

-- Merges what sdpa returned over parts of the keys, a table of {output = ..., lse = ...}. Returns
-- output and lse; without any lse the outputs are added.
function steps.merge(parts, given)
  given = given or {}
  options.check_names(given, merge_options)
  local outputs, lses, has_lse = {}, {}, false
  for i, part in ipairs(parts) do
    outputs[i], lses[i] = tensor.wrap(part.output), tensor.wrap(part.lse)
    has_lse = has_lse or lses[i] ~= nil
  end
  -- The collector does not follow a C array to the tensors: all of it is in use until the call returns.
  local arguments = {outputs = outputs, lses = lses, sinks = tensor.wrap(given.sinks)}
  arguments.output_views = view_array(outputs, #parts)
  arguments.lse_views = has_lse and view_array(lses, #parts) or nil
  arguments.params = options.sized("attn_merge_params")
  arguments.params.sinks = tensor.pointer(arguments.sinks)
  arguments.output = output_like(given.out, "out", outputs[1])
  arguments.lse = output_like(given.out_lse, "out_lse", lses[1])
  check(library.attn_sdpa_merge(context.handle(given.context), #parts, arguments.output_views, arguments.lse_views,
                                arguments.params, tensor.pointer(arguments.output), tensor.pointer(arguments.lse)))
  return arguments.output, arguments.lse
end

local rope_inputs = {frequencies = "float32", cos = "float32", sin = "float32", positions = "int64", lengths = "int64"}
local rope_numbers = {"rotary_dim", "base", "magnitude"}
local rope_flags = {"interleaved", "inverse"}
local rope_options = {out = true, context = true}
for name in pairs(rope_inputs) do
  rope_options[name] = true
end
for _, names in ipairs {rope_numbers, rope_flags} do
  for _, name in ipairs(names) do
    rope_options[name] = true
  end
end

-- A table with the C struct `params` of a rotation, and the tensors it points to.
local function rope_arguments(given)
  local arguments = {params = options.sized("attn_rope_params")}
  local params = arguments.params
  for name, dtype in pairs(rope_inputs) do
    arguments[name] = tensor.wrap(given[name], dtype)
    params[name] = tensor.pointer(arguments[name])
  end
  for _, name in ipairs(rope_numbers) do
    params[name] = given[name] or 0
  end
  for _, name in ipairs(rope_flags) do
    params[name] = options.flag(given[name])
  end
  return arguments
end

-- Those of a layer's option, without what is of a call alone.
function steps.rotation(given)
  if given.out ~= nil or given.context ~= nil then
    failure.raise(failure.codes.VALUE, "rope: expected no out and no context, which the layer's call has")
  end
  options.check_names(given, rope_options)
  return rope_arguments(given)
end

-- Rotates the features of input (batch axes, H, L, E) by the positions of its rows.
function steps.rope(input, given)
  given = given or {}
  options.check_names(given, rope_options)
  local arguments = rope_arguments(given)
  arguments.input = tensor.wrap(input)
  arguments.output = output_like(given.out, "out", arguments.input)
  check(library.attn_rope(context.handle(given.context), tensor.pointer(arguments.input), arguments.params,
                          tensor.pointer(arguments.output)))
  return arguments.output
end

local rms_norm_options = {weight = true, epsilon = true, weight_offset = true, out = true, context = true}

-- Divides each row of input (..., E) by the root of the mean of its squares.
function steps.rms_norm(input, given)
  given = given or {}
  options.check_names(given, rms_norm_options)
  local arguments = {input = tensor.wrap(input), weight = tensor.wrap(given.weight)}
  arguments.params = options.sized("attn_rms_norm_params")
  arguments.params.weight = tensor.pointer(arguments.weight)
  arguments.params.epsilon, arguments.params.weight_offset = given.epsilon or 0, given.weight_offset or 0
  arguments.output = output_like(given.out, "out", arguments.input)
  check(library.attn_rms_norm(context.handle(given.context), tensor.pointer(arguments.input), arguments.params,
                              tensor.pointer(arguments.output)))
  return arguments.output
end

return steps
