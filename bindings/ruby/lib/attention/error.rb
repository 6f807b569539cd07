# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/abi'

module Attention
  # A call that the library refused; the message is one line that names the argument.
  class Error < StandardError
    NULL = ABI::ATTN_ERROR_NULL
    VALUE = ABI::ATTN_ERROR_VALUE
    SHAPE = ABI::ATTN_ERROR_SHAPE
    DTYPE = ABI::ATTN_ERROR_DTYPE
    OVERLAP = ABI::ATTN_ERROR_OVERLAP
    OVERFLOW = ABI::ATTN_ERROR_OVERFLOW
    PARAMETER = ABI::ATTN_ERROR_PARAMETER
    WORKSPACE = ABI::ATTN_ERROR_WORKSPACE
    MEMORY = ABI::ATTN_ERROR_MEMORY
    THREAD = ABI::ATTN_ERROR_THREAD
    UNSUPPORTED = ABI::ATTN_ERROR_UNSUPPORTED
    BLAS = ABI::ATTN_ERROR_BLAS
    SELFTEST = ABI::ATTN_ERROR_SELFTEST

    # The status, one of the constants above.
    attr_reader :code

    def initialize(code, message)
      @code = code
      super(message)
    end

    # The name of the status, such as "ATTN_ERROR_SHAPE".
    def code_name
      ABI.attn_status_name(code).to_s
    end

    # Raises what the library says of a status that is not ATTN_OK. The text belongs to the thread
    # that made the call, so this comes right after it.
    def self.check(status)
      return if status == ABI::ATTN_OK

      raise new(status, ABI.attn_last_error.to_s.force_encoding(Encoding::UTF_8))
    end
  end
end
