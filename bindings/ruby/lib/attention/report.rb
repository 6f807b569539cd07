# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

require 'attention/abi'

module Attention
  # What a call runs and why, as a hash: #explain of the module and of a layer.
  module Report
    ENGINES = {
      auto: ABI::ATTN_ENGINE_AUTO,
      blas: ABI::ATTN_ENGINE_BLAS,
      fused: ABI::ATTN_ENGINE_FUSED
    }.freeze

    GEMMS = {
      auto: ABI::ATTN_GEMM_AUTO,
      blas: ABI::ATTN_GEMM_BLAS,
      native: ABI::ATTN_GEMM_NATIVE
    }.freeze

    PACKS = {
      query: ABI::ATTN_SDPA_PACK_QUERY,
      key: ABI::ATTN_SDPA_PACK_KEY,
      value: ABI::ATTN_SDPA_PACK_VALUE,
      output: ABI::ATTN_SDPA_PACK_OUTPUT
    }.freeze

    # Of an attn_sdpa_report.
    def self.of_attention(report)
      {
        engine: ENGINES.key(report.engine),
        gemm: GEMMS.key(report.gemm),
        depends_on_blas_threads: report.depends_on_blas_threads == 1,
        packs: PACKS.keys.select { |name| report.packs.anybits?(PACKS[name]) },
        row_block: report.row_block,
        num_blocks: report.num_blocks,
        workspace_bytes: report.workspace_bytes,
        kernels: report.kernels.to_s,
        reason: report.reason.to_s
      }
    end

    # Of an attn_sdpa_backward_report.
    def self.of_gradients(report)
      {
        whole_heads: report.whole_heads == 1,
        staged: report.staged,
        num_items: report.num_items,
        row_block: report.row_block,
        key_block: report.key_block,
        workspace_bytes: report.workspace_bytes,
        kernels: report.kernels.to_s,
        reason: report.reason.to_s
      }
    end

    # Of an attn_mha_report, whose pointer leads to the other one.
    def self.of_layer(report, attention)
      {
        projection_gemm: GEMMS.key(report.projection_gemm),
        depends_on_blas_threads: report.depends_on_blas_threads == 1,
        workspace_bytes: report.workspace_bytes,
        kernels: report.kernels.to_s,
        attention: of_attention(attention)
      }
    end
  end
  private_constant :Report
end
