-- SPDX-License-Identifier: BSD-3-Clause
-- Runs the exported cases: luajit run_cases.lua <folder>. The last line counts them.

local attention = require "attention"
local read_case = require "case_file"

-- Options of a case by the name and type they have here; those not named pass as they are.
local booleans = {
  is_causal = true, enable_gqa = true, align_end = true, no_bias = true, add_bias_kv = true, add_zero_attn = true,
  batch_first = true, need_weights = true, average_attn_weights = true,
}

local function to_option(name, value)
  if not booleans[name] then
    return value
  end
  assert(value == 0 or value == 1, name)
  return value == 1
end

-- Moves the named options and tensors of a case to a table; those left over are unknown.
local function take(from, names, into)
  for name in names:gmatch("%S+") do
    into[name], from[name] = from[name], nil
  end
  return into
end

local function assert_empty(table, what)
  local name = next(table)
  if name ~= nil then
    error(("unknown %s %s"):format(what, name))
  end
end

local function named_options(case)
  local named = {}
  for name, value in pairs(case.options) do
    named[name] = to_option(name, value)
  end
  return named
end

local attention_tensors = "attn_mask bias query_offset key_lengths sinks alibi_slopes mask_start position_bias block_mask"

-- The options of attention, in a layer or not.
local function take_attention(case, options)
  local given = take(options, "is_causal scale enable_gqa align_end softcap normalizer", {})
  given.return_lse = case.expected.lse ~= nil
  if options.window_left or options.window_right then
    given.window = {options.window_left or -1, options.window_right or -1}
    options.window_left, options.window_right = nil, nil
  end
  if options.block_rows then
    given.block_size = {options.block_rows, options.block_columns}
    options.block_rows, options.block_columns = nil, nil
  end
  if options.dropout_probability then
    given.dropout = {}
    for _, name in ipairs {"probability", "seed", "offset", "batch", "head", "row", "column"} do
      given.dropout[name], options["dropout_" .. name] = options["dropout_" .. name], nil
    end
  end
  return take(case.tensors, attention_tensors, given)
end

-- Takes what gradients of the case are given, by the names of what they are of; nil if it has none.
local function take_given(tensors)
  local given
  for name in pairs(tensors) do
    local of = name:match("^gradient%.(.+)$")
    if of then
      given = given or {}
      given[of], tensors[name] = tensors[name], nil
    end
  end
  return given
end

-- The gradients that a case expects, by the name that it has for them and the wrapper's.
local function expected_gradients(case)
  local names, wanted = {}, {}
  for name in pairs(case.expected) do
    local of = name:match("^gradient%.parameter%.(.+)$") or name:match("^gradient%.(.+)$")
    names[name] = of
    wanted[#wanted + 1] = of
  end
  return names, wanted
end

local function add_gradients(results, names, found)
  for name, of in pairs(names) do
    results[name] = found[of]
  end
  return results
end

local calls = {}

function calls.sdpa(case)
  local options, tensors = named_options(case), case.tensors
  local given = take_attention(case, options)
  given.return_weights = case.expected.weights ~= nil
  local inputs, gradients = take(tensors, "query key value", {}), take_given(tensors)
  assert_empty(options, "option")
  assert_empty(tensors, "tensor")
  given.return_lse = given.return_lse or gradients ~= nil
  local output, lse, weights = attention.sdpa(inputs.query, inputs.key, inputs.value, given)
  local results = {output = output, lse = lse, weights = weights}
  if not gradients then
    return results
  end
  local names, wanted = expected_gradients(case)
  given.return_lse, given.return_weights, given.wanted = nil, nil, wanted
  return add_gradients(results, names,
                       attention.sdpa_backward(inputs.query, inputs.key, inputs.value, results, gradients, given))
end

function calls.mha(case)
  local options, tensors = named_options(case), case.tensors
  local config = take(options, [[embed_dim num_heads kdim vdim qdim head_dim value_head_dim num_kv_heads
    add_bias_kv add_zero_attn batch_first parameter_dtype]], {dtype = tensors.query.dtype})
  config.bias, options.no_bias = not options.no_bias, nil
  local given = take(options, "need_weights average_attn_weights", take_attention(case, options))
  take(tensors, "key_padding_mask", given)
  local inputs, gradients = take(tensors, "query key value", {}), take_given(tensors)
  assert_empty(options, "option")
  local layer = attention.layer(config)
  for name, values in pairs(tensors) do
    layer:load(assert(name:match("^parameter%.(.+)$"), name), values)
  end
  if not gradients then
    local output, weights, lse = layer(inputs.query, inputs.key, inputs.value, given)
    return {attn_output = output, attn_weights = weights, lse = lse}
  end
  local saved, output, weights = layer:forward_saving(inputs.query, inputs.key, inputs.value, given)
  local names, wanted = expected_gradients(case)
  return add_gradients({attn_output = output, attn_weights = weights}, names,
                       saved:backward({output = gradients.attn_output, weights = gradients.attn_weights}, {wanted = wanted}))
end

local function is_close(actual, expected, tolerance)
  if expected ~= expected then
    return actual ~= actual
  end
  return actual == expected or math.abs(actual - expected) <= tolerance
end

local function compare(name, actual, expected)
  assert(actual ~= nil, name .. ": no such result")
  local got, wanted = table.concat(actual.shape, ", "), table.concat(expected.values.shape, ", ")
  assert(got == wanted, ("%s: expected shape (%s), got (%s)"):format(name, wanted, got))
  local values, reference = actual:data(), expected.values:data()
  local count = 1
  for _, length in ipairs(actual.shape) do
    count = count * length
  end
  local is_half = actual.dtype == "bfloat16" or actual.dtype == "float16"
  for i = 0, count - 1 do
    local value = is_half and attention.half_number(actual.dtype, values[i]) or values[i]
    assert(is_close(value, reference[i], expected.tolerance),
           ("%s: element %d: expected %.9g, got %.9g"):format(name, i, reference[i], value))
  end
end

local function run_expecting_error(case)
  local succeeded, failure = pcall(calls[case.call], case)
  assert(not succeeded, "expected an error")
  assert(attention.is_error(failure), failure)
  assert(failure.code == case.error.code and failure.message == case.error.message,
         ("expected error %d %s, got %d %s"):format(case.error.code, case.error.message, failure.code, failure.message))
end

local function run(case)
  if case.error then
    return run_expecting_error(case)
  end
  assert(next(case.expected), "the case expects nothing")
  local results = calls[case.call](case)
  for name, expected in pairs(case.expected) do
    compare(name, results[name], expected)
  end
end

local folder = assert(arg[1], "usage: run_cases.lua <folder of cases>")
local cases, errors, failures = 0, 0, 0
for name in io.lines(folder .. "/cases.txt") do
  local case = read_case(("%s/%s.case"):format(folder, name))
  if case.error then
    errors = errors + 1
  else
    cases = cases + 1
  end
  local succeeded, reason = pcall(run, case)
  if not succeeded then
    failures = failures + 1
    print(("%s: %s"):format(name, tostring(reason)))
  end
end
print(("luajit: %d cases, %d errors, %d failures"):format(cases, errors, failures))
os.exit(failures == 0 and cases >= 60 and errors >= 5)
