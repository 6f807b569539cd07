-- SPDX-License-Identifier: BSD-3-Clause
-- PyTorch's attention on the CPU: README.md is the manual.
--
--   local attention = require "attention"
--   local output = attention.sdpa({{1, 0}}, {{1, 0}, {0, 1}}, {{10}, {20}}, {is_causal = false})

local ffi = require "ffi"
local backward = require "attention.backward"
local context = require "attention.context"
local failure = require "attention.failure"
local kv = require "attention.kv"
local layer = require "attention.layer"
local sdpa = require "attention.sdpa"
local steps = require "attention.steps"
local tensor = require "attention.tensor"
local library = require("attention.abi").library

return {
  sdpa = sdpa.call,
  sdpa_backward = backward.call,
  explain = sdpa.explain,
  explain_backward = backward.explain,
  kv_append = kv.append,
  merge = steps.merge,
  rope = steps.rope,
  rms_norm = steps.rms_norm,
  layer = layer.new,
  context = context.new,
  selftest = context.selftest,

  tensor = tensor.new,
  zeros = tensor.zeros,
  view = tensor.view,
  from_bytes = tensor.from_bytes,
  half_bits = tensor.half_bits,
  half_number = tensor.half_number,

  codes = failure.codes,
  is_error = failure.is_error,

  version = ffi.string(library.attn_version_string()),
}
