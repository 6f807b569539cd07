-- SPDX-License-Identifier: BSD-3-Clause
-- Scaled dot-product attention: options to attn_sdpa_params, the shapes of the outputs, the call.

local bit = require "bit"
local ffi = require "ffi"
local failure = require "attention.failure"
local options = require "attention.options"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local sdpa = {}

local normalizers = {
  softmax = library.ATTN_NORMALIZER_SOFTMAX,
  sigmoid = library.ATTN_NORMALIZER_SIGMOID,
  none = library.ATTN_NORMALIZER_NONE,
}

-- Tensors among the options: the name of their field and what Lua tables and numbers become.
local inputs = {
  attn_mask = {field = "mask"},
  query_offset = {field = "query_offset", dtype = "int64"},
  key_lengths = {field = "key_lengths", dtype = "int64"},
  alibi_slopes = {field = "alibi_slopes"},
  sinks = {field = "sinks"},
}

local attention_options = {
  is_causal = true, scale = true, enable_gqa = true, window = true, softcap = true, normalizer = true,
}
for name in pairs(inputs) do
  attention_options[name] = true
end

local call_options = {out = true, return_lse = true, return_weights = true, context = true}
for name in pairs(attention_options) do
  call_options[name] = true
end

local function set_numbers(params, given)
  local flags = 0
  if given.scale then
    flags = bit.bor(flags, library.ATTN_SDPA_SET_SCALE)
    params.scale = given.scale
  end
  if given.window then
    flags = bit.bor(flags, library.ATTN_SDPA_SET_WINDOW)
    params.window_left, params.window_right = given.window[1], given.window[2]
  end
  if given.enable_gqa then
    flags = bit.bor(flags, library.ATTN_SDPA_ENABLE_GQA)
  end
  params.flags = flags
  params.is_causal = options.flag(given.is_causal)
  params.softcap = given.softcap or 0
  params.normalizer = options.choose("normalizer", normalizers, given.normalizer or "softmax")
end

-- A table with the C struct of the given options, and the tensors it points to: the collector does
-- not follow C pointers, so the table must be in use until the call has returned.
local function make_arguments(given)
  local arguments = {params = ffi.new("attn_sdpa_params")}
  local params = arguments.params
  params.struct_size = ffi.sizeof(params)
  set_numbers(params, given)
  for name, input in pairs(inputs) do
    arguments[name] = tensor.wrap(given[name], input.dtype)
    params[input.field] = tensor.pointer(arguments[name])
  end
  params.mask_kind = tensor.mask_kind(arguments.attn_mask, library.ATTN_MASK_BOOL_INCLUDE)
  return arguments
end

-- The same for the attention inside another call, which has outputs and a context of its own.
function sdpa.inner_arguments(given)
  options.check_names(given, attention_options)
  return make_arguments(given)
end

-- The length of an axis of `rank` axes aligned at the last one; 1 where the tensor has none.
local function axis_length(values, axis, rank)
  return values.shape[axis - rank + #values.shape] or 1
end

-- Length 1 repeats. Grouped heads need no rule of their own: where query has one head, so have key
-- and value. Of lengths that contradict each other any will do: the call says which is wrong.
local function broadcast_length(tensors, axis, rank)
  for _, values in ipairs(tensors) do
    local length = axis_length(values, axis, rank)
    if length ~= 1 then
      return length
    end
  end
  return 1
end

local function output_shape(query, key, value)
  local rank, shape = math.max(2, #query.shape, #key.shape, #value.shape), {}
  for axis = 1, rank - 2 do
    shape[axis] = broadcast_length({query, key, value}, axis, rank)
  end
  shape[rank - 1] = axis_length(query, rank - 1, rank)
  shape[rank] = axis_length(value, rank, rank)
  return shape
end

-- Room for the outputs beside the main one that are asked for: its shape with another last axis.
local function add_results(arguments, given, output, num_keys)
  local dtype, params = arguments.query.dtype, arguments.params
  local shape = {unpack(output.shape)}
  if given.return_weights then
    shape[#shape] = num_keys
    arguments.weights = tensor.zeros(dtype, shape)
    params.weights = arguments.weights.view
  end
  if given.return_lse then
    shape[#shape] = nil
    arguments.lse = tensor.zeros(dtype, shape)
    params.lse = arguments.lse.view
  end
end

-- softmax(scale * query * key^T) * value; the options are in README.md. Returns output, lse,
-- attn_weights, of which the last two are nil unless they are asked for.
function sdpa.call(query, key, value, given)
  given = given or {}
  options.check_names(given, call_options)
  local arguments = make_arguments(given)
  query, key, value = tensor.wrap(query), tensor.wrap(key), tensor.wrap(value)
  arguments.query, arguments.key, arguments.value = query, key, value
  local output = given.out or tensor.zeros(query.dtype, output_shape(query, key, value))
  add_results(arguments, given, output, axis_length(key, 1, 2))
  failure.check(library.attn_sdpa(given.context and given.context:handle(), query.view, key.view, value.view,
                                  arguments.params, output.view, nil, 0))
  return output, arguments.lse, arguments.weights
end

return sdpa
