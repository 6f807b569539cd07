// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.Context;
import attention.Multihead;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.FloatBuffer;
import java.util.Arrays;

/** What the cases do not show: views, contexts, closing, mistakes. */
final class WrapperTest {
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
        try (Context context = new Context(2, null)) {
            check(Arrays.equals(attend(plain, plain, plain, context), expected), "threads");
        }
    }

    private static void mistakesAreTold() {
        final Tensor one = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3);
        final Tensor other = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 4);
        refuses(AttentionException.class, "key: expected shape", () -> attend(one, other, one, null));
        refuses(IndexOutOfBoundsException.class, "beyond", () ->
                Tensor.view(Tensor.Dtype.FLOAT32, Tensor.directFloats(5), 2, 3));
        refuses(IllegalArgumentException.class, "direct", () ->
                Tensor.view(Tensor.Dtype.FLOAT32, FloatBuffer.allocate(6), 2, 3));
        refuses(IllegalArgumentException.class, "expected 6", () -> Tensor.of(new float[5], 2, 3));
        refuses(AttentionException.class, "kernels", () -> new Context(1, "mmx"));
        refuses(AttentionException.class, "embed_dim", () -> new Multihead(new Multihead.Config(7, 2)));
        final Context closed = new Context();
        closed.close();
        closed.close();
        refuses(IllegalStateException.class, "closed", () -> attend(one, one, one, closed));
    }

    public static void main(String[] arguments) {
        stridedViewsAreTheSame();
        mistakesAreTold();
        System.out.println("wrapper: passed, version " + Attention.version());
    }
}
