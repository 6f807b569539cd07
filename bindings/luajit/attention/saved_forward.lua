-- SPDX-License-Identifier: BSD-3-Clause
-- The gradients of a layer: what a forward call saved, with the arguments of that call, so that nothing
-- else can be taken for them.

local ffi = require "ffi"
local backward = require "attention.backward"
local context = require "attention.context"
local failure = require "attention.failure"
local options = require "attention.options"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local inputs = {"query", "key", "value"}

-- What is given: gradients of output, and of these results of the attention inside.
local given_fields = {output = true, lse = true, weights = true}

local call_options = {wanted = true, out = true, accumulate = true, context = true}

local Saved = {}
Saved.__index = Saved

local saved_forward = {}

-- Memory for what the call of these arguments saves, which are in use as long as the result is.
function saved_forward.new(layer, arguments, given_context)
  local bytes, params = ffi.new("size_t[1]"), arguments.layer_params
  check(library.attn_mha_saved_bytes(context.handle(given_context), layer.object, tensor.pointer(arguments.query),
                                     tensor.pointer(arguments.key), tensor.pointer(arguments.value), params, bytes))
  arguments.saved = ffi.new("uint64_t[?]", math.ceil(tonumber(bytes[0]) / 8))
  params.saved, params.saved_bytes = arguments.saved, bytes[0]
  return setmetatable({layer = layer, arguments = arguments, context = given_context}, Saved)
end

-- The names of all that may be wanted, and a list of those usually wanted: of inputs and parameters.
local function names_of(parameters)
  local known, usual = {}, {}
  for name in pairs(backward.fields) do
    known[name] = true
  end
  for _, name in ipairs(inputs) do
    usual[#usual + 1] = name
  end
  for _, parameter in ipairs(parameters) do
    known[parameter.name] = true
    usual[#usual + 1] = parameter.name
  end
  return known, usual
end

-- An attn_tensor for each parameter, without data where its gradient is not wanted.
local function parameter_views(layer, parameters, wanted, found)
  local views = ffi.new("attn_tensor[?]", #parameters)
  for index, parameter in ipairs(parameters) do
    local name = parameter.name
    if wanted[name] then
      found[name] = backward.place_of(wanted[name], {dtype = layer.parameter_dtype, shape = parameter.shape})
      views[index - 1] = found[name].view
    end
  end
  return views
end

-- The structs of the gradients in a table with all that they point to.
local function prepare(self, gradients, given)
  options.check_names(given, call_options)
  options.check_names(gradients, given_fields)
  local layer, parameters = self.layer, self.layer:parameters()
  local wanted = backward.wanted_of(given, names_of(parameters))
  local structs = {layer = options.sized("attn_mha_gradients"), attention = options.sized("attn_sdpa_gradients"),
                   given = {}, found = {}}
  for name in pairs(given_fields) do
    local is_lse = name == "lse" and layer.dtype ~= "float64"
    structs.given[name] = tensor.wrap(gradients[name], is_lse and "float32" or layer.dtype)
    local struct = name == "output" and structs.layer or structs.attention
    struct[name] = tensor.pointer(structs.given[name])
  end
  for name, field in pairs(backward.fields) do
    if wanted[name] then
      structs.found[name] = backward.place_of(wanted[name], self.arguments[name])
      local struct = (name == "query" or name == "key" or name == "value") and structs.layer or structs.attention
      struct[field] = tensor.pointer(structs.found[name])
    end
  end
  structs.parameters = parameter_views(layer, parameters, wanted, structs.found)
  structs.layer.parameters, structs.layer.num_parameters = structs.parameters, #parameters
  structs.layer.attention, structs.layer.accumulate = structs.attention, options.flag(given.accumulate)
  return structs
end

-- The gradients of the call, by the names of what they are of: inputs, options and parameters.
-- `gradients` are those of its output, and of its lse and weights; the options are in README.md.
function Saved:backward(gradients, given)
  given = given or {}
  local arguments, structs = self.arguments, prepare(self, gradients, given)
  check(library.attn_mha_backward(context.handle(given.context or self.context), self.layer.object,
                                  tensor.pointer(arguments.query), tensor.pointer(arguments.key),
                                  tensor.pointer(arguments.value), arguments.layer_params, structs.layer, nil, 0))
  return structs.found
end

return saved_forward
