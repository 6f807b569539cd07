// SPDX-License-Identifier: BSD-3-Clause
package attention;

/**
 * What attention runs and why, for people to read.
 *
 * @param packs 1 query, 2 key, 4 value, 8 output, added: what goes through a copy
 */
public record SdpaReport(
        Context.Engine engine,
        Context.Gemm gemm,
        boolean dependsOnBlasThreads,
        int packs,
        long rowBlock,
        long numBlocks,
        long workspaceBytes,
        String kernels,
        String reason) {

    static SdpaReport of(Abi.SdpaReport report) {
        return new SdpaReport(
                Context.Engine.values()[report.engine],
                Context.Gemm.values()[report.gemm],
                report.depends_on_blas_threads == 1,
                report.packs,
                report.row_block,
                report.num_blocks,
                report.workspace_bytes,
                report.kernels,
                report.reason);
    }
}
