// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.KvPlaces;
import attention.Mask;
import attention.SdpaBackwardReport;
import attention.SdpaGradients;
import attention.SdpaOptions;
import attention.Tensor;

/** Gradients against differences of the forward call, in double. */
final class BackwardTest {
    private static final int HEADS = 2;
    private static final int ROWS = 3;
    private static final int KEYS = 5;
    private static final int FEATURES = 4;
    private static final double STEP = 1e-4;

    /** Of query, key, value and mask. */
    private static final long[][] SHAPES = {
        {HEADS, ROWS, FEATURES}, {HEADS, KEYS, FEATURES}, {HEADS, KEYS, FEATURES}, {ROWS, KEYS}
    };

    private static final double[] OF_OUTPUT = numbers(SHAPES[0]);
    private static final double[] OF_LSE = numbers(HEADS, ROWS);

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

    private static double[] numbers(long... shape) {
        long count = 1;
        for (final long length : shape) {
            count *= length;
        }
        final double[] made = new double[(int) count];
        for (int i = 0; i < made.length; i++) {
            made[i] = (i * 37 + 11) % 64 / 32.0 - 1;
        }
        return made;
    }

    private static double[][] inputs() {
        final double[][] made = new double[SHAPES.length][];
        for (int i = 0; i < made.length; i++) {
            made[i] = numbers(SHAPES[i]);
        }
        return made;
    }

    /** A forward call and what it wrote. */
    private record Attended(Tensor[] inputs, Tensor output, Tensor lse, SdpaOptions options) {
        static Attended of(double[][] numbers) {
            final Tensor[] inputs = new Tensor[numbers.length];
            for (int i = 0; i < inputs.length; i++) {
                inputs[i] = Tensor.of(numbers[i], SHAPES[i]);
            }
            final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT64, SHAPES[0]);
            final Tensor lse = Tensor.zeros(Tensor.Dtype.FLOAT64, HEADS, ROWS);
            final SdpaOptions options = new SdpaOptions().causal(true).mask(Mask.additive(inputs[3])).lse(lse);
            Attention.sdpa(inputs[0], inputs[1], inputs[2], output, options);
            return new Attended(inputs, output, lse, options);
        }

        void goBack(SdpaGradients gradients) {
            Attention.sdpaBackward(inputs[0], inputs[1], inputs[2], output, gradients, options, null);
        }

        SdpaBackwardReport explain(SdpaGradients gradients) {
            return Attention.explainBackward(inputs[0], inputs[1], inputs[2], output, gradients, options, null);
        }
    }

    private static double weighed(Tensor values, double[] by) {
        final double[] numbers = values.toDoubles();
        double sum = 0;
        for (int i = 0; i < numbers.length; i++) {
            sum += numbers[i] * by[i];
        }
        return sum;
    }

    /** What the gradients are of. */
    private static double loss(int which, int at, double by) {
        final double[][] moved = inputs();
        moved[which][at] += by;
        final Attended made = Attended.of(moved);
        return weighed(made.output(), OF_OUTPUT) + weighed(made.lse(), OF_LSE);
    }

    private static void gradientsAreDifferences() {
        final Attended made = Attended.of(inputs());
        final Tensor[] found = new Tensor[SHAPES.length];
        for (int i = 0; i < found.length; i++) {
            found[i] = Tensor.zeros(Tensor.Dtype.FLOAT64, SHAPES[i]);
        }
        final SdpaGradients gradients =
                new SdpaGradients(Tensor.of(OF_OUTPUT, SHAPES[0]))
                        .lse(Tensor.of(OF_LSE, HEADS, ROWS))
                        .query(found[0])
                        .key(found[1])
                        .value(found[2])
                        .mask(found[3]);
        for (int times = 1; times <= 2; times++) {
            made.goBack(gradients.accumulate(times == 2));
            for (int which = 0; which < found.length; which++) {
                final double[] numbers = found[which].toDoubles();
                for (int i = 0; i < numbers.length; i++) {
                    final double difference = loss(which, i, STEP) - loss(which, i, -STEP);
                    check(Math.abs(numbers[i] - times * difference / (2 * STEP)) < 1e-6, which + " " + i);
                }
            }
        }
    }

    /** In the cache's shape, and 0 past its length. */
    private static void gradientsLieWhereCachesDo() {
        final Tensor query = Tensor.of(numbers(SHAPES[0]), SHAPES[0]);
        final Tensor key = Tensor.of(numbers(SHAPES[1]), SHAPES[1]);
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT64, SHAPES[0]);
        final SdpaOptions options =
                new SdpaOptions()
                        .kv(new KvPlaces(key, key).lengths(Tensor.of(new long[] {2})))
                        .lse(Tensor.zeros(Tensor.Dtype.FLOAT64, HEADS, ROWS));
        Attention.sdpa(query, null, null, output, options);
        final Tensor ofKey = Tensor.of(numbers(SHAPES[1]), SHAPES[1]);
        Attention.sdpaBackward(query, null, null, output, new SdpaGradients(output).key(ofKey), options, null);
        final double[] found = ofKey.toDoubles();
        for (int i = 0; i < found.length; i++) {
            check((found[i] == 0) == (i / FEATURES % KEYS >= 2), "element " + i);
        }
    }

    private static void refusalsNameTheGradient() {
        final Attended made = Attended.of(inputs());
        refuses("gradients.output: expected a tensor, got NULL", () -> made.goBack(new SdpaGradients(null)));
        refuses("gradients: expected what is wanted, got NULL", () -> made.goBack(null));
        refuses(
                "gradients.sinks: expected NULL without sinks",
                () -> made.goBack(new SdpaGradients(made.output()).sinks(Tensor.zeros(Tensor.Dtype.FLOAT64, HEADS))));
    }

    private static void explainTellsWhatRuns() {
        final Attended made = Attended.of(inputs());
        final SdpaGradients gradients = new SdpaGradients(made.output());
        check(made.explain(gradients).numItems() == 0, "nothing is wanted");
        final var report = made.explain(gradients.query(Tensor.zeros(Tensor.Dtype.FLOAT64, SHAPES[0])));
        check(report.numItems() > 0 && report.workspaceBytes() > 0 && !report.reason().isEmpty(), report.toString());
    }

    public static void main(String[] arguments) {
        gradientsAreDifferences();
        gradientsLieWhereCachesDo();
        refusalsNameTheGradient();
        explainTellsWhatRuns();
        System.out.println("gradients: passed");
    }
}
