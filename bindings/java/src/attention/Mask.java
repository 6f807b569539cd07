// SPDX-License-Identifier: BSD-3-Clause
package attention;

/** A mask and what it means. */
public final class Mask {
    final Tensor tensor;
    final int kind;

    private Mask(Tensor tensor, int kind) {
        this.tensor = tensor;
        this.kind = kind;
    }

    /** True: the position takes part, as in scaled_dot_product_attention. */
    public static Mask include(Tensor flags) {
        return new Mask(flags, Abi.MASK_BOOL_INCLUDE);
    }

    /** True: the position is left out, as in nn.MultiheadAttention. */
    public static Mask exclude(Tensor flags) {
        return new Mask(flags, Abi.MASK_BOOL_EXCLUDE);
    }

    /** Added to the scores; negative infinity leaves a position out. */
    public static Mask additive(Tensor bias) {
        return new Mask(bias, Abi.MASK_ADDITIVE);
    }
}
