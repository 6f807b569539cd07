-- SPDX-License-Identifier: BSD-3-Clause
-- Multi-head attention layers: torch.nn.MultiheadAttention in evaluation mode, parameter names
-- included.

local ffi = require "ffi"
local context = require "attention.context"
local failure = require "attention.failure"
local kv = require "attention.kv"
local options = require "attention.options"
local report = require "attention.report"
local saved_forward = require "attention.saved_forward"
local sdpa = require "attention.sdpa"
local steps = require "attention.steps"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local check = failure.check

local sizes = {"embed_dim", "num_heads", "kdim", "vdim", "qdim", "num_kv_heads", "head_dim", "value_head_dim"}
local flags = {"add_bias_kv", "add_zero_attn", "batch_first"}
local norms = {
  none = library.ATTN_QK_NORM_NONE,
  head = library.ATTN_QK_NORM_HEAD,
  all_heads = library.ATTN_QK_NORM_ALL_HEADS,
}
local norm_numbers = {"qk_norm_epsilon", "qk_norm_weight_offset"}
local config_options = {dtype = true, parameter_dtype = true, bias = true, context = true, qk_norm = true,
                        qk_norm_epsilon = true, qk_norm_weight_offset = true}
for _, name in ipairs(sizes) do
  config_options[name] = true
end
for _, name in ipairs(flags) do
  config_options[name] = true
end
local forward_options = {key_padding_mask = true, need_weights = true, average_attn_weights = true, context = true,
                         cache = true, rope = true}
for name in pairs(sdpa.attention_options) do
  forward_options[name] = true
end

local Layer = {}
Layer.__index = Layer

local layer = {}

-- A layer without parameters. `config` has the names of PyTorch's constructor, and qdim,
-- num_kv_heads, head_dim, value_head_dim, dtype, parameter_dtype, qk_norm ("none", "head" or
-- "all_heads"), qk_norm_epsilon, qk_norm_weight_offset, context (whose allocator is used).
function layer.new(config)
  options.check_names(config, config_options)
  local c_config = options.sized("attn_mha_config")
  for _, name in ipairs(sizes) do
    c_config[name] = config[name] or 0
  end
  for _, name in ipairs(flags) do
    c_config[name] = options.flag(config[name])
  end
  c_config.qk_norm = options.choose("qk_norm", norms, config.qk_norm or "none")
  for _, name in ipairs(norm_numbers) do
    c_config[name] = config[name] or 0
  end
  c_config.no_bias = options.flag(config.bias == false)
  c_config.dtype = options.choose("dtype", tensor.dtypes, config.dtype or "float32")
  if config.parameter_dtype then
    c_config.parameter_dtype = options.choose("parameter_dtype", tensor.dtypes, config.parameter_dtype)
  end
  local created = ffi.new("attn_mha *[1]")
  check(library.attn_mha_create(context.handle(config.context), c_config, created))
  return setmetatable({
    object = ffi.gc(created[0], library.attn_mha_destroy),
    dtype = config.dtype or "float32",
    parameter_dtype = config.parameter_dtype or config.dtype or "float32",
    -- of parameters that go in and out: weights of int8 as what they mean
    values_dtype = config.parameter_dtype == "int8" and "float32" or config.parameter_dtype or config.dtype or "float32",
    bound = {},
  }, Layer)
end

-- What the layer is: a config that makes the same, with every size.
function Layer:describe()
  local c_config = options.sized("attn_mha_config")
  check(library.attn_mha_describe(self.object, c_config))
  local config = {
    dtype = options.name_of(tensor.dtypes, c_config.dtype),
    parameter_dtype = options.name_of(tensor.dtypes, c_config.parameter_dtype),
    bias = c_config.no_bias == 0,
    qk_norm = options.name_of(norms, c_config.qk_norm),
    qk_norm_epsilon = c_config.qk_norm_epsilon,
    qk_norm_weight_offset = c_config.qk_norm_weight_offset,
  }
  for _, name in ipairs(sizes) do
    config[name] = tonumber(c_config[name])
  end
  for _, name in ipairs(flags) do
    config[name] = c_config[name] == 1
  end
  return config
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

-- Copies a parameter into the layer, on the threads of a context. `scale`: of values that are int8,
-- one number for each row.
function Layer:load(name, values, given_context, scale)
  values = tensor.wrap(values, self.values_dtype)
  local params = options.sized("attn_mha_load_params")
  scale = scale and tensor.wrap(scale, "float32")
  params.scale = scale and scale.view
  check(library.attn_mha_load_parameter(context.handle(given_context), self.object, name, values.view, params))
  self.bound[name] = nil
end

-- Uses the tensor's memory, of the layer's parameter_dtype, as a parameter, without a copy.
function Layer:bind(name, values)
  check(library.attn_mha_bind_parameter(self.object, name, values.view))
  self.bound[name] = values
end

-- A copy of a parameter of `shape`, as parameters() lists it.
local function read(self, name, shape, given_context)
  local values = tensor.zeros(self.values_dtype, shape)
  check(library.attn_mha_read_parameter(context.handle(given_context), self.object, name, values.view))
  return values
end

function Layer:load_state_dict(state, given_context)
  for name, values in pairs(state) do
    self:load(name, values, given_context)
  end
end

function Layer:state_dict(given_context)
  local state = {}
  for _, parameter in ipairs(self:parameters()) do
    state[parameter.name] = read(self, parameter.name, parameter.shape, given_context)
  end
  return state
end

-- Fresh values, distributed as PyTorch's; the same for the same seed.
function Layer:init_parameters(seed, given_context)
  local params = options.sized("attn_mha_init_params")
  params.seed = seed or 0
  check(library.attn_mha_init_parameters(context.handle(given_context), self.object, params))
  self.bound = {}
end

-- The arguments of a forward call, with outputs that `make` makes of their descriptions.
local function prepare(self, query, key, value, given, make)
  options.check_names(given, forward_options)
  local bool_kind = library.ATTN_MASK_BOOL_EXCLUDE
  local arguments, described = sdpa.make_arguments(given, bool_kind), options.sized("attn_mha_outputs")
  local layer_params = options.sized("attn_mha_params")
  arguments.layer_params, arguments.described = layer_params, described
  arguments.key_padding_mask = tensor.wrap(given.key_padding_mask)
  layer_params.key_padding_mask = tensor.pointer(arguments.key_padding_mask)
  layer_params.key_padding_mask_kind = tensor.mask_kind(arguments.key_padding_mask, bool_kind)
  layer_params.attention = arguments.params
  if given.cache then
    arguments.cache = kv.write(given.cache)
    layer_params.cache = arguments.cache.places
  end
  if given.rope then
    arguments.rope = steps.rotation(given.rope)
    layer_params.rope = arguments.rope.params
  end
  for name, values in pairs {query = query, key = key, value = value} do
    arguments[name] = tensor.wrap(values, self.dtype)
  end
  check(library.attn_mha_describe_outputs(self.object, tensor.pointer(arguments.query), tensor.pointer(arguments.key),
                                          tensor.pointer(arguments.value), layer_params, described))
  arguments.output = make(described.output)
  local weights_field = given.average_attn_weights == false and "weights" or "averaged_weights"
  sdpa.add_outputs(arguments, described, make, given, given.need_weights ~= false and weights_field)
  return arguments
end

-- Returns attn_output, attn_weights (nil with need_weights = false), lse (nil without return_lse),
-- scores (nil without return_scores); the options are in README.md.
function Layer:forward(query, key, value, given)
  given = given or {}
  local arguments = prepare(self, query, key, value, given, tensor.allocate)
  check(library.attn_mha_forward(context.handle(given.context), self.object, tensor.pointer(arguments.query),
                                 tensor.pointer(arguments.key), tensor.pointer(arguments.value),
                                 arguments.layer_params, arguments.output.view, nil, 0))
  return arguments.output, arguments.weights, arguments.lse, arguments.scores
end

-- As forward, with what backward needs as its first result, before the others.
function Layer:forward_saving(query, key, value, given)
  given = given or {}
  local arguments = prepare(self, query, key, value, given, tensor.allocate)
  local saved = saved_forward.new(self, arguments, given.context)
  check(library.attn_mha_forward(context.handle(given.context), self.object, tensor.pointer(arguments.query),
                                 tensor.pointer(arguments.key), tensor.pointer(arguments.value),
                                 arguments.layer_params, arguments.output.view, nil, 0))
  return saved, arguments.output, arguments.weights, arguments.lse, arguments.scores
end

-- What that call would run, and why.
function Layer:explain(query, key, value, given)
  given = given or {}
  local arguments = prepare(self, query, key, value, given, tensor.described)
  local c_report, c_attention = options.sized("attn_mha_report"), options.sized("attn_sdpa_report")
  c_report.attention = c_attention
  check(library.attn_mha_explain(context.handle(given.context), self.object, tensor.pointer(arguments.query),
                                 tensor.pointer(arguments.key), tensor.pointer(arguments.value),
                                 arguments.layer_params, arguments.output.view, c_report))
  return report.layer(c_report, c_attention)
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
