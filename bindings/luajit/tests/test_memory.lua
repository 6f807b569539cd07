-- SPDX-License-Identifier: BSD-3-Clause
-- Memory that calls see: views stay inside it, nothing writes to const data, and the collector leaves it
-- until the call has returned.

local ffi = require "ffi"
local attention = require "attention"
local checks = require "checks"

local tests = {}

local assert_equal, assert_fails = checks.equal, checks.fails

function tests.views_stay_inside_their_array()
  local counts = {float32 = 6, int32 = 6, float64 = 3, int64 = 3, bool = 24}
  local struct = ffi.new("struct { char c[24]; }")
  for dtype, count in pairs(counts) do
    for _, array in ipairs {ffi.new("float[6]"), ffi.new("double[?]", 3), struct.c} do
      assert_equal(count, attention.view(array, dtype, {count}).shape[1])
      assert_equal(0, attention.view(array, dtype, {0, count + 1}).shape[1])
      assert_fails(attention.codes.SHAPE, "inside the array of 24 bytes", attention.view, array, dtype, {count + 1})
      assert_fails(attention.codes.SHAPE, "inside", attention.view, array, dtype, {2}, {count})
      assert_fails(attention.codes.SHAPE, "inside", attention.view, array, dtype, {2}, {-1})
    end
  end
  local pointer = ffi.cast("float *", ffi.new("float[6]"))
  assert_equal(7, attention.view(pointer, "float32", {7}).shape[1])
end

function tests.const_data_and_strings_are_not_written()
  local const = ffi.new("const float[2]", {3, 4})
  for _, data in ipairs {const, ffi.cast("const float *", const)} do
    local view = attention.view(data, "float32", {1, 2}):transpose(0, 1)
    assert_equal(4, view:totable()[2][1])
    assert_fails(attention.codes.VALUE, "out: expected memory that may be written", attention.sdpa, {{1}, {2}}, {{1}},
                 {{1}}, {out = view})
  end
  assert_fails(attention.codes.VALUE, "data: expected an ffi array or pointer, got a string", attention.view,
               ("x"):rep(8), "float32", {2, 1})
end

function tests.view_keeps_its_memory_alive()
  local function make()
    return attention.tensor({{1, 2}, {3, 4}}):transpose(0, 1):slice(0, 1, 1)
  end
  local views = {}
  for i = 1, 1000 do
    views[i] = make()
    collectgarbage("step", 100)
  end
  for _, view in ipairs(views) do
    assert_equal(4, view:totable()[1][2])
  end
end

-- Temporaries, and kernels' names that no table keeps, while the collector goes round without pause
-- and what it frees is filled.
function tests.collector_leaves_what_a_call_uses()
  local rows = {}
  for row = 1, 16 do
    rows[row] = {row % 3, row % 5, row % 2, row % 7}
  end
  local function forward()
    local layer = attention.layer {embed_dim = 4, num_heads = 2}
    layer:init_parameters(1)
    layer:bind("out_proj.bias", attention.tensor {1, 2, 3, 4})
    local output, weights, lse = layer(rows, rows, rows, {
      bias = attention.zeros("float32", {16, 16}),
      attn_mask = attention.zeros("float32", {16, 16}):transpose(0, 1),
      key_lengths = 16,
      return_lse = true,
      context = attention.context {kernels = ("%sline"):format("base")},
    })
    return ("%g %g %g"):format(output:totable()[16][4], weights:totable()[16][4], lse:totable()[2][16])
  end
  local expected = forward()
  collectgarbage("setpause", 100)
  collectgarbage("setstepmul", 400)
  for _ = 1, 300 do
    assert_equal(expected, forward())
    ffi.fill(ffi.new("float[?]", 256), 1024, 255)
  end
  collectgarbage("setpause", 200)
  collectgarbage("setstepmul", 200)
end

checks.run(tests)
