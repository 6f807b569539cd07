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
local known = {key = true, value = true}
for _, name in ipairs(indices) do
  known[name] = true
end
local append_options = {starts = true, positions = true, context = true}

-- A table with the C struct `places` and the tensors it points to, as sdpa.make_arguments; `rows`
-- makes a tensor of key and value.
local function make_places(given, rows)
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
  return made
end

-- To read.
function kv.read(given)
  return make_places(given, function(_, values)
    return tensor.wrap(values)
  end)
end

-- Stores new rows, converted: key (batch axes, Hk, L, E), value (batch axes, Hv, L, Ev); what is
-- given as kv.lengths counts them already. The key and value of kv are tensors: a copy of a table
-- would be lost. Returns kv.
function kv.append(given, key, value, append)
  append = append or {}
  options.check_names(append, append_options)
  local arguments = {kv = given, key = tensor.wrap(key), value = tensor.wrap(value)}
  arguments.stored = make_places(given, function(name, values)
    return values and tensor.writable(name, values)
  end)
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
