// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.Context;
import attention.KvAppendOptions;
import attention.KvPlaces;
import attention.Multihead;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Arrays;

/** Keys and values in caches, ragged and in pages, and ragged queries. */
final class PlacesTest {
    private static final int HEADS = 2;
    private static final int FEATURES = 4;
    private static final int PAGE = 4;
    /** Where the keys and the queries of three sequences are, one behind the other. */
    private static final long[] KEY_STARTS = {0, 5, 6, 13};

    private static final long[] QUERY_STARTS = {0, 2, 3, 6};

    private static final FloatBuffer KEYS = numbers(13, 37);
    private static final FloatBuffer VALUES = numbers(13, 29);
    private static final FloatBuffer QUERIES = numbers(6, 37);

    private static void check(boolean isRight, String what) {
        if (!isRight) {
            throw new AssertionError(what);
        }
    }

    private static void refuses(String text, Runnable call) {
        try {
            call.run();
        } catch (AttentionException problem) {
            check(problem.getMessage().contains(text), problem.getMessage());
            return;
        }
        throw new AssertionError("nothing was refused: " + text);
    }

    private static FloatBuffer numbers(int rows, int factor) {
        final FloatBuffer made = Tensor.directFloats(HEADS * rows * FEATURES);
        for (int i = 0; i < made.capacity(); i++) {
            made.put(i, (i * factor + 11) % 64 / 32f - 1);
        }
        return made;
    }

    private static Tensor ragged(FloatBuffer elements) {
        return Tensor.view(Tensor.Dtype.FLOAT32, elements, HEADS, elements.capacity() / HEADS / FEATURES, FEATURES);
    }

    /** The rows of sequence b. */
    private static Tensor part(FloatBuffer elements, long[] starts, int b) {
        return Tensor.strided(
                Tensor.Dtype.FLOAT32,
                elements,
                starts[b] * FEATURES,
                new long[] {HEADS, starts[b + 1] - starts[b], FEATURES},
                new long[] {elements.capacity() / HEADS, FEATURES, 1});
    }

    private static Tensor indices(long... numbers) {
        return Tensor.of(numbers, numbers.length);
    }

    private static SdpaOptions decoding() {
        return new SdpaOptions().causal(true).alignEnd(true);
    }

    private static double[] attendedOneByOne() {
        final FloatBuffer output = Tensor.directFloats(QUERIES.capacity());
        for (int b = 0; b < 3; b++) {
            Attention.sdpa(
                    part(QUERIES, QUERY_STARTS, b),
                    part(KEYS, KEY_STARTS, b),
                    part(VALUES, KEY_STARTS, b),
                    part(output, QUERY_STARTS, b),
                    decoding());
        }
        return ragged(output).toDoubles();
    }

    private static double[] attended(KvPlaces kv) {
        final Tensor query = ragged(QUERIES);
        final SdpaOptions options = decoding().kv(kv).queryStarts(indices(QUERY_STARTS));
        final Tensor output = Attention.outputs(query, null, null, options).output();
        check(
                Attention.explain(query, null, null, output, options, null).engine() == Context.Engine.FUSED,
                "what runs is told");
        Attention.sdpa(query, null, null, output, options);
        return output.toDoubles();
    }

    private static Tensor pages() {
        return Tensor.zeros(Tensor.Dtype.FLOAT32, 6, HEADS, PAGE, FEATURES);
    }

    /** Pages in no order; an entry that no key needs is no page. */
    private static KvPlaces paged(Tensor key, Tensor value) {
        return new KvPlaces(key, value).pageTable(Tensor.of(new int[] {3, 1, /**/ 5, -1, /**/ 0, 2}, 3, 2));
    }

    private static void pagesAreRaggedRowsAreSingleSequences() {
        final double[] expected = attendedOneByOne();
        check(Arrays.stream(expected).anyMatch(number -> number != 0), "nothing is attended to");
        final Tensor starts = indices(KEY_STARTS);
        final KvPlaces rows = new KvPlaces(ragged(KEYS), ragged(VALUES)).starts(starts);
        check(Arrays.equals(attended(rows), expected), "ragged keys are others");

        final KvPlaces kv = paged(pages(), pages()).lengths(indices(5, 1, 7));
        Attention.kvAppend(kv, ragged(KEYS), ragged(VALUES), new KvAppendOptions().starts(starts));
        check(Arrays.equals(attended(kv), expected), "keys in pages are others");
        kv.pageTable(indices(3, 1, 5, 0, 2)).pageStarts(indices(0, 2, 3, 5));
        check(Arrays.equals(attended(kv), expected), "keys in pages of all sequences are others");
    }

    private static void positionsSayWhereRowsGo() {
        final float[] numbers = new float[3 * HEADS * FEATURES];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = i + 1;
        }
        final Tensor rows = Tensor.of(numbers, 3, HEADS, 1, FEATURES);
        final Tensor keys = pages();
        final Tensor positions = Tensor.of(new int[] {2, -1, 6}, 3, 1);
        Attention.kvAppend(paged(keys, pages()), rows, rows, new KvAppendOptions().positions(positions));
        final double[] expected = new double[6 * HEADS * PAGE * FEATURES];
        for (int i = 0; i < HEADS * FEATURES; i++) {
            final int inPage = (i / FEATURES * PAGE + 2) * FEATURES + i % FEATURES;
            expected[3 * HEADS * PAGE * FEATURES + inPage] = numbers[i];
            expected[2 * HEADS * PAGE * FEATURES + inPage] = numbers[2 * HEADS * FEATURES + i];
        }
        check(Arrays.equals(keys.toDoubles(), expected), "rows went elsewhere");
    }

    private static void whatIsNoPlaceIsTold() {
        final KvPlaces kv = new KvPlaces(ragged(KEYS), ragged(VALUES)).starts(indices(0, 5, 6, 14));
        refuses("kv.starts: expected 6 (the element before it) to 13, got 14 at element 3", () -> attended(kv));
        refuses("kv.key: expected a tensor, got NULL", () -> attended(new KvPlaces(null, null)));
        refuses(
                "kv: expected where keys and values lie, got NULL",
                () -> Attention.kvAppend(null, ragged(KEYS), ragged(VALUES), null));
        final FloatBuffer readOnly =
                ByteBuffer.allocateDirect(4 * 6 * HEADS * PAGE * FEATURES)
                        .order(ByteOrder.nativeOrder())
                        .asFloatBuffer()
                        .asReadOnlyBuffer();
        final Tensor key = Tensor.view(Tensor.Dtype.FLOAT32, readOnly, 6, HEADS, PAGE, FEATURES);
        refuses(
                "kv.key: expected memory that may be written, got a read-only buffer",
                () -> Attention.kvAppend(paged(key, pages()), ragged(KEYS), ragged(VALUES), null));
        try (Multihead layer = new Multihead(new Multihead.Config(4, 2))) {
            layer.initialize(1);
            final Tensor x = Tensor.zeros(Tensor.Dtype.FLOAT32, 3, 4);
            final Multihead.Options options = new Multihead.Options().attention(new SdpaOptions().kv(kv));
            refuses("attention.kv: expected NULL in a layer", () -> layer.outputs(x, x, x, options));
        }
    }

    private static final long[] THREE_ROWS = {1, HEADS, 3, FEATURES};
    private static final long[] ROOM = {1, HEADS, 4, FEATURES};
    private static final long[] ROOM_SCALES = {1, HEADS, 4, 1};

    /**
     * Rows from 0 to their first element: 127 / 64 has a scale of 1 / 64 in INT8, 255 / 128 one of 1 /
     * 128 in UINT8, and so they are integers exactly.
     */
    private static Tensor exactRows(float first) {
        final float[] made = new float[HEADS * 3 * FEATURES];
        for (int i = 0; i < made.length; i++) {
            made[i] = i % FEATURES == 0 ? first : i * 5 % 64 / 64f;
        }
        return Tensor.of(made, THREE_ROWS);
    }

    /** From -1 to 1. */
    private static Tensor someRows() {
        final float[] made = new float[HEADS * 3 * FEATURES];
        for (int i = 0; i < made.length; i++) {
            made[i] = (i * 29 + 11) % 64 / 32f - 1;
        }
        return Tensor.of(made, THREE_ROWS);
    }

    private static Tensor scales() {
        return Tensor.zeros(Tensor.Dtype.FLOAT32, ROOM_SCALES);
    }

    private static double[] seenByOne(KvPlaces kv) {
        final long[] shape = {1, HEADS, 1, FEATURES};
        final Tensor query = Tensor.strided(Tensor.Dtype.FLOAT32, QUERIES, 0, shape, new long[] {0, 24, 4, 1});
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT32, shape);
        Attention.sdpa(query, null, null, output, new SdpaOptions().kv(kv));
        return output.toDoubles();
    }

    private static void near(double[] expected, double[] found, double distance) {
        check(Arrays.stream(expected).anyMatch(number -> number != 0), "nothing is there");
        check(expected.length == found.length, "as many numbers");
        for (int i = 0; i < expected.length; i++) {
            check(Math.abs(expected[i] - found[i]) <= distance, expected[i] + " is " + found[i]);
        }
    }

    /** What three rows of each head mean; without zeros they are 0. */
    private static double[] meant(Tensor stored, Tensor scale, Tensor zero) {
        final double[] elements = stored.toDoubles();
        final double[] scales = scale.toDoubles();
        final double[] zeros = zero == null ? new double[scales.length] : zero.toDoubles();
        final double[] made = new double[HEADS * 3 * FEATURES];
        for (int i = 0; i < made.length; i++) {
            final int row = i / FEATURES + i / (3 * FEATURES);
            made[i] = (elements[row * FEATURES + i % FEATURES] - zeros[row]) * scales[row];
        }
        return made;
    }

    /** Of values the largest scale is that of a row from -1 to 1. */
    private static void integersMeanNumbers(Tensor.Dtype dtype, float first, double largestScale) {
        final Tensor newKey = exactRows(first);
        final Tensor newValue = someRows();
        final Tensor key = Tensor.zeros(dtype, ROOM);
        final Tensor value = Tensor.zeros(dtype, ROOM);
        final Tensor keyScale = scales();
        final Tensor valueScale = scales();
        final Tensor keyZero = dtype == Tensor.Dtype.UINT8 ? scales() : null;
        final Tensor valueZero = dtype == Tensor.Dtype.UINT8 ? scales() : null;
        final KvPlaces kv =
                new KvPlaces(key, value)
                        .lengths(indices(3))
                        .keyScale(keyScale)
                        .valueScale(valueScale)
                        .keyZero(keyZero)
                        .valueZero(valueZero);
        Attention.kvAppend(kv, newKey, newValue, null);
        near(newKey.toDoubles(), meant(key, keyScale, keyZero), 0);
        near(newValue.toDoubles(), meant(value, valueScale, valueZero), largestScale / 2 + 1e-6);
        near(seenByOne(new KvPlaces(newKey, newValue)), seenByOne(kv), largestScale / 2 + 1e-6);
    }

    private static void aScaleIsWrittenOrRead() {
        final FloatBuffer readOnly = Tensor.directFloats(HEADS * 4).asReadOnlyBuffer();
        final Tensor key = Tensor.zeros(Tensor.Dtype.INT8, ROOM);
        final Tensor coarse = Tensor.view(Tensor.Dtype.FLOAT32, readOnly, 1, HEADS, 1, 1);
        final KvPlaces kv =
                new KvPlaces(key, Tensor.zeros(Tensor.Dtype.INT8, ROOM)).lengths(indices(3)).keyScale(coarse);
        Attention.kvAppend(kv, exactRows(1), someRows(), null);
        check(Arrays.stream(key.toDoubles()).allMatch(element -> element == 0), "of scale 0 is 0");
        kv.keyScale(Tensor.view(Tensor.Dtype.FLOAT32, readOnly, ROOM_SCALES));
        refuses(
                "kv.key_scale: expected memory that may be written, got a read-only buffer",
                () -> Attention.kvAppend(kv, exactRows(1), someRows(), null));
        refuses(
                "kv.key_scale: expected NULL beside kv.key of float32, whose elements are not scaled",
                () -> seenByOne(new KvPlaces(someRows(), someRows()).keyScale(coarse)));
    }

    public static void main(String[] arguments) {
        pagesAreRaggedRowsAreSingleSequences();
        positionsSayWhereRowsGo();
        whatIsNoPlaceIsTold();
        integersMeanNumbers(Tensor.Dtype.INT8, 127f / 64, 1. / 127);
        integersMeanNumbers(Tensor.Dtype.UINT8, 255f / 128, 2. / 255);
        aScaleIsWrittenOrRead();
        System.out.println("places: passed");
    }
}
