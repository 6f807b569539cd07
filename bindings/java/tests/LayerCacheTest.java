// SPDX-License-Identifier: BSD-3-Clause
import attention.KvPlaces;
import attention.Multihead;
import attention.RopeOptions;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.FloatBuffer;

/** Steps of a layer with a cache, a rotation and norms are the whole sequence. */
final class LayerCacheTest {
    private static final int ROWS = 5;
    private static final int EMBED_DIM = 8;
    private static final int ROOM = 6;
    private static final int DIM = 4;

    private static void checkClose(FloatBuffer found, int start, FloatBuffer expected, int from, int count) {
        for (int i = 0; i < count; i++) {
            if (Math.abs(found.get(start + i) - expected.get(from + i)) >= 1e-5) {
                throw new AssertionError("element " + i);
            }
        }
    }

    private static Tensor rows(FloatBuffer elements, int first, int count) {
        return Tensor.strided(
                Tensor.Dtype.FLOAT32,
                elements,
                (long) first * EMBED_DIM,
                new long[] {count, EMBED_DIM},
                new long[] {EMBED_DIM, 1});
    }

    private static Multihead.Options options() {
        return new Multihead.Options()
                .attention(new SdpaOptions().causal(true))
                .rope(new RopeOptions().base(500));
    }

    public static void main(String[] arguments) {
        final Multihead.Config config =
                new Multihead.Config(EMBED_DIM, 2)
                        .numKvHeads(1)
                        .headDims(DIM, DIM)
                        .qkNorm(Multihead.QkNorm.HEAD, 1e-6, 1);
        try (Multihead layer = new Multihead(config)) {
            layer.initialize(3);
            if (layer.describe().qkNorm() != Multihead.QkNorm.HEAD || layer.describe().qkNormWeightOffset() != 1) {
                throw new AssertionError(layer.describe().toString());
            }
            final FloatBuffer input = Tensor.directFloats(ROWS * EMBED_DIM);
            for (int i = 0; i < input.capacity(); i++) {
                input.put(i, (i * 37 + 11) % 64 / 32f - 1);
            }
            final FloatBuffer whole = Tensor.directFloats(ROWS * EMBED_DIM);
            final FloatBuffer output = Tensor.directFloats(ROWS * EMBED_DIM);
            final Tensor all = rows(input, 0, ROWS);
            layer.forward(all, all, all, rows(whole, 0, ROWS), options());

            final FloatBuffer keys = Tensor.directFloats(ROOM * DIM);
            final FloatBuffer values = Tensor.directFloats(ROOM * DIM);
            final long[] length = {0};
            for (final int count : new int[] {3, 1, 1}) {
                final int first = (int) length[0];
                length[0] += count;
                final Tensor part = rows(input, first, count);
                layer.forward(part, part, part, rows(output, first, count), options().cache(places(keys, values, length)));
            }
            checkClose(output, 0, whole, 0, ROWS * EMBED_DIM);

            final FloatBuffer again = Tensor.directFloats(EMBED_DIM);
            layer.forward(
                    rows(input, ROWS - 1, 1), null, null, rows(again, 0, 1), options().cache(places(keys, values, length)));
            checkClose(again, 0, whole, (ROWS - 1) * EMBED_DIM, EMBED_DIM);
        }
        System.out.println("a layer with a cache: ok");
    }

    private static KvPlaces places(FloatBuffer keys, FloatBuffer values, long[] length) {
        final long[] shape = {1, ROOM, DIM};
        final long[] strides = {ROOM * DIM, DIM, 1};
        return new KvPlaces(
                        Tensor.strided(Tensor.Dtype.FLOAT32, keys, 0, shape, strides),
                        Tensor.strided(Tensor.Dtype.FLOAT32, values, 0, shape, strides))
                .lengths(Tensor.of(length));
    }
}
