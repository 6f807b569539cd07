-- SPDX-License-Identifier: BSD-3-Clause
-- How options given as Lua tables become numbers of the C structs. A misspelt option is an error.

local ffi = require "ffi"
local failure = require "attention.failure"

local options = {}

local function sorted_names(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, ", ")
end

-- Raises unless every key of `given` is one of `known`'s.
function options.check_names(given, known)
  for name in pairs(given) do
    if known[name] == nil then
      failure.raise(failure.codes.VALUE,
                    ("%s: expected one of the options %s"):format(tostring(name), sorted_names(known)))
    end
  end
end

-- The value of the name chosen for an argument, a key of `values`.
function options.choose(argument, values, name)
  local value = values[name]
  if value == nil then
    failure.raise(failure.codes.VALUE,
                  ("%s: expected one of %s, got %s"):format(argument, sorted_names(values), tostring(name)))
  end
  return value
end

-- The name that has the value.
function options.name_of(values, wanted)
  for name, value in pairs(values) do
    if value == wanted then
      return name
    end
  end
end

-- A zeroed C struct that says how large it is.
function options.sized(struct)
  local made = ffi.new(struct)
  made.struct_size = ffi.sizeof(made)
  return made
end

-- A C flag of 0 or 1; numbers pass as they are and are the library's to check.
function options.flag(value)
  if type(value) == "number" then
    return value
  end
  return value and 1 or 0
end

return options
