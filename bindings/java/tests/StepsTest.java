// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.MergeOptions;
import attention.PartialResult;
import attention.RmsNormOptions;
import attention.RopeOptions;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.FloatBuffer;
import java.util.Arrays;
import java.util.List;

/** Scores, and what models do around attention: parts put together, positions, normalisation. */
final class StepsTest {
    private static final int ROWS = 3;
    private static final int KEYS = 5;
    private static final int FEATURES = 4;
    private static final FloatBuffer QUERY_NUMBERS = numbers(ROWS, 37);
    private static final FloatBuffer KEY_NUMBERS = numbers(KEYS, 29);
    private static final Tensor QUERY = part(QUERY_NUMBERS, 0, ROWS);
    private static final Tensor KEY = part(KEY_NUMBERS, 0, KEYS);

    private static void check(boolean isRight, String what) {
        if (!isRight) {
            throw new AssertionError(what);
        }
    }

    private static void checkClose(double[] found, double[] expected, String what) {
        check(found.length == expected.length, what);
        for (int i = 0; i < found.length; i++) {
            check(Math.abs(found[i] - expected[i]) < 1e-5, what);
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
        final FloatBuffer made = Tensor.directFloats(rows * FEATURES);
        for (int i = 0; i < made.capacity(); i++) {
            made.put(i, (i * factor + 11) % 64 / 32f - 1);
        }
        return made;
    }

    /** Some rows. */
    private static Tensor part(FloatBuffer elements, int start, int count) {
        return Tensor.strided(
                Tensor.Dtype.FLOAT32,
                elements,
                (long) start * FEATURES,
                new long[] {count, FEATURES},
                new long[] {FEATURES, 1});
    }

    private static Tensor room(long... shape) {
        return Tensor.zeros(Tensor.Dtype.FLOAT32, shape);
    }

    /** What some of the keys make. */
    private static PartialResult attended(Tensor keys, SdpaOptions options) {
        final PartialResult made = new PartialResult(room(ROWS, FEATURES), room(ROWS));
        Attention.sdpa(QUERY, keys, keys, made.output(), options.lse(made.lse()));
        return made;
    }

    private static void partsAreTheWhole() {
        final Tensor sinks = Tensor.of(new float[] {0.5f}, 1);
        final PartialResult whole = attended(KEY, new SdpaOptions().sinks(sinks));
        final PartialResult first = attended(part(KEY_NUMBERS, 0, 2), new SdpaOptions());
        final PartialResult second = attended(part(KEY_NUMBERS, 2, 3), new SdpaOptions());
        final MergeOptions options = new MergeOptions().sinks(sinks).lse(first.lse());
        Attention.merge(List.of(first, second), first.output(), options, null);
        checkClose(first.output().toDoubles(), whole.output().toDoubles(), "parts are the whole");
        checkClose(first.lse().toDoubles(), whole.lse().toDoubles(), "and so is their lse");
    }

    private static void partsWithoutLseAreAdded() {
        final Tensor one = Tensor.of(new float[] {1, 2}, 1, 2);
        final PartialResult other =
                new PartialResult(Tensor.rounded(Tensor.Dtype.BFLOAT16, new float[] {3, -1}, 1, 2), null);
        final Tensor sum = room(1, 2);
        Attention.merge(List.of(new PartialResult(one, null), other), sum, null, null);
        final PartialResult withLse = new PartialResult(one, room(1));
        refuses(
                "lses[1]: expected a dtype of enum attn_dtype, got invalid",
                () -> Attention.merge(List.of(withLse, other), sum, null, null));
        refuses("count: expected 1 and up, got 0", () -> Attention.merge(List.of(), sum, null, null));
        check(Arrays.equals(sum.toDoubles(), new double[] {4, 1}), "parts without lse are added");
    }

    private static void scoresAreTold() {
        for (final SdpaOptions.ScoreStage stage : SdpaOptions.ScoreStage.values()) {
            final SdpaOptions options = new SdpaOptions().causal(true).scale(2);
            final Tensor scores = Attention.outputs(QUERY, KEY, KEY, options).scores();
            Attention.sdpa(QUERY, KEY, KEY, room(ROWS, FEATURES), options.scores(scores, stage));
            final double[] found = scores.toDoubles();
            for (int i = 0; i < ROWS * KEYS; i++) {
                double expected = 0; // of few bits: exact
                for (int e = 0; e < FEATURES; e++) {
                    expected += 2 * QUERY_NUMBERS.get(i / KEYS * FEATURES + e) * KEY_NUMBERS.get(i % KEYS * FEATURES + e);
                }
                final boolean isHidden = stage == SdpaOptions.ScoreStage.MASKED && i % KEYS > i / KEYS;
                check(found[i] == (isHidden ? Double.NEGATIVE_INFINITY : expected), "scores " + stage);
            }
        }
    }

    private static void positionsTurnPairs() {
        final double[] turns = {1, 0.25};
        final int[] positions = {7, -3};
        final RopeOptions options =
                new RopeOptions().frequencies(Tensor.of(turns, 2)).positions(Tensor.of(positions, 2));
        final Tensor input = part(QUERY_NUMBERS, 0, 2);
        final Tensor output = room(2, FEATURES);
        Attention.rope(input, output, options, null);
        final double[] expected = input.toDoubles();
        for (int i = 0; i < 4; i++) {
            final int at = i / 2 * FEATURES + i % 2;
            final double angle = positions[i / 2] * turns[i % 2];
            final double x = expected[at];
            final double y = expected[at + 2];
            expected[at] = x * Math.cos(angle) - y * Math.sin(angle);
            expected[at + 2] = y * Math.cos(angle) + x * Math.sin(angle);
        }
        checkClose(output.toDoubles(), expected, "positions turn pairs");
        Attention.rope(output, output, options.inverse(true), null);
        checkClose(output.toDoubles(), input.toDoubles(), "and back");
    }

    private static void tablesAreTakenAsTheyAre() {
        final Tensor input = Tensor.of(new float[] {1, 2, 3, 4, 5}, 1, 5);
        final Tensor output = room(1, 5);
        final RopeOptions options =
                new RopeOptions()
                        .rotaryDim(4)
                        .interleaved(true)
                        .magnitude(2)
                        .tables(Tensor.of(new float[] {0, 1}, 1, 2), Tensor.of(new float[] {1, 0}, 1, 2));
        Attention.rope(input, output, options, null);
        check(Arrays.equals(output.toDoubles(), new double[] {-4, 2, 6, 8, 5}), "tables");
        refuses(
                "rotary_dim: expected an even number, 0 to E=5, got 3",
                () -> Attention.rope(input, output, options.rotaryDim(3), null));
        final Tensor readOnly = Tensor.view(Tensor.Dtype.FLOAT32, QUERY_NUMBERS.asReadOnlyBuffer(), 3, 4);
        refuses("output: expected memory that may be written", () -> Attention.rope(QUERY, readOnly, null, null));
    }

    /** 12.5 + 3.5 is 16. */
    private static void rowsAreNormalised() {
        final Tensor rows = Tensor.of(new float[] {3, 4}, 1, 2);
        final RmsNormOptions options =
                new RmsNormOptions().epsilon(3.5).weight(Tensor.of(new float[] {0, 1}, 2)).weightOffset(1);
        Attention.rmsNorm(rows, rows, options, null);
        check(Arrays.equals(rows.toDoubles(), new double[] {0.75, 2}), "rows are normalised");
    }

    public static void main(String[] arguments) {
        partsAreTheWhole();
        partsWithoutLseAreAdded();
        scoresAreTold();
        positionsTurnPairs();
        tablesAreTakenAsTheyAre();
        rowsAreNormalised();
        System.out.println("steps: passed");
    }
}
