-- SPDX-License-Identifier: BSD-3-Clause
-- Keys and values in caches, ragged and in pages, and ragged queries.

local ffi = require "ffi"
local attention = require "attention"
local checks = require "checks"

local tests = {}

local assert_equal, assert_fails = checks.equal, checks.fails

-- Where the keys and the queries of three sequences are, one behind the other.
local key_starts, query_starts = {0, 5, 6, 13}, {0, 2, 3, 6}
local heads, num_keys, num_queries, features = 2, 13, 6, 4

local function numbers(rows, factor)
  local made = attention.zeros("float32", {heads, rows, features})
  for i = 0, heads * rows * features - 1 do
    made:data()[i] = (i * factor + 11) % 64 / 32 - 1
  end
  return made
end

local keys, values, queries = numbers(num_keys, 37), numbers(num_keys, 29), numbers(num_queries, 37)

local function bytes(made)
  return ffi.string(made:data(), heads * num_queries * features * 4)
end

local function attended(kv)
  return bytes((attention.sdpa(queries, nil, nil,
                               {is_causal = true, align_end = true, kv = kv, query_starts = query_starts})))
end

local function attended_one_by_one()
  local output = attention.zeros("float32", queries.shape)
  local function part(rows, starts, b)
    return rows:slice(1, starts[b], starts[b + 1] - starts[b])
  end
  for b = 1, 3 do
    attention.sdpa(part(queries, query_starts, b), part(keys, key_starts, b), part(values, key_starts, b),
                   {is_causal = true, align_end = true, out = part(output, query_starts, b)})
  end
  return bytes(output)
end

-- Pages in no order; an entry that no key needs is no page.
local function paged()
  return {
    key = attention.zeros("float32", {6, heads, 4, features}),
    value = attention.zeros("float32", {6, heads, 4, features}),
    page_table = {{3, 1}, {5, -1}, {0, 2}},
    lengths = {5, 1, 7},
  }
end

function tests.pages_are_ragged_rows_are_single_sequences()
  local expected = attended_one_by_one()
  assert(expected ~= ("\0"):rep(#expected), "nothing is attended to")
  assert_equal(expected, attended {key = keys, value = values, starts = key_starts})
  local pages = paged()
  assert_equal(pages, attention.kv_append(pages, keys, values, {starts = key_starts}))
  assert_equal(expected, attended(pages))
  pages.page_table, pages.page_starts = {3, 1, 5, 0, 2}, {0, 2, 3, 5}
  assert_equal(expected, attended(pages))
end

function tests.positions_say_where_rows_go()
  local pages = paged()
  pages.lengths = nil
  local rows = {
    {{{1, 2, 3, 4}}, {{5, 6, 7, 8}}},
    {{{0, 0, 0, 9}}, {{0, 0, 0, 9}}},
    {{{9, 10, 11, 12}}, {{13, 14, 15, 16}}},
  }
  attention.kv_append(pages, rows, rows, {positions = {{2}, {-1}, {6}}})
  local stored = pages.key:totable()
  assert_equal(2, stored[4][1][3][2])
  assert_equal(8, stored[4][2][3][4])
  assert_equal(16, stored[3][2][3][4])
  assert_equal(0, stored[6][1][3][4])
end

function tests.reports_are_those_of_the_places()
  local report = attention.explain(queries, nil, nil, {
    kv = {key = keys, value = values, starts = key_starts},
    query_starts = query_starts,
  })
  assert_equal("fused", report.engine)
end

function tests.what_is_no_place_is_told()
  local codes, kv = attention.codes, {key = keys, value = values, starts = {0, 5, 6, 14}}
  assert_fails(codes.VALUE, "kv.starts: expected 6 (the element before it) to 13, got 14 at element 3", attended, kv)
  kv.start = kv.starts
  assert_fails(codes.VALUE, "start: expected one of the options key, key_scale, key_zero, lengths", attended, kv)
  assert_fails(codes.NULL, "kv.key: expected a tensor, got NULL", attended, {})
  assert_fails(codes.NULL, "key: expected a tensor, got NULL", attention.sdpa, queries)
  local pages = paged()
  pages.key = {{{{1}}}}
  assert_fails(codes.NULL, "kv.key: expected a tensor, got NULL", attention.kv_append, pages, keys, values)
  pages.key = attention.view(ffi.new("const float[192]"), "float32", {6, heads, 4, features})
  assert_fails(codes.VALUE, "kv.key: expected memory that may be written", attention.kv_append, pages, keys, values)
  local layer = attention.layer {embed_dim = 4, num_heads = 2}
  assert_fails(codes.VALUE, "kv: expected one of the options", layer, queries, queries, queries, {kv = pages})
end

-- Rows from 0 to their first element: 127 / 64 has a scale of 1 / 64 in int8, 255 / 128 one of 1 / 128
-- in uint8, and so they are integers exactly.
local function exact_rows(first)
  local made = attention.zeros("float32", {heads, 3, features})
  for i = 0, heads * 3 * features - 1 do
    made:data()[i] = i % features == 0 and first or i * 5 % 64 / 64
  end
  return made
end

-- Room for four rows of integers, a scale for each, and a zero where there is no sign.
local function integers(dtype)
  local kv = {lengths = 3}
  for _, name in ipairs {"key", "value"} do
    kv[name] = attention.zeros(dtype, {heads, 4, features})
    kv[name .. "_scale"] = attention.zeros("float32", {heads, 4, 1})
    kv[name .. "_zero"] = dtype == "uint8" and attention.zeros("float32", {heads, 4, 1}) or nil
  end
  return kv
end

local function assert_near(expected, found, distance)
  local is_something = false
  for h = 1, heads do
    for row = 1, expected.shape[2] do
      for i = 1, features do
        local number = expected:totable()[h][row][i]
        is_something = is_something or number ~= 0
        assert(math.abs(number - found(h, row, i)) <= distance, "integers are others")
      end
    end
  end
  assert(is_something, "nothing is there")
end

-- What an element means.
local function number_in(kv, name)
  local elements, scale = kv[name]:totable(), kv[name .. "_scale"]:totable()
  local zero = kv[name .. "_zero"] and kv[name .. "_zero"]:totable()
  return function(h, row, i)
    return (elements[h][row][i] - (zero and zero[h][row][1] or 0)) * scale[h][row][1]
  end
end

-- The largest scale is that of a row of values from -1 to 1.
local function check_integers(dtype, first, largest_scale)
  local key, value, query = exact_rows(first), values:slice(1, 0, 3), queries:slice(1, 0, 1)
  local kv = attention.kv_append(integers(dtype), key, value)
  assert_near(key, number_in(kv, "key"), 0)
  assert_near(value, number_in(kv, "value"), largest_scale / 2 + 1e-6)
  local found = attention.sdpa(query, nil, nil, {kv = kv}):totable()
  assert_near(attention.sdpa(query, key, value), function(h, row, i)
    return found[h][row][i]
  end, largest_scale / 2 + 1e-6)
end

function tests.integers_mean_numbers()
  check_integers("int8", 127 / 64, 1 / 127)
  check_integers("uint8", 255 / 128, 2 / 255)
end

function tests.a_scale_is_written_or_read()
  local codes, kv, value = attention.codes, integers("int8"), values:slice(1, 0, 3)
  kv.key_scale = {{{1 / 64}}}
  attention.kv_append(kv, exact_rows(127 / 64), value)
  assert_equal(127, kv.key:totable()[2][3][1])
  kv.value_scale = {{{1}, {1}, {1}, {1}}, {{1}, {1}, {1}, {1}}}
  assert_fails(codes.VALUE, "kv.value_scale: expected a tensor, which is written, got a table", attention.kv_append, kv,
               value, value)
  kv.value_scale = attention.view(ffi.new("const float[8]"), "float32", {heads, 4, 1})
  assert_fails(codes.VALUE, "kv.value_scale: expected memory that may be written", attention.kv_append, kv, value,
               value)
  local floats = {key = keys, value = values, starts = key_starts, key_scale = {{{1}}}}
  assert_fails(codes.VALUE, "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled",
               attended, floats)
end

-- Tables among the fields become tensors that nothing else keeps.
function tests.collector_leaves_what_a_call_uses()
  local expected = attended_one_by_one()
  collectgarbage("setpause", 100)
  collectgarbage("setstepmul", 400)
  for _ = 1, 300 do
    assert_equal(expected, attended(attention.kv_append(paged(), keys, values, {starts = key_starts})))
    ffi.fill(ffi.new("float[?]", 256), 1024, 255)
  end
  collectgarbage("setpause", 200)
  collectgarbage("setstepmul", 200)
end

checks.run(tests)
