-- SPDX-License-Identifier: BSD-3-Clause
-- Tensors: views of memory, which they keep alive. Axes and positions are counted from 0, negative
-- axes from the end, as in C and PyTorch, because the library's messages count so.

local ffi = require "ffi"
local failure = require "attention.failure"
local half = require "attention.half"
local options = require "attention.options"
local library = require("attention.abi").library

local check = failure.check

local dtypes = {
  float32 = library.ATTN_DTYPE_FLOAT32,
  float64 = library.ATTN_DTYPE_FLOAT64,
  bfloat16 = library.ATTN_DTYPE_BFLOAT16,
  float16 = library.ATTN_DTYPE_FLOAT16,
  bool = library.ATTN_DTYPE_BOOL,
  int64 = library.ATTN_DTYPE_INT64,
  int32 = library.ATTN_DTYPE_INT32,
  int8 = library.ATTN_DTYPE_INT8,
  uint8 = library.ATTN_DTYPE_UINT8,
}
local element_types = {
  float32 = "float",
  float64 = "double",
  bfloat16 = "uint16_t",
  float16 = "uint16_t",
  bool = "uint8_t",
  int64 = "int64_t",
  int32 = "int32_t",
  int8 = "int8_t",
  uint8 = "uint8_t",
}
local array_types, pointer_types, dtype_names = {}, {}, {}
for dtype, element in pairs(element_types) do
  array_types[dtype] = ffi.typeof(element .. "[?]")
  pointer_types[dtype] = ffi.typeof(element .. " *")
  dtype_names[dtypes[dtype]] = dtype
end

local Tensor = {}
Tensor.__index = Tensor

local tensor = {dtypes = dtypes}

local half_dtypes = {bfloat16 = dtypes.bfloat16, float16 = dtypes.float16}

-- The bits of the nearest bfloat16 or float16, of two as near the one whose last bit is 0.
function tensor.half_bits(dtype, number)
  options.choose("dtype", half_dtypes, dtype)
  return half.bits(dtype, number)
end

-- The number of such bits.
function tensor.half_number(dtype, bits)
  options.choose("dtype", half_dtypes, dtype)
  return half.number(dtype, bits)
end

-- A Lua object for a C view; `owner` is what keeps the view's memory alive, is_const whether it is an
-- input alone.
local function from_view(view, owner, is_const)
  local shape, strides = {}, {}
  for axis = 1, view.rank do
    shape[axis] = tonumber(view.shape[axis - 1])
    strides[axis] = tonumber(view.strides[axis - 1])
  end
  return setmetatable({
    view = view,
    owner = owner,
    is_const = is_const,
    dtype = dtype_names[view.dtype],
    shape = shape,
    strides = strides,
  }, Tensor)
end

local function int64_array(numbers)
  return ffi.new("int64_t[?]", #numbers, numbers)
end

-- The ffi's name of what data is: "float [4]", "const float *"; "" for a number or nil.
local function type_name(data)
  if type(data) == "string" then
    failure.raise(failure.codes.VALUE, "data: expected an ffi array or pointer, got a string, which from_bytes copies")
  end
  return type(data) == "cdata" and tostring(ffi.typeof(data)):match("^ctype<(.*)>$") or ""
end

-- Raises unless the view, from the beginning of an array on, stays inside.
local function check_inside(view, dtype, array)
  local lowest, highest = 0, 0
  for axis = 0, view.rank - 1 do
    local reach = (tonumber(view.shape[axis]) - 1) * tonumber(view.strides[axis])
    if view.shape[axis] == 0 then
      return
    end
    lowest, highest = lowest + math.min(0, reach), highest + math.max(0, reach)
  end
  local expected, found = (highest + 1) * ffi.sizeof(element_types[dtype]), ffi.sizeof(array)
  if lowest < 0 or expected > found then
    failure.raise(failure.codes.SHAPE,
                  ("data: expected a view inside the array of %d bytes, got one of elements %d to %d"):format(
                    found, lowest, highest))
  end
end

-- A view of an ffi array or pointer, C order unless strides (in elements) are given.
function tensor.view(data, dtype, shape, strides)
  local name = type_name(data)
  local code = options.choose("dtype", dtypes, dtype)
  local view, pointer = ffi.new("attn_tensor"), ffi.cast("void *", data)
  if strides == nil then
    check(library.attn_tensor_init(view, pointer, code, #shape, int64_array(shape)))
  elseif #strides ~= #shape then
    failure.raise(failure.codes.SHAPE, ("strides: expected %d, one for each axis, got %d"):format(#shape, #strides))
  else
    check(library.attn_tensor_init_strided(view, pointer, code, #shape, int64_array(shape), int64_array(strides)))
  end
  if name:find("%]$") then
    check_inside(view, dtype, data)
  end
  return from_view(view, data, name:find("const", 1, true) ~= nil)
end

local function count_elements(shape)
  local count = 1
  for _, length in ipairs(shape) do
    count = count * length
  end
  return count
end

-- New memory, zeroed.
function tensor.zeros(dtype, shape)
  options.choose("dtype", dtypes, dtype)
  local view = tensor.view(nil, dtype, shape)
  local data = array_types[dtype](count_elements(shape))
  view.view.data, view.owner = data, data
  return view
end

-- A tensor as the library describes it, in a C view without memory. What has no dtype stays without
-- memory: the library refuses it by name.
function tensor.described(view)
  return from_view(ffi.new("attn_tensor", view), nil)
end

-- New memory for it.
function tensor.allocate(view)
  local result = tensor.described(view)
  return result.dtype and tensor.zeros(result.dtype, result.shape) or result
end

-- New memory that holds the bytes of a string, such as a file's.
function tensor.from_bytes(bytes, dtype, shape)
  local result = tensor.zeros(dtype, shape)
  local expected = ffi.sizeof(result.owner)
  if #bytes ~= expected then
    failure.raise(failure.codes.SHAPE, ("bytes: expected %d for the shape, got %d"):format(expected, #bytes))
  end
  ffi.copy(result.owner, bytes, expected)
  return result
end

-- The shape of nested tables and the first of their values.
local function measure(values)
  local shape = {}
  while type(values) == "table" do
    shape[#shape + 1] = #values
    values = values[1]
  end
  return shape, values
end

-- Writes nested tables from element `at` of a contiguous tensor on and returns the place after them.
local function fill(made, values, axis, at)
  local shape = made.shape
  if axis > #shape then
    local dtype = made.dtype
    made.owner[at] = half.is(dtype) and half.bits(dtype, values) or values
    return at + 1
  end
  if type(values) ~= "table" or #values ~= shape[axis] then
    failure.raise(failure.codes.SHAPE, ("values: expected %d in each table on axis %d, got %s"):format(
      shape[axis], axis - 1, type(values) == "table" and #values or type(values)))
  end
  for _, value in ipairs(values) do
    at = fill(made, value, axis + 1, at)
  end
  return at
end

-- A tensor of nested tables, or of one number or boolean; float32 or, of booleans, bool by default.
function tensor.new(values, dtype)
  local shape, first = measure(values)
  local result = tensor.zeros(dtype or (type(first) == "boolean" and "bool" or "float32"), shape)
  fill(result, values, 1, 0)
  return result
end

-- Tensors as they are, nil too; anything else as tensor.new makes of it.
function tensor.wrap(values, dtype)
  if values == nil or getmetatable(values) == Tensor then
    return values
  end
  return tensor.new(values, dtype)
end

-- The tensor, which a call is to fill as the argument of this name.
function tensor.writable(name, output)
  if output.is_const then
    failure.raise(failure.codes.VALUE, name .. ": expected memory that may be written, got const data")
  end
  return output
end

-- The C view of a tensor, or NULL.
function tensor.pointer(values)
  return values and values.view
end

-- The kind of a mask: the caller knows whether true includes or excludes, PyTorch's functions differ.
function tensor.mask_kind(mask, bool_kind)
  if mask == nil then
    return library.ATTN_MASK_NONE
  end
  return mask.dtype == "bool" and bool_kind or library.ATTN_MASK_ADDITIVE
end

-- The address of element (0, ..., 0) as a typed pointer, good as long as the tensor is.
function Tensor:data()
  return ffi.cast(pointer_types[self.dtype], self.view.data)
end

local function to_lua(values, data, axis, at)
  if axis > #values.shape then
    local value = data[at]
    if values.dtype == "bool" then
      return value ~= 0
    end
    return half.is(values.dtype) and half.number(values.dtype, value) or tonumber(value)
  end
  local result = {}
  for i = 1, values.shape[axis] do
    result[i] = to_lua(values, data, axis + 1, at + (i - 1) * values.strides[axis])
  end
  return result
end

-- Nested tables of the values; one value for rank 0.
function Tensor:totable()
  return to_lua(self, self:data(), 1, 0)
end

-- The views below share the tensor's memory.

local function derive(values, make, ...)
  local view = ffi.new("attn_tensor")
  local arguments = {...}
  arguments[#arguments + 1] = view
  check(make(values.view, unpack(arguments)))
  return from_view(view, values.owner, values.is_const)
end

function Tensor:transpose(axis_a, axis_b)
  return derive(self, library.attn_tensor_transpose, axis_a, axis_b)
end

-- `length` positions of an axis: start, start + step, ...
function Tensor:slice(axis, start, length, step)
  return derive(self, library.attn_tensor_slice, axis, start, length, step or 1)
end

-- Position `index` of an axis, which the result does not have.
function Tensor:select(axis, index)
  return derive(self, library.attn_tensor_select, axis, index)
end

-- (..., L, num_heads * head_dim) -> (..., num_heads, L, head_dim)
function Tensor:split_heads(num_heads)
  return derive(self, library.attn_tensor_split_heads, num_heads)
end

-- (..., num_heads, L, head_dim) -> (..., L, num_heads * head_dim)
function Tensor:merge_heads()
  return derive(self, library.attn_tensor_merge_heads)
end

return tensor
