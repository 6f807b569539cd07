-- SPDX-License-Identifier: BSD-3-Clause
-- Contexts: the threads, engine and kernels that calls run with. A call without one uses the
-- process's default context.

local ffi = require "ffi"
local failure = require "attention.failure"
local options = require "attention.options"
local report = require "attention.report"
local library = require("attention.abi").library

local known = {num_threads = true, engine = true, gemm = true, kernels = true, float32_weights = true}

local Context = {}
Context.__index = Context

local context = {}

-- Settings as those of attn_context_config; engine and gemm by name. Where query, key and
-- value are bfloat16 and the kernels multiply pairs of them, the weights of many rows are rounded to
-- it; float32_weights = true keeps them float32.
function context.new(settings)
  settings = settings or {}
  options.check_names(settings, known)
  local config = options.sized("attn_context_config")
  config.num_threads = settings.num_threads or 0
  config.engine = options.choose("engine", report.engines, settings.engine or "auto")
  config.gemm = options.choose("gemm", report.gemms, settings.gemm or "auto")
  config.kernels = settings.kernels
  config.float32_weights = options.flag(settings.float32_weights)
  local created = ffi.new("attn_context *[1]")
  failure.check(library.attn_context_create(config, created))
  -- The name is used to the end: config alone does not keep the string.
  local object = ffi.gc(created[0], library.attn_context_destroy)
  return setmetatable({object = object, kernels = settings.kernels}, Context)
end

-- The C object of a context, nil for none.
function context.handle(given)
  return given and given:handle()
end

-- The C object; a closed context must not turn into NULL, which is the default one.
function Context:handle()
  if self.object == nil then
    failure.raise(failure.codes.VALUE, "context: expected an open context, got a closed one")
  end
  return self.object
end

-- Starts the threads now, which the first large call would do.
function Context:start()
  failure.check(library.attn_context_start(self:handle()))
end

-- What the context runs with.
function Context:describe()
  local info = options.sized("attn_context_info")
  failure.check(library.attn_context_describe(self:handle(), info))
  return {
    num_threads = info.num_threads,
    engine = options.name_of(report.engines, info.engine),
    gemm = options.name_of(report.gemms, info.gemm),
    attention_gemm = options.name_of(report.gemms, info.attention_gemm),
    projection_gemm = options.name_of(report.gemms, info.projection_gemm),
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

-- Raises unless what has a known result is computed so, with this context (nil: the default one).
function context.selftest(given)
  failure.check(library.attn_selftest(context.handle(given), nil))
end

return context
