// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Gradients of {@link Attention#sdpaBackward}: those that are given and those that are wanted; new ones
 * are none. Where an input repeats its gradient is the sum. Each method returns this.
 */
public final class SdpaGradients extends Argument {
    private final Abi.SdpaGradients params = new Abi.SdpaGradients();
    // What the struct points at lives as long as these gradients.
    private final Tensor output;
    private Tensor lse;
    private Tensor weights;
    private Tensor query;
    private Tensor key;
    private Tensor value;
    private Tensor mask;
    private Tensor bias;
    private Tensor positionBias;
    private Tensor alibiSlopes;
    private Tensor sinks;

    /** Given: the gradient of output. */
    public SdpaGradients(Tensor output) {
        this.output = output;
    }

    /** What is wanted is added to what is there. */
    public SdpaGradients accumulate(boolean adds) {
        params.accumulate = adds ? 1 : 0;
        return this;
    }

    /** Given: of lse; softmax only. */
    public SdpaGradients lse(Tensor gradient) {
        lse = gradient;
        return this;
    }

    /** Given: of the weights that the call returned, per head or averaged. */
    public SdpaGradients weights(Tensor gradient) {
        weights = gradient;
        return this;
    }

    /** Out: in query's shape, of its type or that of the scores, as are all others. */
    public SdpaGradients query(Tensor gradient) {
        query = Tensor.written("gradients.query", gradient);
        return this;
    }

    /** Out: as key, where that lies in {@link SdpaOptions#kv} too. */
    public SdpaGradients key(Tensor gradient) {
        key = Tensor.written("gradients.key", gradient);
        return this;
    }

    /** Out: as value, likewise. */
    public SdpaGradients value(Tensor gradient) {
        value = Tensor.written("gradients.value", gradient);
        return this;
    }

    /** Out: as an additive mask. */
    public SdpaGradients mask(Tensor gradient) {
        mask = Tensor.written("gradients.mask", gradient);
        return this;
    }

    /** Out: as the bias. */
    public SdpaGradients bias(Tensor gradient) {
        bias = Tensor.written("gradients.bias", gradient);
        return this;
    }

    /** Out: as the bias by distance. */
    public SdpaGradients positionBias(Tensor gradient) {
        positionBias = Tensor.written("gradients.position_bias", gradient);
        return this;
    }

    /** Out: as the slopes. */
    public SdpaGradients alibiSlopes(Tensor gradient) {
        alibiSlopes = Tensor.written("gradients.alibi_slopes", gradient);
        return this;
    }

    /** Out: as the sinks. */
    public SdpaGradients sinks(Tensor gradient) {
        sinks = Tensor.written("gradients.sinks", gradient);
        return this;
    }

    @Override
    Pointer pointer() {
        params.output = Tensor.pointerOf(output);
        params.lse = Tensor.pointerOf(lse);
        params.weights = Tensor.pointerOf(weights);
        params.query = Tensor.pointerOf(query);
        params.key = Tensor.pointerOf(key);
        params.value = Tensor.pointerOf(value);
        params.mask = Tensor.pointerOf(mask);
        params.bias = Tensor.pointerOf(bias);
        params.position_bias = Tensor.pointerOf(positionBias);
        params.alibi_slopes = Tensor.pointerOf(alibiSlopes);
        params.sinks = Tensor.pointerOf(sinks);
        params.write();
        return params.getPointer();
    }
}
