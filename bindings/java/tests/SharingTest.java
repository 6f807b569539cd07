// SPDX-License-Identifier: BSD-3-Clause
import attention.Context;
import attention.Multihead;
import attention.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;

/** Layers and contexts that are loaded, initialised and closed while other threads call them. */
final class SharingTest {
    private static final int CALLERS = 3;
    private static final int LOADS = 300;
    private static final int CLOSINGS = 60;
    private static final int EMBED_DIM = 256;
    private static final int ROWS = 32;

    private static Tensor scaledIdentity(float factor) {
        final float[] numbers = new float[EMBED_DIM * EMBED_DIM];
        for (int i = 0; i < EMBED_DIM; i++) {
            numbers[i * EMBED_DIM + i] = factor;
        }
        return Tensor.of(numbers, EMBED_DIM, EMBED_DIM);
    }

    private static Multihead layer() {
        final Multihead made = new Multihead(new Multihead.Config(EMBED_DIM, 4).bias(false));
        made.initialize(1);
        made.load("out_proj.weight", scaledIdentity(1));
        return made;
    }

    private static double[] forward(Multihead layer, Context context) {
        final float[] numbers = new float[ROWS * EMBED_DIM];
        Arrays.fill(numbers, 0.5f);
        final Tensor tokens = Tensor.of(numbers, ROWS, EMBED_DIM);
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT32, ROWS, EMBED_DIM);
        layer.forward(tokens, tokens, tokens, output, new Multihead.Options(), context);
        return output.toDoubles();
    }

    /** Runs `call` in several threads until `change` has returned, which begins when all may be in a call. */
    private static void whileCalling(Runnable call, Runnable change) {
        final ExecutorService callers = Executors.newFixedThreadPool(CALLERS);
        final AtomicBoolean isOver = new AtomicBoolean();
        final Semaphore called = new Semaphore(0);
        final List<Future<?>> results = new ArrayList<>();
        for (int i = 0; i < CALLERS; i++) {
            results.add(callers.submit(() -> {
                do {
                    call.run();
                    called.release();
                } while (!isOver.get());
            }));
        }
        try {
            called.acquire(CALLERS);
            change.run();
            isOver.set(true);
            for (final Future<?> result : results) {
                result.get();
            }
        } catch (InterruptedException | ExecutionException problem) {
            throw new AssertionError(problem);
        } finally {
            isOver.set(true);
            callers.shutdown();
        }
    }

    private static void requireOneOf(double[] found, double[]... expected) {
        if (Arrays.stream(expected).noneMatch(each -> Arrays.equals(each, found))) {
            throw new AssertionError("a call saw a parameter that nobody loaded");
        }
    }

    /** A call computes with a parameter as it was before a load, or after it. */
    private static void loadingWaitsForCalls() {
        try (Multihead layer = layer();
                Context context = new Context(new Context.Config().numThreads(2))) {
            final Tensor[] weights = {scaledIdentity(1), scaledIdentity(2)};
            final double[] once = forward(layer, context);
            final double[] twice = Arrays.stream(once).map(number -> 2 * number).toArray();
            whileCalling(() -> requireOneOf(forward(layer, context), once, twice), () -> {
                for (int load = 0; load < LOADS; load++) {
                    layer.load("out_proj.weight", weights[load % 2], load % 3 == 0 ? context : null);
                }
            });
            whileCalling(() -> forward(layer, context), () -> {
                for (int seed = 0; seed < LOADS / 10; seed++) {
                    layer.initialize(seed);
                }
            });
        }
    }

    private static void requireClosed(String name, IllegalStateException refusal) {
        if (!refusal.getMessage().equals(name + " is closed")) {
            throw refusal;
        }
    }

    /** A closed layer or context ends no call that is under way, and refuses later ones by its name. */
    private static void closingWaitsForCalls() {
        for (int i = 0; i < CLOSINGS; i++) {
            final Multihead layer = layer();
            final Context context = new Context(new Context.Config().numThreads(2));
            final double[] expected = forward(layer, context);
            final String name = i % 2 == 0 ? "Multihead" : "Context";
            whileCalling(
                    () -> {
                        try {
                            requireOneOf(forward(layer, context), expected);
                        } catch (IllegalStateException refusal) {
                            requireClosed(name, refusal);
                        }
                    },
                    () -> {
                        if (name.equals("Context")) {
                            context.close();
                        } else {
                            layer.close();
                        }
                    });
            layer.close();
            context.close();
        }
    }

    public static void main(String[] arguments) {
        loadingWaitsForCalls();
        closingWaitsForCalls();
        System.out.println("sharing: passed");
    }
}
