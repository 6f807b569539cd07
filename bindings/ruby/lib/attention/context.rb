# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/choice'
require 'attention/handle'

module Attention
  # The threads, engine and kernels that calls run with. A call without a context uses the process's
  # default one.
  class Context < Handle
    ENGINES = {
      auto: ABI::ATTN_ENGINE_AUTO,
      blas: ABI::ATTN_ENGINE_BLAS,
      fused: ABI::ATTN_ENGINE_FUSED
    }.freeze

    GEMMS = {
      default: ABI::ATTN_GEMM_DEFAULT,
      blas: ABI::ATTN_GEMM_BLAS,
      native: ABI::ATTN_GEMM_NATIVE
    }.freeze

    # Settings as those of attn_context_params; zero and nil are the defaults.
    def initialize(num_threads: 0, engine: :auto, gemm: :default, kernels: nil)
      name = kernels && Fiddle::Pointer["#{kernels}\0"]
      params = ABI.make(:attn_context_params, num_threads:, kernels: name,
                                              engine: Choice.of(:engine, ENGINES, engine),
                                              gemm: Choice.of(:gemm, GEMMS, gemm))
      created = ABI.pointer_from { |cell| Error.check(ABI.attn_context_create(params, cell)) }
      super(created, 'attn_context_destroy')
    end

    # What the context runs with.
    def describe
      info = ABI.make(:attn_context_info)
      Error.check(ABI.attn_context_describe(self, info))
      {
        num_threads: info.num_threads,
        engine: ENGINES.key(info.engine),
        gemm: GEMMS.key(info.gemm),
        blas_is_serial: info.blas_is_serial == 1,
        kernels: info.kernels.to_s,
        blas: info.blas.to_s
      }
    end

    # Makes a context for the block and closes it after it.
    def self.open(**settings)
      context = new(**settings)
      yield context
    ensure
      context&.close
    end
  end
end
