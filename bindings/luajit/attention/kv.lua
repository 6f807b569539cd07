-- SPDX-License-Identifier: BSD-3-Clause
-- Where keys and values of sequences lie, tables to attn_kv, and new rows stored there.

local context = require "attention.context"
local failure = require "attention.failure"
local options = require "attention.options"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

local kv = {}

-- What says where a sequence has a key.
local indices = {"page_table", "page_starts", "starts", "lengths"}
-- Of keys and values of integers, which mean (element - zero) * scale.
local scales = {key_scale = "key", value_scale = "value", key_zero = "key", value_zero = "value"}
local known = {key = true, value = true}
for _, name in ipairs(indices) do
  known[name] = true
end
for name in pairs(scales) do
  known[name] = true
end
local append_options = {starts = true, positions = true, context = true}

-- A table with the C struct `places` and the tensors it points to, as sdpa.make_arguments; `rows`
-- makes a tensor of key and value, `scale` one of a scale or zero beside such rows.
local function make_places(given, rows, scale)
  options.check_names(given, known)
  local made = {places = options.sized("attn_kv")}
  for _, name in ipairs {"key", "value"} do
    made[name] = rows("kv." .. name, given[name])
    made.places[name] = tensor.pointer(made[name])
  end
  for _, name in ipairs(indices) do
    made[name] = tensor.wrap(given[name], "int64")
    made.places[name] = tensor.pointer(made[name])
  end
  for name, of in pairs(scales) do
    made[name] = scale("kv." .. name, given[name], made[of])
    made.places[name] = tensor.pointer(made[name])
  end
  return made
end

local function to_read(_, values)
  return tensor.wrap(values)
end

-- To read.
function kv.read(given)
  return make_places(given, to_read, to_read)
end

local function rows_to_write(name, values)
  return values and tensor.writable(name, values)
end

-- The number of rows, nil where there is no such axis.
local function count_rows(values)
  return values and values.shape and values.shape[#values.shape - 1]
end

-- A scale of each row is written, and a copy of a table would be lost; a coarser one is read.
local function scale_to_append(name, values, rows)
  local scale = tensor.wrap(values)
  if scale == nil or count_rows(scale) ~= count_rows(rows) then
    return scale
  end
  if scale ~= values then
    failure.raise(failure.codes.VALUE, name .. ": expected a tensor, which is written, got a table")
  end
  return tensor.writable(name, scale)
end

-- To read and to write.
function kv.write(given)
  return make_places(given, rows_to_write, scale_to_append)
end

-- Stores new rows, converted: key (batch axes, Hk, L, E), value (batch axes, Hv, L, Ev); what is
-- given as kv.lengths counts them already. The key and value of kv are tensors, and so is a scale of
-- each row: a copy of a table would be lost. Returns kv.
function kv.append(given, key, value, append)
  append = append or {}
  options.check_names(append, append_options)
  local arguments = {kv = given, key = tensor.wrap(key), value = tensor.wrap(value)}
  arguments.stored = kv.write(given)
  arguments.params = options.sized("attn_kv_append_params")
  for _, name in ipairs {"starts", "positions"} do
    arguments[name] = tensor.wrap(append[name], "int64")
    arguments.params[name] = tensor.pointer(arguments[name])
  end
  failure.check(library.attn_kv_append(context.handle(append.context), arguments.stored.places,
                                       tensor.pointer(arguments.key), tensor.pointer(arguments.value),
                                       arguments.params))
  return arguments.kv -- the table is in use until here
end

return kv
