// SPDX-License-Identifier: BSD-3-Clause
package attention;

/**
 * What the gradients of attention run and why, for people to read.
 *
 * @param wholeHeads an item walks all keys of a head; else threads work on one head together
 * @param staged how many gradients are summed apart before they are written
 * @param numItems pieces of work for those of query, key and value; 0 where none is wanted
 */
public record SdpaBackwardReport(
        boolean wholeHeads,
        int staged,
        long numItems,
        long rowBlock,
        long keyBlock,
        long workspaceBytes,
        String kernels,
        String reason) {

    static SdpaBackwardReport of(Abi.SdpaBackwardReport report) {
        return new SdpaBackwardReport(
                report.whole_heads == 1,
                report.staged,
                report.num_items,
                report.row_block,
                report.key_block,
                report.workspace_bytes,
                report.kernels,
                report.reason);
    }
}
