// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.Context;
import attention.Mask;
import attention.Multihead;
import attention.Outputs;
import attention.SdpaOptions;
import attention.Tensor;
import java.io.IOException;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;

/** What the cases do not show: views, contexts, closing, mistakes. */
final class WrapperTest {
    private static final Map<Tensor.Dtype, Integer> WIDTHS =
            Map.of(
                    Tensor.Dtype.FLOAT32, 4, Tensor.Dtype.FLOAT64, 8, Tensor.Dtype.BOOL, 1,
                    Tensor.Dtype.INT64, 8, Tensor.Dtype.INT32, 4, Tensor.Dtype.INT8, 1, Tensor.Dtype.UINT8, 1,
                    Tensor.Dtype.BFLOAT16, 2, Tensor.Dtype.FLOAT16, 2);

    private static void check(boolean isRight, String what) {
        if (!isRight) {
            throw new AssertionError(what);
        }
    }

    private static void refuses(Class<? extends RuntimeException> kind, String text, Runnable call) {
        try {
            call.run();
        } catch (RuntimeException problem) {
            check(kind.isInstance(problem), "expected " + kind + ", got " + problem);
            check(String.valueOf(problem.getMessage()).contains(text), problem.getMessage());
            return;
        }
        throw new AssertionError("nothing was refused: " + text);
    }

    private static double[] attend(Tensor query, Tensor key, Tensor value, Context context) {
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3);
        Attention.sdpa(query, key, value, output, new SdpaOptions(), context);
        return output.toDoubles();
    }

    private static void stridedViewsAreTheSame() {
        final float[] numbers = {1, 2, 3, 4, 5, 6};
        final Tensor plain = Tensor.of(numbers, 2, 3);
        final FloatBuffer wide = Tensor.directFloats(12);
        for (int i = 0; i < numbers.length; i++) {
            wide.put(11 - 2 * i, numbers[i]);
        }
        final Tensor backwards =
                Tensor.strided(Tensor.Dtype.FLOAT32, wide, 11, new long[] {2, 3}, new long[] {-6, -2});
        check(Arrays.equals(backwards.toDoubles(), plain.toDoubles()), "a view reads its strides");
        final double[] expected = attend(plain, plain, plain, null);
        check(Arrays.equals(attend(backwards, backwards, backwards, null), expected), "strides");
        try (Context context = new Context(new Context.Config().numThreads(2).float32Weights(true))) {
            context.start();
            check(context.info().numThreads() == 2, "threads are described");
            check(Arrays.equals(attend(plain, plain, plain, context), expected), "threads");
        }
    }

    private static boolean isNear(double found, double expected) {
        return Math.abs(found - expected) < 1e-5;
    }

    private static double firstOf(Tensor query, Tensor key, Tensor value, SdpaOptions options) {
        final Tensor output = Attention.outputs(query, key, value, options).output();
        Attention.sdpa(query, key, value, output, options);
        return output.toDoubles()[0];
    }

    private static void optionsBeyondPytorchCompose() {
        final Tensor query = Tensor.of(new float[4], 2, 2);
        final Tensor key = Tensor.of(new float[6], 3, 2);
        final Tensor value = Tensor.of(new float[] {10, 20, 30}, 3, 1);
        final Tensor bias = Tensor.of(new float[] {(float) Math.log(3), 0, 0}, 1, 3);
        final Mask mask = Mask.include(Tensor.of(new boolean[] {true, true, false}, 3));
        check(isNear(firstOf(query, key, value, new SdpaOptions().bias(bias).mask(mask)), 12.5), "bias");
        final SdpaOptions aligned = new SdpaOptions().causal(true).alignEnd(true);
        check(isNear(firstOf(query, key, value, aligned), 15), "the last row at the last key");
        final Tensor lengths = Tensor.of(new int[] {1});
        check(isNear(firstOf(query, key, value, new SdpaOptions().keyLengths(lengths)), 10), "int32");
        final SdpaOptions linear = new SdpaOptions().normalizer(SdpaOptions.Normalizer.LINEAR);
        check(firstOf(query, key, value, linear) == 0, "linear");
        refuses(IllegalStateException.class, "lse", () ->
                Attention.outputs(query, key, value, linear).lse());
        refuses(AttentionException.class, "query_offset", () ->
                firstOf(query, key, value, aligned.queryOffset(Tensor.of(new long[] {0}))));
    }

    private static void weightsArePerHeadOrAveraged() {
        final Tensor tokens = Tensor.zeros(Tensor.Dtype.FLOAT32, 5, 3, 4);
        final SdpaOptions attention = new SdpaOptions();
        final Multihead.Options options = new Multihead.Options().attention(attention);
        final Multihead.Config config = new Multihead.Config(4, 2).batchFirst(true).addZeroAttn(true);
        try (Multihead layer = new Multihead(config.bias(false))) {
            layer.initialize(1);
            final Outputs outputs = layer.outputs(tokens, tokens, tokens, options);
            final Tensor lse = outputs.lse();
            for (final Tensor weights : new Tensor[] {outputs.weights(), outputs.averagedWeights()}) {
                attention.weights(weights).lse(lse);
                layer.forward(tokens, tokens, tokens, outputs.output(), options);
                check(Arrays.stream(weights.toDoubles()).allMatch(w -> isNear(w, 0.25)), "weights");
            }
            check(Arrays.equals(outputs.weights().shape(), new long[] {5, 2, 3, 4}), "per head");
            check(Arrays.equals(outputs.averagedWeights().shape(), new long[] {5, 3, 4}), "averaged");
            check(isNear(lse.toDoubles()[29], Math.log(4)), "lse");
        }
    }

    private static void layersTellWhatTheyAre() {
        try (Multihead layer = new Multihead(new Multihead.Config(6, 2).bias(false));
                Context context =
                        new Context(new Context.Config().engine(Context.Engine.BLAS).gemm(Context.Gemm.NATIVE))) {
            final Multihead.Description made = layer.describe();
            check(made.kdim() == 6 && made.headDim() == 3 && !made.bias(), made.toString());
            check(made.dtype() == Tensor.Dtype.FLOAT32, "dtype");
            final double[] numbers = new double[36];
            Arrays.setAll(numbers, i -> i);
            layer.load("out_proj.weight", Tensor.of(numbers, 6, 6), context);
            final Tensor weight = Tensor.zeros(Tensor.Dtype.FLOAT32, 6, 6);
            layer.read("out_proj.weight", weight);
            check(Arrays.equals(weight.toDoubles(), numbers), "a parameter is read");
            final Tensor tokens = Tensor.zeros(Tensor.Dtype.FLOAT32, 3, 6);
            final Multihead.Report report =
                    layer.explain(tokens, tokens, tokens, tokens, new Multihead.Options(), context);
            check(report.projectionGemm() == Context.Gemm.NATIVE, report.toString());
            check(report.attention().engine() == Context.Engine.BLAS, report.toString());
            check(report.kernels().equals(context.info().kernels()), report.toString());
        }
    }

    private static void whatThisVersionCannotDoIsUnsupported() {
        final Tensor one = Tensor.zeros(Tensor.Dtype.FLOAT64, 2, 3);
        try (Context context = new Context(new Context.Config().engine(Context.Engine.FUSED))) {
            Attention.explain(one, one, one, one, new SdpaOptions(), context);
            throw new AssertionError("float64 was taken by the fused engine");
        } catch (AttentionException refusal) {
            check(refusal.codeName().equals("ATTN_ERROR_UNSUPPORTED"), refusal.codeName());
        }
    }

    private static void mistakesAreTold() {
        final Tensor one = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3);
        final Tensor other = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 4);
        refuses(AttentionException.class, "key: expected shape", () -> attend(one, other, one, null));
        refuses(IndexOutOfBoundsException.class, "beyond", () ->
                Tensor.view(Tensor.Dtype.FLOAT32, Tensor.directFloats(5), 2, 3));
        refuses(IndexOutOfBoundsException.class, "beyond", () ->
                Tensor.view(Tensor.Dtype.FLOAT64, Tensor.directFloats(6), 2, 3));
        refuses(IllegalArgumentException.class, "direct", () ->
                Tensor.view(Tensor.Dtype.FLOAT32, FloatBuffer.allocate(6), 2, 3));
        refuses(IllegalArgumentException.class, "expected 6", () -> Tensor.of(new float[5], 2, 3));
        refuses(AttentionException.class, "kernels", () ->
                new Context(new Context.Config().kernels("mmx")));
        refuses(AttentionException.class, "embed_dim", () -> new Multihead(new Multihead.Config(7, 2)));
        final Context closed = new Context();
        closed.close();
        closed.close();
        refuses(IllegalStateException.class, "closed", () -> attend(one, one, one, closed));
    }

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }

    private static Buffer[] allKinds(ByteBuffer bytes) {
        return new Buffer[] {
            bytes, bytes.asCharBuffer(), bytes.asShortBuffer(), bytes.asIntBuffer(), bytes.asFloatBuffer(),
            bytes.asLongBuffer(), bytes.asDoubleBuffer()
        };
    }

    /** A buffer of 48 bytes of each kind, as each dtype: all of it is seen and nothing behind it. */
    private static void viewsStayInsideTheirBuffers() {
        for (final Buffer buffer : allKinds(direct(48))) {
            for (final Tensor.Dtype dtype : Tensor.Dtype.values()) {
                final long fitting = 48 / WIDTHS.get(dtype);
                check(Tensor.view(dtype, buffer, fitting).toDoubles().length == fitting, "all of it");
                check(Tensor.view(dtype, buffer, 2, 0, fitting).count() == 0, "an empty view");
                refusesView(dtype, buffer, 0, fitting + 1, 1);
                refusesView(dtype, buffer, 1, fitting, 1);
                refusesView(dtype, buffer, fitting - 2, fitting, -1);
                refusesView(dtype, buffer, 0, fitting / 2 + 1, 2);
                refusesView(dtype, buffer, -1, 1, 1);
                refusesView(dtype, buffer, Long.MAX_VALUE, 2, 2);
                refusesView(dtype, buffer, 0, 3, Long.MAX_VALUE);
                refusesView(dtype, buffer, fitting + 1, 0, 1);
                Tensor.strided(dtype, buffer, fitting - 1, new long[] {fitting}, new long[] {-1});
                Tensor.strided(dtype, buffer, 1, new long[] {fitting / 2}, new long[] {2});
            }
        }
    }

    private static void refusesView(Tensor.Dtype dtype, Buffer buffer, long offset, long length, long stride) {
        refuses(IndexOutOfBoundsException.class, "buffer: the view reaches beyond it", () ->
                Tensor.strided(dtype, buffer, offset, new long[] {length}, new long[] {stride}));
    }

    /** Where the view begins is where Java's buffer does, of slices and of other widths too. */
    private static void viewsReadWhatJavaWrote() {
        final ByteBuffer bytes = direct(48);
        bytes.putDouble(16, 1.5).putLong(24, -7).putInt(32, 5).putFloat(36, 0.25f).put(40, (byte) 1);
        final ByteBuffer tail = bytes.slice(16, 32).order(ByteOrder.nativeOrder());
        check(valueAt(Tensor.Dtype.FLOAT64, tail.asFloatBuffer(), 0) == 1.5, "float64 of a FloatBuffer");
        check(valueAt(Tensor.Dtype.INT64, tail.asIntBuffer(), 1) == -7, "int64 of an IntBuffer");
        check(valueAt(Tensor.Dtype.INT32, tail.asDoubleBuffer(), 4) == 5, "int32 of a DoubleBuffer");
        check(valueAt(Tensor.Dtype.FLOAT32, tail.asLongBuffer(), 5) == 0.25, "float32 of a LongBuffer");
        check(valueAt(Tensor.Dtype.BOOL, tail.asShortBuffer(), 24) == 1, "bool of a ShortBuffer");
        final ByteOrder other =
                ByteOrder.nativeOrder() == ByteOrder.BIG_ENDIAN ? ByteOrder.LITTLE_ENDIAN : ByteOrder.BIG_ENDIAN;
        for (final Buffer swapped : allKinds(direct(48).order(other))) {
            if (!(swapped instanceof ByteBuffer)) {
                refuses(IllegalArgumentException.class, "buffer: expected one in the machine's byte order", () ->
                        Tensor.view(Tensor.Dtype.FLOAT32, swapped, 2));
            }
        }
    }

    private static double valueAt(Tensor.Dtype dtype, Buffer buffer, long offset) {
        return Tensor.strided(dtype, buffer, offset, new long[] {1}, new long[] {1}).toDoubles()[0];
    }

    /** A file that is mapped to be read, so that a write would end the process. */
    private static void readOnlyBuffersAreNeverWritten() throws IOException {
        final Path file = Files.createTempFile("attention", ".floats");
        try (FileChannel channel = FileChannel.open(file)) {
            Files.write(file, new byte[36 * Float.BYTES]);
            final Buffer mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, 36 * Float.BYTES);
            final Tensor input = Tensor.view(Tensor.Dtype.FLOAT32, mapped, 6, 6);
            final Tensor room = Tensor.zeros(Tensor.Dtype.FLOAT32, 6, 6);
            Attention.sdpa(input, input, input, room, new SdpaOptions());
            refuses(AttentionException.class, "output: expected memory that may be written", () ->
                    Attention.sdpa(room, room, room, input, new SdpaOptions()));
            refuses(AttentionException.class, "lse: expected", () -> new SdpaOptions().lse(input));
            refuses(AttentionException.class, "weights: expected", () -> new SdpaOptions().weights(input));
            try (Multihead layer = new Multihead(new Multihead.Config(6, 2))) {
                layer.initialize(1);
                layer.load("out_proj.weight", input);
                layer.forward(input, input, input, room, new Multihead.Options());
                refuses(AttentionException.class, "output: expected", () ->
                        layer.forward(room, room, room, input, new Multihead.Options()));
                refuses(AttentionException.class, "values: expected", () ->
                        layer.read("out_proj.weight", input));
            }
        } finally {
            Files.delete(file);
        }
        final Buffer readOnly = Tensor.directFloats(6).asReadOnlyBuffer();
        refuses(AttentionException.class, "output: expected", () ->
                attendInto(Tensor.view(Tensor.Dtype.FLOAT32, readOnly, 2, 3)));
    }

    private static void attendInto(Tensor output) {
        final Tensor one = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3);
        Attention.sdpa(one, one, one, output, new SdpaOptions());
    }

    public static void main(String[] arguments) throws IOException {
        stridedViewsAreTheSame();
        viewsStayInsideTheirBuffers();
        viewsReadWhatJavaWrote();
        readOnlyBuffersAreNeverWritten();
        optionsBeyondPytorchCompose();
        weightsArePerHeadOrAveraged();
        layersTellWhatTheyAre();
        whatThisVersionCannotDoIsUnsupported();
        Attention.selftest(null);
        mistakesAreTold();
        System.out.println("wrapper: passed, version " + Attention.version());
    }
}
