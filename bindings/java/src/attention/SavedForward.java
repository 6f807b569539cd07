// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Memory;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;

/**
 * A call of {@link Multihead#forwardSaving} and what its gradients need of it: the layer, the arguments
 * and memory of its own. Until the last call of {@link #backward} the layer's parameters, the options and
 * what tensors hold stay as they were. Threads may share one.
 */
public final class SavedForward {
    private final Multihead layer;
    private final Tensor query;
    private final Tensor key;
    private final Tensor value;
    private final Context context;
    private final Params params;

    SavedForward(
            Multihead layer, Tensor query, Tensor key, Tensor value, Multihead.Options options, Context context) {
        this.layer = layer;
        this.query = query;
        this.key = key;
        this.value = value;
        this.context = context;
        final LongByReference bytes = new LongByReference();
        Abi.check(Abi.LIBRARY.attn_mha_saved_bytes(context, layer, query, key, value, options, bytes));
        params = new Params(options, bytes.getValue());
    }

    void forward(Tensor output) {
        Abi.check(
                Abi.LIBRARY.attn_mha_forward(
                        context, layer, query, key, value, params, Tensor.written("output", output), null, 0));
    }

    /** The gradients of the call, on its context. */
    public void backward(MultiheadGradients gradients) {
        final Argument wanted = gradients == null ? null : gradients.of(layer.parameterNames());
        Abi.check(Abi.LIBRARY.attn_mha_backward(context, layer, query, key, value, params, wanted, null, 0));
    }

    /** The options of the call, and where it saved what it did. */
    private static final class Params extends Argument {
        private final Abi.MhaParams raw = new Abi.MhaParams();
        // What the struct points at lives as long as it.
        private final Multihead.Options options;
        private final Memory memory;

        Params(Multihead.Options options, long bytes) {
            this.options = options;
            memory = new Memory(Math.max(1, bytes));
            raw.saved = memory;
            raw.saved_bytes = bytes;
        }

        @Override
        Pointer pointer() {
            return options.fill(raw);
        }

        @Override
        public String toString() {
            return memory.size() + " bytes saved";
        }
    }
}
