-- SPDX-License-Identifier: BSD-3-Clause
-- What a call runs and why, as tables: explain() of attention and of layers.

local bit = require "bit"
local ffi = require "ffi"
local options = require "attention.options"
local library = require("attention.abi").library

local report = {}

report.engines = {
  auto = library.ATTN_ENGINE_AUTO,
  blas = library.ATTN_ENGINE_BLAS,
  fused = library.ATTN_ENGINE_FUSED,
}
report.gemms = {
  auto = library.ATTN_GEMM_AUTO,
  blas = library.ATTN_GEMM_BLAS,
  native = library.ATTN_GEMM_NATIVE,
}
local packs = {
  query = library.ATTN_SDPA_PACK_QUERY,
  key = library.ATTN_SDPA_PACK_KEY,
  value = library.ATTN_SDPA_PACK_VALUE,
  output = library.ATTN_SDPA_PACK_OUTPUT,
}

-- Of an attn_sdpa_report.
function report.attention(c_report)
  local packed = {}
  for name, mask in pairs(packs) do
    packed[name] = bit.band(c_report.packs, mask) ~= 0
  end
  return {
    engine = options.name_of(report.engines, c_report.engine),
    gemm = options.name_of(report.gemms, c_report.gemm),
    depends_on_blas_threads = c_report.depends_on_blas_threads == 1,
    packs = packed,
    row_block = tonumber(c_report.row_block),
    num_blocks = tonumber(c_report.num_blocks),
    workspace_bytes = tonumber(c_report.workspace_bytes),
    kernels = ffi.string(c_report.kernels),
    reason = ffi.string(c_report.reason),
  }
end

-- Of an attn_sdpa_backward_report.
function report.backward(c_report)
  return {
    whole_heads = c_report.whole_heads == 1,
    staged = c_report.staged,
    num_items = tonumber(c_report.num_items),
    row_block = tonumber(c_report.row_block),
    key_block = tonumber(c_report.key_block),
    workspace_bytes = tonumber(c_report.workspace_bytes),
    kernels = ffi.string(c_report.kernels),
    reason = ffi.string(c_report.reason),
  }
end

-- Of an attn_mha_report; what its `attention` points to is the other argument.
function report.layer(c_report, c_attention)
  return {
    projection_gemm = options.name_of(report.gemms, c_report.projection_gemm),
    depends_on_blas_threads = c_report.depends_on_blas_threads == 1,
    workspace_bytes = tonumber(c_report.workspace_bytes),
    kernels = ffi.string(c_report.kernels),
    attention = report.attention(c_attention),
  }
end

return report
