-- SPDX-License-Identifier: BSD-3-Clause
-- Multi-head attention layers: torch.nn.MultiheadAttention in evaluation mode, parameter names
-- included.

local ffi = require "ffi"
local failure = require "attention.failure"
local options = require "attention.options"
local sdpa = require "attention.sdpa"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local sizes = {"embed_dim", "num_heads", "kdim", "vdim", "qdim", "num_kv_heads", "head_dim", "value_head_dim"}
local flags = {"add_bias_kv", "add_zero_attn", "batch_first"}
local config_options = {dtype = true, bias = true, context = true}
for _, name in ipairs(sizes) do
  config_options[name] = true
end
for _, name in ipairs(flags) do
  config_options[name] = true
end
local forward_options = {
  key_padding_mask = true, attn_mask = true, is_causal = true, need_weights = true,
  average_attn_weights = true, attention = true, context = true,
}

local Layer = {}
Layer.__index = Layer

local layer = {}

-- An option that is on unless it is false.
local function switch(value)
  return value == false and library.ATTN_OFF or library.ATTN_DEFAULT
end

-- A layer without parameters. `config` has the names of PyTorch's constructor, and qdim,
-- num_kv_heads, head_dim, value_head_dim, dtype, context (whose allocator is used).
function layer.new(config)
  options.check_names(config, config_options)
  local c_config = ffi.new("attn_mha_config")
  c_config.struct_size = ffi.sizeof(c_config)
  for _, name in ipairs(sizes) do
    c_config[name] = config[name] or 0
  end
  for _, name in ipairs(flags) do
    c_config[name] = options.flag(config[name])
  end
  c_config.bias = switch(config.bias)
  c_config.dtype = options.choose("dtype", tensor.dtypes, config.dtype or "float32")
  local created = ffi.new("attn_mha *[1]")
  check(library.attn_mha_create(config.context and config.context:handle(), c_config, created))
  return setmetatable({
    object = ffi.gc(created[0], library.attn_mha_destroy),
    config = c_config,
    dtype = config.dtype or "float32",
    bound = {},
  }, Layer)
end

-- The parameters of PyTorch's state_dict, in its order: a list of {name = ..., shape = {...}}.
function Layer:parameters()
  local count, name, view = ffi.new("int64_t[1]"), ffi.new("const char *[1]"), ffi.new("attn_tensor")
  check(library.attn_mha_parameter_count(self.object, count))
  local parameters = {}
  for index = 0, tonumber(count[0]) - 1 do
    check(library.attn_mha_parameter_describe(self.object, index, name, view))
    local shape = {}
    for axis = 1, view.rank do
      shape[axis] = tonumber(view.shape[axis - 1])
    end
    parameters[index + 1] = {name = ffi.string(name[0]), shape = shape}
  end
  return parameters
end

-- Copies a parameter into the layer.
function Layer:load(name, values)
  values = tensor.wrap(values, self.dtype)
  check(library.attn_mha_load_parameter(self.object, name, values.view))
  self.bound[name] = nil
end

-- Uses the tensor's memory as a parameter, without a copy.
function Layer:bind(name, values)
  check(library.attn_mha_bind_parameter(self.object, name, values.view))
  self.bound[name] = values
end

-- A copy of a parameter of `shape`, as parameters() lists it.
local function read(self, name, shape)
  local values = tensor.zeros(self.dtype, shape)
  check(library.attn_mha_read_parameter(self.object, name, values.view))
  return values
end

function Layer:load_state_dict(state)
  for name, values in pairs(state) do
    self:load(name, values)
  end
end

function Layer:state_dict()
  local state = {}
  for _, parameter in ipairs(self:parameters()) do
    state[parameter.name] = read(self, parameter.name, parameter.shape)
  end
  return state
end

-- Fresh values, distributed as PyTorch's; the same for the same seed.
function Layer:init_parameters(seed)
  check(library.attn_mha_init_parameters(self.object, seed))
  self.bound = {}
end

local function with_last(shape, length)
  local result = {unpack(shape)}
  result[#result] = length
  return result
end

-- (N, L, T), per head (N, H, L, T), unbatched without N; T counts the columns added after the keys.
-- Ranks and lengths that contradict each other give any shape: the call says which is wrong.
local function weights_shape(self, query, key, is_averaged)
  local config = self.config
  local is_batched = #query.shape == 3
  local is_batch_major = not is_batched or options.flag(config.batch_first) == 1
  local sequence_axis = is_batched and is_batch_major and 2 or 1
  local shape = {}
  if is_batched then
    shape[1] = query.shape[3 - sequence_axis]
  end
  if not is_averaged then
    shape[#shape + 1] = tonumber(config.num_heads)
  end
  shape[#shape + 1] = query.shape[sequence_axis] or 0
  shape[#shape + 1] = (key.shape[sequence_axis] or 0) + config.add_bias_kv + config.add_zero_attn
  return shape
end

-- The C struct of a call's options in a table with the tensors it points to, as in sdpa.lua.
local function make_arguments(given)
  local arguments = {
    params = ffi.new("attn_mha_params"),
    key_padding_mask = tensor.wrap(given.key_padding_mask),
    attn_mask = tensor.wrap(given.attn_mask),
    attention = given.attention and sdpa.inner_arguments(given.attention),
  }
  local params, bool_kind = arguments.params, library.ATTN_MASK_BOOL_EXCLUDE
  params.struct_size = ffi.sizeof(params)
  params.is_causal = options.flag(given.is_causal)
  params.average_attn_weights = switch(given.average_attn_weights)
  params.key_padding_mask_kind = tensor.mask_kind(arguments.key_padding_mask, bool_kind)
  params.key_padding_mask = tensor.pointer(arguments.key_padding_mask)
  params.attn_mask_kind = tensor.mask_kind(arguments.attn_mask, bool_kind)
  params.attn_mask = tensor.pointer(arguments.attn_mask)
  params.attention = arguments.attention and arguments.attention.params
  return arguments
end

-- Returns attn_output and attn_weights, nil with need_weights = false; the options are in README.md.
function Layer:forward(query, key, value, given)
  given = given or {}
  options.check_names(given, forward_options)
  local arguments = make_arguments(given)
  query, key, value = tensor.wrap(query, self.dtype), tensor.wrap(key, self.dtype), tensor.wrap(value, self.dtype)
  arguments.query, arguments.key, arguments.value = query, key, value
  local output = tensor.zeros(self.dtype, with_last(query.shape, tonumber(self.config.embed_dim)))
  if given.need_weights ~= false then
    local is_averaged = given.average_attn_weights ~= false
    arguments.weights = tensor.zeros(self.dtype, weights_shape(self, query, key, is_averaged))
    arguments.params.attn_weights = arguments.weights.view
  end
  check(library.attn_mha_forward(given.context and given.context:handle(), self.object, query.view, key.view,
                                 value.view, arguments.params, output.view, nil, 0))
  return output, arguments.weights
end

Layer.__call = Layer.forward

-- Frees the layer now instead of when it is collected; every later use is an error of the library.
function Layer:close()
  if self.object ~= nil then
    library.attn_mha_destroy(ffi.gc(self.object, nil))
    self.object, self.bound = nil, {}
  end
end

return layer
