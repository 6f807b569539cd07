// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.util.ArrayList;
import java.util.List;

/**
 * torch.nn.MultiheadAttention in evaluation mode, and its generalisations. Any number of threads may
 * use one at once; loading and initialising wait for calls under way, and calls for them.
 */
public final class Multihead extends NativeHandle {
    /** What is normalised of projected queries and keys. */
    public enum QkNorm {
        NONE,
        /** Each head, by one weight for all: Qwen 3, Gemma 3. */
        HEAD,
        /** All heads as one row: OLMo 2. */
        ALL_HEADS
    }

    /** What a layer is; sizes that are not set are PyTorch's defaults. Each method returns this. */
    public static final class Config {
        private final Abi.MhaConfig sizes = new Abi.MhaConfig();

        public Config(long embedDim, long numHeads) {
            sizes.embed_dim = embedDim;
            sizes.num_heads = numHeads;
        }

        public Config bias(boolean hasBias) {
            sizes.no_bias = hasBias ? 0 : 1;
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

        /** Of query, key, value and output: FLOAT32, the default, FLOAT64, BFLOAT16 or FLOAT16. */
        public Config dtype(Tensor.Dtype dtype) {
            sizes.dtype = dtype.number;
            return this;
        }

        /**
         * Of the parameters that the layer keeps, else the dtype; beside any dtype but FLOAT64 it may be
         * FLOAT32, BFLOAT16, FLOAT16 or, of weights, which are rounded when they are loaded, INT8.
         */
        public Config parameterDtype(Tensor.Dtype dtype) {
            sizes.parameter_dtype = dtype.number;
            return this;
        }

        /**
         * What {@link Attention#rmsNorm} does to queries and keys, by q_norm.weight and k_norm.weight;
         * epsilon 0 is its default, the offset is added to the weights, 1 for Gemma's.
         */
        public Config qkNorm(QkNorm norm, double epsilon, double weightOffset) {
            sizes.qk_norm = norm.ordinal();
            sizes.qk_norm_epsilon = epsilon;
            sizes.qk_norm_weight_offset = weightOffset;
            return this;
        }
    }

    /** What a layer is, with every size. */
    public record Description(
            long embedDim,
            long numHeads,
            long qdim,
            long kdim,
            long vdim,
            long headDim,
            long valueHeadDim,
            long numKvHeads,
            Tensor.Dtype dtype,
            boolean bias,
            boolean addBiasKv,
            boolean addZeroAttn,
            boolean batchFirst,
            Tensor.Dtype parameterDtype,
            QkNorm qkNorm,
            double qkNormEpsilon,
            double qkNormWeightOffset) {}

    /** Options of {@link #forward}. Each method returns this. */
    public static final class Options extends Argument {
        private final Abi.MhaParams params = new Abi.MhaParams();
        private Mask keyPaddingMask;
        private SdpaOptions attention = new SdpaOptions();
        private KvPlaces cache;
        private RopeOptions rope;

        /** Over (N, S). */
        public Options keyPaddingMask(Mask mask) {
            keyPaddingMask = mask;
            return this;
        }

        /**
         * Everything else: the mask (L, S), (N * H, L, S) or (N, H, L, S), causality, weights (N, H, L,
         * T) or, averaged over the heads, (N, L, T).
         */
        public Options attention(SdpaOptions options) {
            attention = options;
            return this;
        }

        /**
         * Keys and values of earlier calls, (N, Hk, C, D), with lengths, which count the new rows
         * already: those of this call are stored behind them, and all are attended to. With key and
         * value null it is only read.
         */
        public Options cache(KvPlaces places) {
            cache = places;
            return this;
        }

        /**
         * Projected queries and keys are rotated before they are stored; without positions and lengths
         * rows stand where they are stored.
         */
        public Options rope(RopeOptions options) {
            rope = options;
            return this;
        }

        @Override
        Pointer pointer() {
            return fill(params);
        }

        /** Writes these options to a struct, which then points at what they have. */
        Pointer fill(Abi.MhaParams params) {
            params.cache = cache == null ? null : cache.written().pointer();
            params.rope = rope == null ? null : rope.pointer();
            params.attention = attention == null ? null : attention.pointer();
            params.key_padding_mask = keyPaddingMask == null ? null : Tensor.pointerOf(keyPaddingMask.tensor);
            params.key_padding_mask_kind = keyPaddingMask == null ? 0 : keyPaddingMask.kind;
            params.write();
            return params.getPointer();
        }
    }

    /** What forward runs, and why. */
    public record Report(
            Context.Gemm projectionGemm,
            boolean dependsOnBlasThreads,
            long workspaceBytes,
            String kernels,
            SdpaReport attention) {}

    public Multihead(Config config) {
        super(create(config), Abi.LIBRARY::attn_mha_destroy);
    }

    private static Pointer create(Config config) {
        final PointerByReference made = new PointerByReference();
        Abi.check(Abi.LIBRARY.attn_mha_create(null, config.sizes, made));
        return made.getValue();
    }

    public Description describe() {
        final Abi.MhaConfig made = new Abi.MhaConfig();
        Abi.check(Abi.LIBRARY.attn_mha_describe(this, made));
        return new Description(
                made.embed_dim,
                made.num_heads,
                made.qdim,
                made.kdim,
                made.vdim,
                made.head_dim,
                made.value_head_dim,
                made.num_kv_heads,
                Tensor.Dtype.of(made.dtype),
                made.no_bias == 0,
                made.add_bias_kv == 1,
                made.add_zero_attn == 1,
                made.batch_first == 1,
                Tensor.Dtype.of(made.parameter_dtype),
                QkNorm.values()[made.qk_norm],
                made.qk_norm_epsilon,
                made.qk_norm_weight_offset);
    }

    /** Copies a parameter in, by PyTorch's name, converted to the layer's parameterDtype. */
    public void load(String name, Tensor values) {
        load(name, values, null);
    }

    /** As above, on a context's threads. */
    public void load(String name, Tensor values, Context context) {
        Abi.check(Abi.LIBRARY.attn_mha_load_parameter(context, this, name, values, null));
    }

    /** Copies a parameter out into a tensor of its shape and the layer's parameterDtype; INT8 as FLOAT32. */
    public void read(String name, Tensor values) {
        Abi.check(Abi.LIBRARY.attn_mha_read_parameter(null, this, name, Tensor.written("values", values)));
    }

    /** Fresh random parameters. */
    public void initialize(long seed) {
        final Abi.MhaInitParams params = new Abi.MhaInitParams();
        params.seed = seed;
        Abi.check(Abi.LIBRARY.attn_mha_init_parameters(null, this, params));
    }

    /** query (L, N, qdim), with batchFirst (N, L, qdim), unbatched (L, qdim); the others likewise. */
    public void forward(
            Tensor query, Tensor key, Tensor value, Tensor output, Options options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_mha_forward(
                        context,
                        this,
                        query,
                        key,
                        value,
                        options,
                        Tensor.written("output", output),
                        null,
                        0));
    }

    /** As above, with the default context. */
    public void forward(Tensor query, Tensor key, Tensor value, Tensor output, Options options) {
        forward(query, key, value, output, options, null);
    }

    /** As above, after which the gradients of the call can be computed. */
    public SavedForward forwardSaving(
            Tensor query, Tensor key, Tensor value, Tensor output, Options options, Context context) {
        final Options chosen = options == null ? new Options() : options;
        final SavedForward saved = new SavedForward(this, query, key, value, chosen, context);
        saved.forward(output);
        return saved;
    }

    /** The names of PyTorch's state_dict, in its order. */
    List<String> parameterNames() {
        final LongByReference count = new LongByReference();
        Abi.check(Abi.LIBRARY.attn_mha_parameter_count(this, count));
        final List<String> names = new ArrayList<>();
        for (long index = 0; index < count.getValue(); index++) {
            final PointerByReference name = new PointerByReference();
            Abi.check(Abi.LIBRARY.attn_mha_parameter_describe(this, index, name, null));
            names.add(name.getValue().getString(0));
        }
        return names;
    }

    /** Types and shapes of that call's outputs, for making them. */
    public Outputs outputs(Tensor query, Tensor key, Tensor value, Options options) {
        final Abi.Outputs described = new Abi.Outputs();
        Abi.check(
                Abi.LIBRARY.attn_mha_describe_outputs(
                        this, query, key, value, options, described));
        return new Outputs(described);
    }

    /** What that call would run, and why. */
    public Report explain(
            Tensor query, Tensor key, Tensor value, Tensor output, Options options, Context context) {
        final Abi.SdpaReport attention = new Abi.SdpaReport();
        final Abi.MhaReport report = new Abi.MhaReport();
        attention.write();
        report.attention = attention.getPointer();
        Abi.check(
                Abi.LIBRARY.attn_mha_explain(
                        context,
                        this,
                        query,
                        key,
                        value,
                        options,
                        output,
                        report));
        attention.read();
        return new Report(
                Context.Gemm.values()[report.projection_gemm],
                report.depends_on_blas_threads == 1,
                report.workspace_bytes,
                report.kernels,
                SdpaReport.of(attention));
    }
}
