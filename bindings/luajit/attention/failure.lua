-- SPDX-License-Identifier: BSD-3-Clause
-- Errors are raised as objects: e.code (a number of failure.codes), e.name ("ATTN_ERROR_SHAPE"),
-- e.message (one line that names the argument); tostring(e) is all of it.

local ffi = require "ffi"
local library = require("attention.abi").library

local failure = {}

failure.codes = {
  NULL = library.ATTN_ERROR_NULL,
  VALUE = library.ATTN_ERROR_VALUE,
  SHAPE = library.ATTN_ERROR_SHAPE,
  DTYPE = library.ATTN_ERROR_DTYPE,
  OVERLAP = library.ATTN_ERROR_OVERLAP,
  OVERFLOW = library.ATTN_ERROR_OVERFLOW,
  PARAMETER = library.ATTN_ERROR_PARAMETER,
  WORKSPACE = library.ATTN_ERROR_WORKSPACE,
  MEMORY = library.ATTN_ERROR_MEMORY,
  THREAD = library.ATTN_ERROR_THREAD,
  UNSUPPORTED = library.ATTN_ERROR_UNSUPPORTED,
  BLAS = library.ATTN_ERROR_BLAS,
  SELFTEST = library.ATTN_ERROR_SELFTEST,
}

local Error = {}
Error.__index = Error

function Error:__tostring()
  return self.name .. ": " .. self.message
end

function failure.raise(code, message)
  local name = ffi.string(library.attn_status_name(code))
  error(setmetatable({code = code, name = name, message = message}, Error))
end

-- Raises what the library says of a status that is not ATTN_OK.
function failure.check(status)
  if status ~= library.ATTN_OK then
    failure.raise(status, ffi.string(library.attn_last_error()))
  end
end

-- True for the objects raised here, so that a handler can pass on what is not its own.
function failure.is_error(value)
  return getmetatable(value) == Error
end

return failure
