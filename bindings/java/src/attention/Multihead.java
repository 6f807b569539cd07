// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;
import java.lang.ref.Reference;

/** torch.nn.MultiheadAttention in evaluation mode, and its generalisations. */
public final class Multihead extends NativeHandle {
    /** What a layer is; sizes that are not set are PyTorch's defaults. Each method returns this. */
    public static final class Config {
        private final Abi.MhaConfig sizes = new Abi.MhaConfig();

        public Config(long embedDim, long numHeads) {
            sizes.embed_dim = embedDim;
            sizes.num_heads = numHeads;
        }

        public Config bias(boolean hasBias) {
            sizes.bias = hasBias ? Abi.ON : Abi.OFF;
            return this;
        }

        public Config addBiasKv(boolean adds) {
            sizes.add_bias_kv = adds ? 1 : 0;
            return this;
        }

        public Config addZeroAttn(boolean adds) {
            sizes.add_zero_attn = adds ? 1 : 0;
            return this;
        }

        public Config batchFirst(boolean isFirst) {
            sizes.batch_first = isFirst ? 1 : 0;
            return this;
        }

        /** Features of query, key and value; 0: embedDim. */
        public Config widths(long qdim, long kdim, long vdim) {
            sizes.qdim = qdim;
            sizes.kdim = kdim;
            sizes.vdim = vdim;
            return this;
        }

        /** Features of a query or key head, and of a value head; 0: embedDim / numHeads. */
        public Config headDims(long headDim, long valueHeadDim) {
            sizes.head_dim = headDim;
            sizes.value_head_dim = valueHeadDim;
            return this;
        }

        /** Key and value heads; 0: numHeads. */
        public Config numKvHeads(long heads) {
            sizes.num_kv_heads = heads;
            return this;
        }

        /** FLOAT32, the default, or FLOAT64. */
        public Config dtype(Tensor.Dtype dtype) {
            sizes.dtype = dtype.number;
            return this;
        }
    }

    /** Options of {@link #forward}. Each method returns this. */
    public static final class Options {
        private final Abi.MhaParams params = new Abi.MhaParams();
        private Mask keyPaddingMask;
        private Mask attnMask;
        private Tensor attnWeights;

        public Options keyPaddingMask(Mask mask) {
            keyPaddingMask = mask;
            return this;
        }

        public Options attnMask(Mask mask) {
            attnMask = mask;
            return this;
        }

        /** Query i sees keys up to i. */
        public Options causal(boolean isCausal) {
            params.is_causal = isCausal ? 1 : 0;
            return this;
        }

        /** Out: (N, L, T), or (N, H, L, T) with averageAttnWeights(false). */
        public Options attnWeights(Tensor output) {
            attnWeights = output;
            return this;
        }

        public Options averageAttnWeights(boolean averages) {
            params.average_attn_weights = averages ? Abi.ON : Abi.OFF;
            return this;
        }

        private Abi.MhaParams params() {
            params.key_padding_mask = keyPaddingMask == null ? null : Tensor.pointerOf(keyPaddingMask.tensor);
            params.key_padding_mask_kind = keyPaddingMask == null ? 0 : keyPaddingMask.kind;
            params.attn_mask = attnMask == null ? null : Tensor.pointerOf(attnMask.tensor);
            params.attn_mask_kind = attnMask == null ? 0 : attnMask.kind;
            params.attn_weights = Tensor.pointerOf(attnWeights);
            return params;
        }
    }

    public Multihead(Config config) {
        super(create(config), Abi.LIBRARY::attn_mha_destroy);
    }

    private static Pointer create(Config config) {
        final PointerByReference made = new PointerByReference();
        Abi.check(Abi.LIBRARY.attn_mha_create(null, config.sizes, made));
        return made.getValue();
    }

    /** Copies a parameter in, by PyTorch's name. */
    public void load(String name, Tensor values) {
        Abi.check(Abi.LIBRARY.attn_mha_load_parameter(handle(), name, values.view));
        Reference.reachabilityFence(this);
    }

    /** Fresh random parameters. */
    public void initialize(long seed) {
        Abi.check(Abi.LIBRARY.attn_mha_init_parameters(handle(), seed));
        Reference.reachabilityFence(this);
    }

    /** query (L, N, qdim), with batchFirst (N, L, qdim), unbatched (L, qdim); the others likewise. */
    public void forward(
            Tensor query, Tensor key, Tensor value, Tensor output, Options options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_mha_forward(
                        Context.handleOf(context),
                        handle(),
                        query.view,
                        key.view,
                        value.view,
                        options.params(),
                        output.view,
                        null,
                        0));
        Reference.reachabilityFence(this);
    }

    /** As above, with the default context. */
    public void forward(Tensor query, Tensor key, Tensor value, Tensor output, Options options) {
        forward(query, key, value, output, options, null);
    }
}
