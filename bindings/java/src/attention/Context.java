// SPDX-License-Identifier: BSD-3-Clause
package attention;

import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;

/** Threads and kernels of the calls it is given to. Any number of threads may use one at once. */
public final class Context extends NativeHandle {
    /** How attention is computed. */
    public enum Engine {
        AUTO,
        BLAS,
        FUSED
    }

    /** Who computes matrix products. */
    public enum Gemm {
        AUTO,
        BLAS,
        NATIVE
    }

    /** Settings; those that are not set are the library's choice. Each method returns this. */
    public static final class Config {
        private final Abi.ContextConfig config = new Abi.ContextConfig();

        /** 1 to 1024; 0: the CPUs of this process. */
        public Config numThreads(int threads) {
            config.num_threads = threads;
            return this;
        }

        public Config engine(Engine engine) {
            config.engine = engine.ordinal();
            return this;
        }

        public Config gemm(Gemm gemm) {
            config.gemm = gemm.ordinal();
            return this;
        }

        /** A name; null: the best that the CPU has. */
        public Config kernels(String name) {
            config.kernels = name;
            return this;
        }

        /**
         * Where query, key and value are bfloat16 and the kernels multiply pairs of them, the weights
         * of many rows are rounded to it; true keeps them float32.
         */
        public Config float32Weights(boolean areKept) {
            config.float32_weights = areKept ? 1 : 0;
            return this;
        }
    }

    /** What a context runs with. */
    public record Info(
            int numThreads,
            Engine engine,
            Gemm gemm,
            Gemm attentionGemm,
            Gemm projectionGemm,
            boolean blasIsSerial,
            String kernels,
            String blas) {}

    /** The CPUs of this process, the best kernels. */
    public Context() {
        this(new Config());
    }

    public Context(Config config) {
        super(create(config), Abi.LIBRARY::attn_context_destroy);
    }

    private static Pointer create(Config config) {
        final PointerByReference made = new PointerByReference();
        // The struct has memory of the kernels' name, which another thread with the same config renews.
        synchronized (config) {
            Abi.check(Abi.LIBRARY.attn_context_create(config.config, made));
        }
        return made.getValue();
    }

    /** Starts the threads now, which the first large call would do. */
    public void start() {
        Abi.check(Abi.LIBRARY.attn_context_start(this));
    }

    public Info info() {
        final Abi.ContextInfo info = new Abi.ContextInfo();
        Abi.check(Abi.LIBRARY.attn_context_describe(this, info));
        return new Info(
                info.num_threads,
                Engine.values()[info.engine],
                Gemm.values()[info.gemm],
                Gemm.values()[info.attention_gemm],
                Gemm.values()[info.projection_gemm],
                info.blas_is_serial == 1,
                info.kernels,
                info.blas);
    }
}
