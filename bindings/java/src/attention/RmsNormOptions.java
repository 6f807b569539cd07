// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Options of {@link Attention#rmsNorm}; new ones are PyTorch's without parameters. Each method returns
 * this.
 */
public final class RmsNormOptions extends Argument {
    private final Abi.RmsNormParams params = new Abi.RmsNormParams();
    // What the struct points at lives as long as these options.
    private Tensor weight;

    /** Broadcastable to the input's shape, mostly (E). */
    public RmsNormOptions weight(Tensor factors) {
        weight = factors;
        return this;
    }

    /** Added to the mean of the squares. */
    public RmsNormOptions epsilon(double added) {
        params.epsilon = added;
        return this;
    }

    /** Added to the weight: 1 where a model stores weight - 1. */
    public RmsNormOptions weightOffset(double added) {
        params.weight_offset = added;
        return this;
    }

    @Override
    Pointer pointer() {
        params.weight = Tensor.pointerOf(weight);
        params.write();
        return params.getPointer();
    }
}
