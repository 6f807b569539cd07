// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Options of {@link Attention#rope}; new ones rotate all features, in pairs of halves, with base 10000
 * and positions 0, 1, ... Each method returns this.
 */
public final class RopeOptions extends Argument {
    private final Abi.RopeParams params = new Abi.RopeParams();
    // What the struct points at lives as long as these options.
    private Tensor frequencies;
    private Tensor cos;
    private Tensor sin;
    private Tensor positions;
    private Tensor lengths;

    /** So many features are rotated, the others copied. */
    public RopeOptions rotaryDim(long count) {
        params.rotary_dim = count;
        return this;
    }

    /** Pair i turns by base^(-2 i / R) for each position. */
    public RopeOptions base(double base) {
        params.base = base;
        return this;
    }

    /** Cosines and sines are multiplied by it. */
    public RopeOptions magnitude(double factor) {
        params.magnitude = factor;
        return this;
    }

    /** Pairs are features (2 i, 2 i + 1), not halves. */
    public RopeOptions interleaved(boolean isInterleaved) {
        params.interleaved = isInterleaved ? 1 : 0;
        return this;
    }

    /** By the negative angle. */
    public RopeOptions inverse(boolean isInverse) {
        params.inverse = isInverse ? 1 : 0;
        return this;
    }

    /** (R / 2): the turn of each pair, instead of base. */
    public RopeOptions frequencies(Tensor turns) {
        frequencies = turns;
        return this;
    }

    /**
     * Cosines and sines instead of base and frequencies: (P, R / 2) beside positions or lengths, else
     * broadcastable to (batch axes, L, R / 2).
     */
    public RopeOptions tables(Tensor cosines, Tensor sines) {
        cos = cosines;
        sin = sines;
        return this;
    }

    /** INT64 or INT32, broadcastable to (batch axes, L). */
    public RopeOptions positions(Tensor rows) {
        positions = rows;
        return this;
    }

    /** INT64 or INT32 over the batch axes: rows, those of the input the last; instead of positions. */
    public RopeOptions lengths(Tensor rows) {
        lengths = rows;
        return this;
    }

    @Override
    Pointer pointer() {
        params.frequencies = Tensor.pointerOf(frequencies);
        params.cos = Tensor.pointerOf(cos);
        params.sin = Tensor.pointerOf(sin);
        params.positions = Tensor.pointerOf(positions);
        params.lengths = Tensor.pointerOf(lengths);
        params.write();
        return params.getPointer();
    }
}
