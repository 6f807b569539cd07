-- SPDX-License-Identifier: BSD-3-Clause
-- Numbers of 16 bits: their conversion, attention on them, layers that keep them.

local ffi = require "ffi"
local attention = require "attention"
local checks = require "checks"
local library = require("attention.abi").library

local tests = {}

local digits = {bfloat16 = 8, float16 = 11, float32 = 24}

-- The same numbers in nested tables of any shape of 24.
local function numbers(shape)
  local at = 0
  local function make(axis)
    if axis > #shape then
      at = at + 1
      return ((at - 1) * 37 + 11) % 64 / 32 - 1
    end
    local made = {}
    for i = 1, shape[axis] do
      made[i] = make(axis + 1)
    end
    return made
  end
  return make(1)
end

local function flat(values, made)
  made = made or {}
  if type(values) == "table" then
    for _, value in ipairs(values) do
      flat(value, made)
    end
  else
    made[#made + 1] = values
  end
  return made
end

-- Within half a step of the result's type and what float32 is off by.
local function assert_near(expected, result)
  local found, largest = flat(result:totable()), 0
  for i, wanted in ipairs(flat(expected:totable())) do
    local _, exponent = math.frexp(math.abs(wanted) + 1e-5)
    local tolerance = 2 ^ (exponent - 1 - digits[result.dtype]) + 1e-5
    assert(math.abs(found[i] - wanted) <= tolerance, ("expected %.9g, got %.9g"):format(wanted, found[i]))
    largest = math.max(largest, math.abs(wanted))
  end
  assert(largest > 0, "nothing is computed")
end

local function widened(narrow)
  return attention.tensor(narrow:totable(), "float32")
end

function tests.numbers_are_the_nearest()
  local step = 2 ^ -24
  local expected = {
    float16 = {
      [1] = 0x3c00, [-2] = 0xc000, [65504] = 0x7bff, [65519] = 0x7bff, [65520] = 0x7c00, [-math.huge] = 0xfc00,
      [step] = 1, [step / 2] = 0, [1.5 * step] = 2, [1023 * step] = 0x3ff, [1023.5 * step] = 0x400,
      [1024 * step] = 0x400, [1 + 2 ^ -11] = 0x3c00, [1 + 2 ^ -11 + 2 ^ -50] = 0x3c01, [1 + 3 * 2 ^ -11] = 0x3c02,
    },
    bfloat16 = {
      [1] = 0x3f80, [-2] = 0xc000, [math.huge] = 0x7f80, [2 ^ 128 - 2 ^ 104] = 0x7f80, [2 ^ -133] = 1,
      [1 + 2 ^ -8] = 0x3f80, [1 + 2 ^ -8 + 2 ^ -23] = 0x3f81, [1 + 3 * 2 ^ -8] = 0x3f82, [1e300] = 0x7f80,
    },
  }
  for dtype, list in pairs(expected) do
    for number, bits in pairs(list) do
      checks.equal(bits, attention.half_bits(dtype, number))
    end
    checks.equal(0x8000, attention.half_bits(dtype, -0.0))
    local nan = attention.half_number(dtype, attention.half_bits(dtype, 0 / 0))
    assert(nan ~= nan)
    for bits = 0, 0xffff do
      local number = attention.half_number(dtype, bits)
      assert(number ~= number or attention.half_bits(dtype, number) == bits, bits)
    end
  end
  assert(attention.half_number("float16", 0x7c01) ~= attention.half_number("float16", 0x7c01))
  checks.fails(attention.codes.VALUE, "dtype: expected one of bfloat16, float16, got float32", attention.half_bits,
               "float32", 1)
end

function tests.attention_is_that_of_the_numbers()
  for _, dtype in ipairs {"bfloat16", "float16"} do
    local narrow = attention.tensor(numbers {2, 3, 4}, dtype)
    local wide = widened(narrow)
    local given = {is_causal = true, return_lse = true, return_weights = true}
    local expected, expected_lse = attention.sdpa(wide, wide, wide, given)
    local output, lse, weights = attention.sdpa(narrow, narrow, narrow, given)
    checks.equal(dtype, output.dtype)
    checks.equal("float32", lse.dtype)
    checks.equal(dtype, weights.dtype)
    assert_near(expected, output)
    assert_near(expected_lse, lse)
    given.out = attention.zeros("float32", {2, 3, 4})
    attention.sdpa(narrow, narrow, narrow, given)
    checks.equal(table.concat(flat(expected:totable()), " "), table.concat(flat(given.out:totable()), " "))
  end
end

function tests.keys_and_values_may_be_of_other_types()
  local bits = ffi.new("uint16_t[24]")
  for i, number in ipairs(flat(numbers {24})) do
    bits[i - 1] = attention.half_bits("bfloat16", number)
  end
  local query = attention.tensor(numbers {2, 3, 4})
  local key = attention.view(bits, "bfloat16", {2, 3, 4})
  local value = attention.tensor(numbers {2, 3, 4}, "float16")
  local expected, output = attention.sdpa(query, widened(key), widened(value)), attention.sdpa(query, key, value)
  checks.equal("float32", output.dtype)
  assert_near(expected, output)
  local double = attention.zeros("float64", {2, 3, 4})
  checks.fails(attention.codes.DTYPE, "key: expected dtype float32, bfloat16 or float16, got float64",
               attention.sdpa, value, double, double)
end

-- Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256).
function tests.weights_stay_float32_where_a_context_asks()
  local query = attention.tensor({{1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}}, "bfloat16")
  local key = attention.tensor({{0}, {-77 / 256}}, "bfloat16")
  local value = attention.tensor({{0}, {1}}, "bfloat16")
  local index = 0
  while library.attn_kernels_name(index) ~= nil do
    local kernels = ffi.string(library.attn_kernels_name(index))
    local context = attention.context {kernels = kernels, float32_weights = true}
    local out = attention.zeros("float32", {8, 1})
    attention.sdpa(query, key, value, {out = out, context = context})
    for _, number in ipairs(flat(out:totable())) do
      checks.close(1 / (1 + math.exp(77 / 256)), number)
    end
    index = index + 1
  end
  assert(index > 0)
end

local function assert_layer_is_near(dtype, parameter_dtype)
  local config = {embed_dim = 8, num_heads = 2, dtype = dtype, parameter_dtype = parameter_dtype}
  local layer, wide_layer = attention.layer(config), attention.layer {embed_dim = 8, num_heads = 2}
  layer:init_parameters(1)
  local described = layer:describe()
  checks.equal(dtype, described.dtype)
  checks.equal(parameter_dtype or dtype, described.parameter_dtype)
  for name, values in pairs(layer:state_dict()) do
    checks.equal(parameter_dtype or dtype, values.dtype)
    wide_layer:load(name, values)
  end
  local tokens = attention.tensor(numbers {3, 8}, dtype)
  local wide = widened(tokens)
  local output, weights = layer(tokens, tokens, tokens)
  local expected, expected_weights = wide_layer(wide, wide, wide)
  checks.equal(dtype, output.dtype)
  assert_near(expected, output)
  assert_near(expected_weights, weights)
end

function tests.layers_keep_and_compute_with_16_bits()
  assert_layer_is_near("bfloat16")
  assert_layer_is_near("float16", "float32")
  assert_layer_is_near("float32", "bfloat16")
  local layer = attention.layer {embed_dim = 8, num_heads = 2, bias = false, parameter_dtype = "bfloat16"}
  layer:load("out_proj.weight", attention.zeros("float64", {8, 8}))
  layer:bind("in_proj_weight", attention.zeros("bfloat16", {24, 8}))
  checks.equal(0, layer(numbers {3, 8}, numbers {3, 8}, numbers {3, 8}):totable()[3][8])
  checks.fails(attention.codes.DTYPE, "parameter_dtype: expected float64, or 0, beside dtype float64, got float16",
               attention.layer, {embed_dim = 8, num_heads = 2, dtype = "float64", parameter_dtype = "float16"})
end

checks.run(tests)
