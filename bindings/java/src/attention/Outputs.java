// SPDX-License-Identifier: BSD-3-Clause
package attention;

import java.util.Arrays;

/** The outputs that belong to a call's inputs; each method makes new memory for one of them. */
public final class Outputs {
    private final Abi.Outputs described;

    Outputs(Abi.Outputs described) {
        this.described = described;
    }

    public Tensor output() {
        return room(described.output);
    }

    /** Not where the normalizer has none. */
    public Tensor lse() {
        if (described.lse.dtype == 0) {
            throw new IllegalStateException("lse: this normalizer has none");
        }
        return room(described.lse);
    }

    /** One matrix per head. */
    public Tensor weights() {
        return room(described.weights);
    }

    /** The mean over the heads. */
    public Tensor averagedWeights() {
        return room(described.averaged_weights);
    }

    /** Of any stage. */
    public Tensor scores() {
        return room(described.scores);
    }

    private static Tensor room(Abi.TensorView view) {
        return Tensor.zeros(Tensor.Dtype.of(view.dtype), Arrays.copyOf(view.shape, view.rank));
    }
}
