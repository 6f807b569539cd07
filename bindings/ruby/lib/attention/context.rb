# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/call'
require 'attention/choice'
require 'attention/report'

module Attention
  # The threads, engine and kernels that calls run with. A call without a context uses the process's
  # default one.
  class Context < Handle
    # Settings as those of attn_context_config; zero and nil are the defaults. Where query, key
    # and value are bfloat16 and the kernels multiply pairs of them, the weights of many rows are
    # rounded to it; float32_weights: true keeps them float32.
    def initialize(num_threads: 0, engine: :auto, gemm: :auto, kernels: nil, float32_weights: false)
      name = kernels && Fiddle::Pointer["#{kernels}\0"]
      config = ABI.make(:attn_context_config, num_threads:, kernels: name,
                                              engine: Choice.of(:engine, Report::ENGINES, engine),
                                              gemm: Choice.of(:gemm, Report::GEMMS, gemm),
                                              float32_weights: Choice.flag(float32_weights))
      created = ABI.pointer_from { |cell| Error.check(ABI.attn_context_create(config, cell)) }
      super(created, 'attn_context_destroy')
    end

    # Starts the threads now, which the first large call would do.
    def start
      Call.make(:attn_context_start, self)
    end

    # What the context runs with.
    def describe
      info = ABI.make(:attn_context_info)
      Call.make(:attn_context_describe, self, info)
      {
        num_threads: info.num_threads,
        engine: Report::ENGINES.key(info.engine),
        gemm: Report::GEMMS.key(info.gemm),
        attention_gemm: Report::GEMMS.key(info.attention_gemm),
        projection_gemm: Report::GEMMS.key(info.projection_gemm),
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
