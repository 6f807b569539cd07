// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import java.util.HashMap;
import java.util.Map;

/**
 * Gradients of {@link Attention#sdpaBackward}, or of the attention inside a layer: those that are given
 * and those that are wanted; new ones are none. Where an input repeats its gradient is the sum. Each
 * method returns this.
 */
public final class SdpaGradients extends Argument {
    private final Abi.SdpaGradients params = new Abi.SdpaGradients();
    /** By the names of the struct's fields; what it points at lives as long as these gradients. */
    private final Map<String, Tensor> tensors = new HashMap<>();

    /** Given: the gradient of output. */
    public SdpaGradients(Tensor output) {
        put("output", output);
    }

    private SdpaGradients put(String field, Tensor gradient) {
        tensors.put(field, gradient);
        return this;
    }

    private SdpaGradients putWritten(String field, Tensor gradient) {
        return put(field, Tensor.written("gradients." + field, gradient));
    }

    /** What is wanted is added to what is there. */
    public SdpaGradients accumulate(boolean adds) {
        params.accumulate = adds ? 1 : 0;
        return this;
    }

    /** Given: of lse; softmax only. */
    public SdpaGradients lse(Tensor gradient) {
        return put("lse", gradient);
    }

    /** Given: of the weights that the call returned, per head or averaged. */
    public SdpaGradients weights(Tensor gradient) {
        return put("weights", gradient);
    }

    /** Out: in query's shape, of its type or that of the scores, as are all others. */
    public SdpaGradients query(Tensor gradient) {
        return putWritten("query", gradient);
    }

    /** Out: as key, where that lies in {@link SdpaOptions#kv} too. */
    public SdpaGradients key(Tensor gradient) {
        return putWritten("key", gradient);
    }

    /** Out: as value, likewise. */
    public SdpaGradients value(Tensor gradient) {
        return putWritten("value", gradient);
    }

    /** Out: as an additive mask. */
    public SdpaGradients mask(Tensor gradient) {
        return putWritten("mask", gradient);
    }

    /** Out: as the bias. */
    public SdpaGradients bias(Tensor gradient) {
        return putWritten("bias", gradient);
    }

    /** Out: as the bias by distance. */
    public SdpaGradients positionBias(Tensor gradient) {
        return putWritten("position_bias", gradient);
    }

    /** Out: as the slopes. */
    public SdpaGradients alibiSlopes(Tensor gradient) {
        return putWritten("alibi_slopes", gradient);
    }

    /** Out: as the sinks. */
    public SdpaGradients sinks(Tensor gradient) {
        return putWritten("sinks", gradient);
    }

    @Override
    Pointer pointer() {
        tensors.forEach((field, tensor) -> params.writeField(field, Tensor.pointerOf(tensor)));
        params.write();
        return params.getPointer();
    }
}
