// SPDX-License-Identifier: BSD-3-Clause
import attention.AttentionException;
import attention.KvPlaces;
import attention.Mask;
import attention.Multihead;
import attention.MultiheadGradients;
import attention.SavedForward;
import attention.SdpaGradients;
import attention.SdpaOptions;
import attention.Tensor;
import java.util.Arrays;

/**
 * What a layer's gradients are taken from, and how they are asked for; their numbers are those of the
 * exported cases.
 */
final class LayerBackwardTest {
    private static final int HEADS = 2;
    private static final int ROWS = 3;
    private static final int EMBED_DIM = 8;
    private static final double STEP = 1e-4;

    private static final Tensor TOKENS = Tensor.of(numbers(ROWS * EMBED_DIM), ROWS, EMBED_DIM);
    private static final double[] MASK = numbers(ROWS * ROWS);
    private static final double[] OF_LSE = numbers(HEADS * ROWS);

    private static void check(boolean isRight, String what) {
        if (!isRight) {
            throw new AssertionError(what);
        }
    }

    private static void refuses(String beginning, Runnable call) {
        try {
            call.run();
        } catch (AttentionException problem) {
            check(problem.getMessage().startsWith(beginning), problem.getMessage());
            return;
        }
        throw new AssertionError("nothing was refused: " + beginning);
    }

    private static double[] numbers(int count) {
        final double[] made = new double[count];
        for (int i = 0; i < count; i++) {
            made[i] = (i * 37 + 11) % 64 / 32.0 - 1;
        }
        return made;
    }

    private static Tensor room(long... shape) {
        return Tensor.zeros(Tensor.Dtype.FLOAT64, shape);
    }

    private static Multihead makeLayer() {
        final Multihead layer = new Multihead(new Multihead.Config(EMBED_DIM, HEADS).dtype(Tensor.Dtype.FLOAT64));
        layer.initialize(7);
        return layer;
    }

    private static SdpaOptions masked(double[] mask) {
        return new SdpaOptions().mask(Mask.additive(Tensor.of(mask, ROWS, ROWS)));
    }

    private static Multihead.Options inside(SdpaOptions options) {
        return new Multihead.Options().attention(options);
    }

    private static SavedForward save(Multihead layer, Tensor output, SdpaOptions options) {
        return layer.forwardSaving(TOKENS, TOKENS, TOKENS, output, inside(options), null);
    }

    private static void aCallThatSavesComputesWhatForwardDoes() {
        final Multihead layer = makeLayer();
        final Tensor output = room(ROWS, EMBED_DIM);
        final Tensor same = room(ROWS, EMBED_DIM);
        layer.forward(TOKENS, TOKENS, TOKENS, output, inside(masked(MASK)));
        save(layer, same, masked(MASK));
        check(Arrays.equals(output.toDoubles(), same.toDoubles()), "the same bits");
        check(layer.forwardSaving(TOKENS, TOKENS, TOKENS, same, null, null) != null, "without options");
    }

    /** What the gradients below are of. */
    private static double loss(Multihead layer, int at, double by) {
        final double[] moved = MASK.clone();
        moved[at] += by;
        final Tensor output = room(ROWS, EMBED_DIM);
        final Tensor lse = room(HEADS, ROWS);
        layer.forward(TOKENS, TOKENS, TOKENS, output, inside(masked(moved).lse(lse)));
        double sum = 0;
        for (int i = 0; i < ROWS * EMBED_DIM; i++) {
            sum += output.toDoubles()[i] * TOKENS.toDoubles()[i];
        }
        for (int i = 0; i < OF_LSE.length; i++) {
            sum += lse.toDoubles()[i] * OF_LSE[i];
        }
        return sum;
    }

    private static void gradientsOfAMaskAndLseAreDifferences() {
        final Multihead layer = makeLayer();
        final SavedForward saved = save(layer, room(ROWS, EMBED_DIM), masked(MASK));
        final Tensor found = room(ROWS, ROWS);
        final SdpaGradients attention = new SdpaGradients(null).lse(Tensor.of(OF_LSE, HEADS, ROWS)).mask(found);
        saved.backward(new MultiheadGradients(TOKENS).attention(attention));
        for (int i = 0; i < MASK.length; i++) {
            final double difference = loss(layer, i, STEP) - loss(layer, i, -STEP);
            check(Math.abs(found.toDoubles()[i] - difference / (2 * STEP)) < 1e-6, "element " + i);
        }
    }

    private static void callsDoNotMixAndGradientsAddUp() {
        final Multihead layer = makeLayer();
        final SavedForward first = save(layer, room(ROWS, EMBED_DIM), new SdpaOptions());
        save(layer, room(ROWS, EMBED_DIM), new SdpaOptions().causal(true));
        System.gc();
        final Tensor ofQuery = room(ROWS, EMBED_DIM);
        final Tensor ofBias = room(EMBED_DIM);
        final MultiheadGradients wanted =
                new MultiheadGradients(TOKENS).query(ofQuery).parameter("out_proj.bias", ofBias);
        first.backward(wanted);
        final double[] alone = ofQuery.toDoubles();
        first.backward(wanted);
        check(Arrays.equals(alone, ofQuery.toDoubles()), "the same bits");
        first.backward(wanted.accumulate(true));
        final double[] twice = ofQuery.toDoubles();
        for (int i = 0; i < alone.length; i++) {
            check(Math.abs(twice[i] - 2 * alone[i]) < 1e-12, "twice, element " + i);
        }
        check(ofBias.toDoubles()[0] != 0, "the bias");
    }

    private static void refusalsNameWhatIsWrong() {
        final Multihead layer = makeLayer();
        final SavedForward saved = save(layer, room(ROWS, EMBED_DIM), new SdpaOptions());
        refuses("gradients: ", () -> saved.backward(null));
        refuses("gradients.output: ", () -> saved.backward(new MultiheadGradients(null)));
        refuses(
                "gradients.bias_k: ",
                () -> saved.backward(new MultiheadGradients(TOKENS).parameter("bias_k", room(EMBED_DIM))));
        refuses(
                "gradients.attention.sinks: ",
                () ->
                        saved.backward(
                                new MultiheadGradients(TOKENS)
                                        .attention(new SdpaGradients(null).sinks(room(HEADS)))));
        final KvPlaces cache = new KvPlaces(room(HEADS, ROWS, 4), room(HEADS, ROWS, 4));
        final Multihead.Options options = new Multihead.Options().cache(cache.lengths(Tensor.of(new long[] {ROWS})));
        refuses(
                "cache: ",
                () -> layer.forwardSaving(TOKENS, TOKENS, TOKENS, room(ROWS, EMBED_DIM), options, null));
    }

    public static void main(String[] arguments) {
        aCallThatSavesComputesWhatForwardDoes();
        gradientsOfAMaskAndLseAreDifferences();
        callsDoNotMixAndGradientsAddUp();
        refusalsNameWhatIsWrong();
        System.out.println("gradients of a layer: passed");
    }
}
