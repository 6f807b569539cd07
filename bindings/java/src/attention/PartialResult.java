// SPDX-License-Identifier: BSD-3-Clause
package attention;

import java.util.List;
import java.util.Objects;

/**
 * What {@link Attention#sdpa} made of some of the keys: output (..., L, Ev) and lse (..., L), which is
 * null where the normalizer has none.
 */
public record PartialResult(Tensor output, Tensor lse) {
    static Tensor.Array outputs(List<PartialResult> parts) {
        return new Tensor.Array(parts.stream().map(PartialResult::output).toList());
    }

    /** Null if no part has one. */
    static Tensor.Array lses(List<PartialResult> parts) {
        final List<Tensor> lses = parts.stream().map(PartialResult::lse).toList();
        return lses.stream().allMatch(Objects::isNull) ? null : new Tensor.Array(lses);
    }
}
