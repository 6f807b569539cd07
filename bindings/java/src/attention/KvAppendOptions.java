// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;

/**
 * Options of {@link Attention#kvAppend}; new ones are as many new rows for each sequence, at the end
 * of its rows in use. Each method returns this.
 */
public final class KvAppendOptions extends Argument {
    private final Abi.KvAppendParams params = new Abi.KvAppendParams();
    // What the struct points at lives as long as these options.
    private Tensor starts;
    private Tensor positions;

    /** INT64 or INT32, (B + 1): a sequence's new rows of key (Hk, total, E) and value begin there. */
    public KvAppendOptions starts(Tensor rows) {
        starts = rows;
        return this;
    }

    /** INT64 or INT32 over (batch axes, L) or (total): where new rows go; negative: nowhere. */
    public KvAppendOptions positions(Tensor rows) {
        positions = rows;
        return this;
    }

    @Override
    Pointer pointer() {
        params.starts = Tensor.pointerOf(starts);
        params.positions = Tensor.pointerOf(positions);
        params.write();
        return params.getPointer();
    }
}
