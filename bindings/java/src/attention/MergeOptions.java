// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/** Options of {@link Attention#merge}; new ones are none. Each method returns this. */
public final class MergeOptions extends Argument {
    private final Abi.MergeParams params = new Abi.MergeParams();
    // What the struct points at lives as long as these options.
    private Tensor sinks;
    private Tensor lse;

    /** (Hq) or (1): one more logit of each row, that no part has counted. */
    public MergeOptions sinks(Tensor logits) {
        sinks = logits;
        return this;
    }

    /** Out: (..., L). */
    public MergeOptions lse(Tensor output) {
        lse = Tensor.written("lse", output);
        return this;
    }

    Tensor lse() {
        return lse;
    }

    @Override
    Pointer pointer() {
        params.sinks = Tensor.pointerOf(sinks);
        params.write();
        return params.getPointer();
    }
}
