// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.Context;
import attention.KvAppendOptions;
import attention.KvPlaces;
import attention.Mask;
import attention.Multihead;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.Arrays;

/**
 * Objects that only a call knows: the garbage collector, which another thread runs without pause,
 * must leave them alone until the call has returned. A third thread takes what is freed and fills it
 * with NaN. Compiled code forgets a reference after its last use, so `test` has everything here
 * compiled at once.
 */
final class CollectorTest {
    private static final int CALLS = 40;
    private static final int HEADS = 4;
    private static final int ROWS = 256;
    private static final int FEATURES = 64;
    private static final int EMBED_DIM = HEADS * FEATURES;

    private static float[] numbers(int count) {
        final float[] made = new float[count];
        for (int i = 0; i < count; i++) {
            made[i] = (i * 37 + 11) % 64 / 32f - 1;
        }
        return made;
    }

    private static Tensor copied(long... shape) {
        return Tensor.of(numbers((int) Arrays.stream(shape).reduce(1, Math::multiplyExact)), shape);
    }

    private static Tensor viewed(long... shape) {
        final int count = (int) Arrays.stream(shape).reduce(1, Math::multiplyExact);
        final FloatBuffer memory = Tensor.directFloats(count);
        memory.put(numbers(count));
        return Tensor.view(Tensor.Dtype.FLOAT32, memory, shape);
    }

    /** All of them true. */
    private static Tensor flags(int rows, int columns) {
        final byte[] flags = new byte[rows * columns];
        Arrays.fill(flags, (byte) 1);
        return Tensor.view(Tensor.Dtype.BOOL, ByteBuffer.allocateDirect(flags.length).put(flags), rows, columns);
    }

    private static float[] read(FloatBuffer memory) {
        final float[] found = new float[memory.capacity()];
        memory.get(0, found);
        return found;
    }

    private static SdpaOptions options() {
        return new SdpaOptions()
                .mask(Mask.include(flags(ROWS, ROWS)))
                .bias(viewed(HEADS, ROWS, ROWS))
                .lse(Tensor.zeros(Tensor.Dtype.FLOAT32, HEADS, ROWS))
                .weights(Tensor.zeros(Tensor.Dtype.FLOAT32, HEADS, ROWS, ROWS));
    }

    private static Context context() {
        return new Context(new Context.Config().numThreads(2));
    }

    private static float[] attend() {
        final FloatBuffer output = Tensor.directFloats(HEADS * ROWS * FEATURES);
        Attention.sdpa(
                copied(HEADS, ROWS, FEATURES),
                viewed(HEADS, ROWS, FEATURES),
                copied(HEADS, ROWS, FEATURES),
                Tensor.view(Tensor.Dtype.FLOAT32, output, HEADS, ROWS, FEATURES),
                options(),
                context());
        return read(output);
    }

    /** Two sequences, in pages that are ROWS long. */
    private static float[] appendAndAttend() {
        final FloatBuffer output = Tensor.directFloats(2 * HEADS * FEATURES);
        final FloatBuffer keys = Tensor.directFloats(4 * HEADS * ROWS * FEATURES);
        Attention.kvAppend(
                new KvPlaces(
                                Tensor.view(Tensor.Dtype.FLOAT32, keys, 4, HEADS, ROWS, FEATURES),
                                copied(4, HEADS, ROWS, FEATURES))
                        .pageTable(pages())
                        .lengths(Tensor.of(new int[] {ROWS, ROWS}, 2)),
                copied(2, HEADS, ROWS, FEATURES),
                viewed(2, HEADS, ROWS, FEATURES),
                new KvAppendOptions().positions(Tensor.of(new long[] {1}, 1)),
                context());
        Attention.sdpa(
                copied(2, HEADS, 1, FEATURES),
                null,
                null,
                Tensor.view(Tensor.Dtype.FLOAT32, output, 2, HEADS, 1, FEATURES),
                new SdpaOptions()
                        .kv(
                                new KvPlaces(
                                                Tensor.view(Tensor.Dtype.FLOAT32, keys, 4, HEADS, ROWS, FEATURES),
                                                copied(4, HEADS, ROWS, FEATURES))
                                        .pageTable(pages())),
                context());
        return read(output);
    }

    private static Tensor pages() {
        return Tensor.of(new int[] {2, 0, 3, 1}, 2, 2);
    }

    private static Multihead layer() {
        final Multihead made = new Multihead(new Multihead.Config(EMBED_DIM, HEADS));
        made.initialize(1);
        made.load("out_proj.weight", copied(EMBED_DIM, EMBED_DIM), context());
        return made;
    }

    private static float[] forward() {
        final FloatBuffer output = Tensor.directFloats(ROWS * EMBED_DIM);
        layer().forward(
                copied(ROWS, EMBED_DIM),
                viewed(ROWS, EMBED_DIM),
                copied(ROWS, EMBED_DIM),
                Tensor.view(Tensor.Dtype.FLOAT32, output, ROWS, EMBED_DIM),
                new Multihead.Options()
                        .keyPaddingMask(Mask.additive(copied(ROWS)))
                        .attention(new SdpaOptions().bias(copied(ROWS, ROWS))),
                context());
        return read(output);
    }

    /** Where a parameter is read to, and the layer it is of, are known to the call alone. */
    private static float[] readWeight() {
        final FloatBuffer weight = Tensor.directFloats(EMBED_DIM * EMBED_DIM);
        layer().read("out_proj.weight", Tensor.view(Tensor.Dtype.FLOAT32, weight, EMBED_DIM, EMBED_DIM));
        return read(weight);
    }

    private static void inBackground(Runnable step) {
        final Thread thread = new Thread(() -> {
            while (true) {
                step.run();
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    private static void takeWhatIsFreed() {
        final float[] poison = new float[ROWS * ROWS];
        Arrays.fill(poison, Float.NaN);
        for (int count = 1024; count <= poison.length; count *= 2) {
            Tensor.of(Arrays.copyOf(poison, count), count);
        }
    }

    private static void requireSame(float[] expected, float[] found, String call) {
        if (!Arrays.equals(expected, found)) {
            throw new AssertionError(call + ": its numbers changed while the collector ran");
        }
    }

    public static void main(String[] arguments) {
        final float[] attended = attend();
        final float[] appended = appendAndAttend();
        final float[] forwarded = forward();
        final float[] weight = readWeight();
        if (weight[0] != numbers(1)[0] || Float.isNaN(attended[0] + appended[0] + forwarded[0])) {
            throw new AssertionError("expected numbers");
        }
        inBackground(System::gc);
        inBackground(CollectorTest::takeWhatIsFreed);
        for (int call = 0; call < CALLS; call++) {
            requireSame(attended, attend(), "sdpa");
            requireSame(appended, appendAndAttend(), "kvAppend and sdpa");
            requireSame(forwarded, forward(), "forward");
            requireSame(weight, readWeight(), "read");
        }
        System.out.println("collector: passed, " + 4 * CALLS + " calls");
    }
}
