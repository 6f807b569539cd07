-- SPDX-License-Identifier: BSD-3-Clause
-- Reads one exported case: lines of text, those of tensors followed by their elements.

local attention = require "attention"

local element_bytes = {float32 = 4, float64 = 8, bfloat16 = 2, float16 = 2, bool = 1, int64 = 8, int32 = 4,
                       uint8 = 1}

-- The tensor that `header` ("float32 2 3 4": dtype, rank, shape) announces, and where it ends.
local function read_tensor(text, header, at)
  local dtype, rank, lengths = header:match("^(%S+) (%d+)(.*)$")
  local shape, bytes = {}, assert(element_bytes[dtype], header)
  for length in lengths:gmatch("%d+") do
    shape[#shape + 1] = tonumber(length)
    bytes = bytes * tonumber(length)
  end
  assert(#shape == tonumber(rank), header)
  return attention.from_bytes(text:sub(at, at + bytes - 1), dtype, shape), at + bytes
end

local readers = {}

function readers.call(case, rest, _, at)
  case.call = rest
  return at
end

function readers.option(case, rest, _, at)
  local name, value = rest:match("^(%S+) (.*)$")
  case.options[name] = tonumber(value) or value
  return at
end

function readers.tensor(case, rest, text, at)
  local name, header = rest:match("^(%S+) (.*)$")
  case.tensors[name], at = read_tensor(text, header, at)
  return at
end

function readers.expect(case, rest, text, at)
  local name, tolerance, header = rest:match("^(%S+) (%S+) (.*)$")
  local values
  values, at = read_tensor(text, header, at)
  case.expected[name] = {tolerance = assert(tonumber(tolerance), rest), values = values}
  return at
end

function readers.error(case, rest, _, at)
  local code, message = rest:match("^(%d+) (.*)$")
  case.error = {code = tonumber(code), message = message}
  return at
end

local function read_case(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  local case, at = {options = {}, tensors = {}, expected = {}}, 1
  while at <= #text do
    local kind, rest, stop = text:match("^(%S+) ([^\n]*)\n()", at)
    local reader = readers[kind] or error(("%s: unknown record at byte %d"):format(path, at))
    at = reader(case, rest, text, stop)
  end
  return case
end

return read_case
