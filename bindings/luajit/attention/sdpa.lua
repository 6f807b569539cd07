-- SPDX-License-Identifier: BSD-3-Clause
-- Scaled dot-product attention: options to attn_sdpa_params, the call, what it would run.

local bit = require "bit"
local context = require "attention.context"
local failure = require "attention.failure"
local kv = require "attention.kv"
local options = require "attention.options"
local report = require "attention.report"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local sdpa = {}

local normalizers = {
  softmax = library.ATTN_NORMALIZER_SOFTMAX,
  sigmoid = library.ATTN_NORMALIZER_SIGMOID,
  linear = library.ATTN_NORMALIZER_LINEAR,
}

-- Which scores return_scores means.
local stages = {
  scaled = library.ATTN_SCORE_SCALED,
  capped = library.ATTN_SCORE_CAPPED,
  masked = library.ATTN_SCORE_MASKED,
}

-- Which of the described outputs return_weights means.
local weights_fields = {per_head = "weights", averaged = "averaged_weights"}

-- Tensors among the options: the name of their field and what Lua tables and numbers become.
local inputs = {
  attn_mask = {field = "mask"},
  mask_start = {field = "mask_start", dtype = "int64"},
  bias = {field = "bias"},
  position_bias = {field = "position_bias"},
  block_mask = {field = "block_mask", dtype = "uint8"},
  query_offset = {field = "query_offset", dtype = "int64"},
  key_lengths = {field = "key_lengths", dtype = "int64"},
  alibi_slopes = {field = "alibi_slopes"},
  sinks = {field = "sinks"},
}
local dropout_names = {probability = true, seed = true, offset = true, batch = true, head = true, row = true,
                       column = true}
local flags = {"is_causal", "enable_gqa", "align_end"}

-- The options that a layer's call takes too.
sdpa.attention_options = {scale = true, window = true, softcap = true, normalizer = true, block_size = true,
                          dropout = true, return_lse = true, return_scores = true}
for name in pairs(inputs) do
  sdpa.attention_options[name] = true
end
for _, name in ipairs(flags) do
  sdpa.attention_options[name] = true
end

local call_options = {out = true, return_weights = true, context = true, kv = true, query_starts = true}
for name in pairs(sdpa.attention_options) do
  call_options[name] = true
end

local function set_numbers(params, given)
  if given.scale then
    params.set = library.ATTN_SDPA_SET_SCALE
    params.scale = given.scale
  end
  if given.window then
    params.set = bit.bor(params.set, library.ATTN_SDPA_SET_WINDOW)
    params.window_left, params.window_right = given.window[1], given.window[2]
  end
  if given.block_size then
    params.block_rows, params.block_columns = given.block_size[1], given.block_size[2]
  end
  for _, name in ipairs(flags) do
    params[name] = options.flag(given[name])
  end
  params.softcap = given.softcap or 0
  params.normalizer = options.choose("normalizer", normalizers, given.normalizer or "softmax")
end

-- An attn_dropout, nil for none.
local function make_dropout(given)
  if given == nil then
    return nil
  end
  options.check_names(given, dropout_names)
  local made = options.sized("attn_dropout")
  for name, number in pairs(given) do
    made[name] = number
  end
  return made
end

-- A table with the C struct of the given options, and the tensors it points to: the collector does
-- not follow C pointers, nor from a field of a struct to the struct, so whatever a call sees is in the
-- table, which must be in use until the call has returned. bool_kind is what a bool mask means.
function sdpa.make_arguments(given, bool_kind)
  local arguments = {params = options.sized("attn_sdpa_params")}
  local params = arguments.params
  set_numbers(params, given)
  arguments.dropout = make_dropout(given.dropout)
  params.dropout = arguments.dropout
  for name, input in pairs(inputs) do
    arguments[name] = tensor.wrap(given[name], input.dtype)
    params[input.field] = tensor.pointer(arguments[name])
  end
  params.mask_kind = tensor.mask_kind(arguments.attn_mask, bool_kind)
  return arguments
end

-- Adds the outputs beside the main one that are asked for, each made of its description:
-- weights_field names that of the weights, nil for none.
function sdpa.add_outputs(arguments, described, make, given, weights_field)
  if given.return_scores then
    local wanted = given.return_scores == true and "scaled" or given.return_scores
    arguments.params.scores_stage = options.choose("return_scores", stages, wanted)
    arguments.scores = make(described.scores)
    arguments.params.scores = arguments.scores.view
  end
  if given.return_lse then
    arguments.lse = make(described.lse)
    arguments.params.lse = arguments.lse.view
  end
  if weights_field then
    arguments.weights = make(described[weights_field])
    arguments.params.weights = arguments.weights.view
  end
end

-- Keys and values elsewhere, and ragged queries, which a layer's attention has not.
function sdpa.add_sequences(arguments, given)
  if given.kv then
    arguments.kv = kv.read(given.kv)
    arguments.params.kv = arguments.kv.places
  end
  arguments.query_starts = tensor.wrap(given.query_starts, "int64")
  arguments.params.query_starts = tensor.pointer(arguments.query_starts)
end

-- The arguments of a call, with outputs that `make` makes of their descriptions.
local function prepare(query, key, value, given, make)
  options.check_names(given, call_options)
  local arguments = sdpa.make_arguments(given, library.ATTN_MASK_BOOL_INCLUDE)
  sdpa.add_sequences(arguments, given)
  local described, weights_field = options.sized("attn_sdpa_outputs"), nil
  arguments.described = described
  arguments.query, arguments.key, arguments.value = tensor.wrap(query), tensor.wrap(key), tensor.wrap(value)
  check(library.attn_sdpa_describe_outputs(tensor.pointer(arguments.query), tensor.pointer(arguments.key),
                                           tensor.pointer(arguments.value), arguments.params, described))
  if given.return_weights then
    local wanted = given.return_weights == true and "per_head" or given.return_weights
    weights_field = options.choose("return_weights", weights_fields, wanted)
  end
  arguments.output = given.out and tensor.writable("out", given.out) or make(described.output)
  sdpa.add_outputs(arguments, described, make, given, weights_field)
  return arguments
end

-- softmax(scale * query * key^T) * value; the options are in README.md; with kv, key and value are
-- nil. Returns output, lse, attn_weights, scores, of which the last three are nil unless they are
-- asked for.
function sdpa.call(query, key, value, given)
  given = given or {}
  local arguments = prepare(query, key, value, given, tensor.allocate)
  check(library.attn_sdpa(context.handle(given.context), arguments.query.view, tensor.pointer(arguments.key),
                          tensor.pointer(arguments.value), arguments.params, arguments.output.view, nil, 0))
  return arguments.output, arguments.lse, arguments.weights, arguments.scores
end

-- What that call would run, and why.
function sdpa.explain(query, key, value, given)
  given = given or {}
  local arguments, c_report = prepare(query, key, value, given, tensor.described), options.sized("attn_sdpa_report")
  check(library.attn_sdpa_explain(context.handle(given.context), arguments.query.view, tensor.pointer(arguments.key),
                                  tensor.pointer(arguments.value), arguments.params, arguments.output.view, c_report))
  return report.attention(c_report)
end

return sdpa
