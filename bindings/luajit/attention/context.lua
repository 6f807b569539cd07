-- SPDX-License-Identifier: BSD-3-Clause
-- Contexts: the threads, engine and kernels that calls run with. A call without one uses the
-- process's default context.

local ffi = require "ffi"
local failure = require "attention.failure"
local options = require "attention.options"
local library = require("attention.abi").library

local engines = {
  auto = library.ATTN_ENGINE_AUTO,
  blas = library.ATTN_ENGINE_BLAS,
  fused = library.ATTN_ENGINE_FUSED,
}
local gemms = {
  default = library.ATTN_GEMM_DEFAULT,
  blas = library.ATTN_GEMM_BLAS,
  native = library.ATTN_GEMM_NATIVE,
}
local known = {num_threads = true, engine = true, gemm = true, kernels = true}

local Context = {}
Context.__index = Context

local context = {}

-- Settings as those of attn_context_params; engine and gemm by name.
function context.new(settings)
  settings = settings or {}
  options.check_names(settings, known)
  local params = ffi.new("attn_context_params")
  params.struct_size = ffi.sizeof(params)
  params.num_threads = settings.num_threads or 0
  params.engine = options.choose("engine", engines, settings.engine or "auto")
  params.gemm = options.choose("gemm", gemms, settings.gemm or "default")
  params.kernels = settings.kernels
  local created = ffi.new("attn_context *[1]")
  failure.check(library.attn_context_create(params, created))
  return setmetatable({object = ffi.gc(created[0], library.attn_context_destroy)}, Context)
end

-- The C object; a closed context must not turn into NULL, which is the default one.
function Context:handle()
  if self.object == nil then
    failure.raise(failure.codes.VALUE, "context: expected an open context, got a closed one")
  end
  return self.object
end

local function name_of(values, wanted)
  for name, value in pairs(values) do
    if value == wanted then
      return name
    end
  end
end

-- What the context runs with.
function Context:describe()
  local info = ffi.new("attn_context_info")
  info.struct_size = ffi.sizeof(info)
  failure.check(library.attn_context_describe(self:handle(), info))
  return {
    num_threads = info.num_threads,
    engine = name_of(engines, info.engine),
    gemm = name_of(gemms, info.gemm),
    blas_is_serial = info.blas_is_serial == 1,
    kernels = ffi.string(info.kernels),
    blas = ffi.string(info.blas),
  }
end

-- Frees the threads now instead of when the context is collected.
function Context:close()
  if self.object ~= nil then
    library.attn_context_destroy(ffi.gc(self.object, nil))
    self.object = nil
  end
end

return context
