// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.Context;
import attention.HalfFloats;
import attention.Multihead;
import attention.Outputs;
import attention.SdpaOptions;
import attention.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ShortBuffer;
import java.util.Arrays;
import java.util.Map;

/** Numbers of 16 bits: their conversion, attention on them, layers that keep them. */
final class HalfTest {
    private static final Tensor.Dtype[] HALVES = {Tensor.Dtype.BFLOAT16, Tensor.Dtype.FLOAT16};
    private static final float STEP = 0x1p-24f; // of float16's smallest numbers

    private static void check(boolean isRight, String what) {
        if (!isRight) {
            throw new AssertionError(what);
        }
    }

    private static void refuses(String codeName, String text, Runnable call) {
        try {
            call.run();
        } catch (AttentionException refusal) {
            check(refusal.codeName().equals(codeName), refusal.codeName());
            check(refusal.getMessage().equals(text), refusal.getMessage());
            return;
        }
        throw new AssertionError("nothing was refused: " + text);
    }

    private static void numbersAreTheNearest() {
        final Map<Float, Integer> halves =
                Map.ofEntries(
                        Map.entry(1f, 0x3c00), Map.entry(-2f, 0xc000), Map.entry(-0f, 0x8000),
                        Map.entry(65504f, 0x7bff), Map.entry(65519f, 0x7bff), Map.entry(65520f, 0x7c00),
                        Map.entry(Float.NEGATIVE_INFINITY, 0xfc00), Map.entry(STEP, 1), Map.entry(STEP / 2, 0),
                        Map.entry(1.5f * STEP, 2), Map.entry(1023 * STEP, 0x3ff), Map.entry(1023.5f * STEP, 0x400),
                        Map.entry(1024 * STEP, 0x400), Map.entry(1 + 0x1p-11f, 0x3c00), Map.entry(1 + 0x3p-11f, 0x3c02));
        halves.forEach((number, bits) ->
                check(HalfFloats.floatToFloat16(number) == bits.shortValue(), "float16 of " + number));
        final Map<Float, Integer> uppers =
                Map.of(
                        1f, 0x3f80, -2f, 0xc000, Float.MAX_VALUE, 0x7f80, Float.POSITIVE_INFINITY, 0x7f80,
                        Float.intBitsToFloat(0x10000), 1, 1 + 0x1p-8f, 0x3f80, 1 + 0x1p-8f + 0x1p-23f, 0x3f81,
                        1 + 0x3p-8f, 0x3f82);
        uppers.forEach((number, bits) ->
                check(HalfFloats.floatToBfloat16(number) == bits.shortValue(), "bfloat16 of " + number));
        final float nan = Float.intBitsToFloat(0x7f800001);
        check(Float.isNaN(HalfFloats.float16ToFloat(HalfFloats.floatToFloat16(nan))), "NaN as float16");
        check(Float.isNaN(HalfFloats.bfloat16ToFloat(HalfFloats.floatToBfloat16(nan))), "NaN as bfloat16");
        for (int bits = 0; bits <= 0xffff; bits++) {
            final float half = HalfFloats.float16ToFloat((short) bits);
            final float upper = HalfFloats.bfloat16ToFloat((short) bits);
            check(Float.isNaN(half) == (bits & 0x7fff) > 0x7c00, "float16's NaN");
            check(Float.isNaN(half) || HalfFloats.floatToFloat16(half) == (short) bits, "float16 and back");
            check(Float.isNaN(upper) || HalfFloats.floatToBfloat16(upper) == (short) bits, "bfloat16 and back");
        }
    }

    private static float[] numbers(int count) {
        final float[] made = new float[count];
        for (int i = 0; i < count; i++) {
            made[i] = (i * 37 + 11) % 64 / 32f - 1;
        }
        return made;
    }

    private static Tensor widened(Tensor narrow) {
        final double[] values = narrow.toDoubles();
        final float[] floats = new float[values.length];
        for (int i = 0; i < floats.length; i++) {
            floats[i] = (float) values[i];
        }
        return Tensor.of(floats, narrow.shape());
    }

    /** Within half a step of the result's type and what float32 is off by. */
    private static void checkNear(Tensor result, Tensor expected) {
        final int bits = result.dtype() == Tensor.Dtype.BFLOAT16 ? 8 : result.dtype() == Tensor.Dtype.FLOAT16 ? 11 : 24;
        final double[] found = result.toDoubles();
        final double[] wanted = expected.toDoubles();
        check(found.length == wanted.length && Arrays.stream(wanted).anyMatch(w -> w != 0), "nothing is computed");
        for (int i = 0; i < wanted.length; i++) {
            final double halfStep = Math.scalb(1.0, Math.getExponent(Math.abs(wanted[i]) + 1e-5) - bits);
            check(Math.abs(found[i] - wanted[i]) <= halfStep + 1e-5, "expected " + wanted[i] + ", got " + found[i]);
        }
    }

    private static void attentionIsThatOfTheNumbers() {
        for (final Tensor.Dtype dtype : HALVES) {
            final Tensor narrow = Tensor.rounded(dtype, numbers(24), 2, 3, 4);
            final Tensor wide = widened(narrow);
            final SdpaOptions options = new SdpaOptions().causal(true);
            final Outputs expected = Attention.outputs(wide, wide, wide, options);
            final Tensor output = expected.output();
            final Tensor lse = expected.lse();
            Attention.sdpa(wide, wide, wide, output, options.lse(lse));

            final Outputs outputs = Attention.outputs(narrow, narrow, narrow, options);
            final Tensor stored = outputs.output();
            final Tensor sums = outputs.lse();
            check(stored.dtype() == dtype && outputs.weights().dtype() == dtype, "outputs are of query's type");
            check(sums.dtype() == Tensor.Dtype.FLOAT32, "lse is of the scores' type");
            Attention.sdpa(narrow, narrow, narrow, stored, options.lse(sums));
            checkNear(stored, output);
            check(Arrays.equals(sums.toDoubles(), lse.toDoubles()), "lse");
            final Tensor unrounded = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3, 4);
            Attention.sdpa(narrow, narrow, narrow, unrounded, options);
            check(Arrays.equals(unrounded.toDoubles(), output.toDoubles()), "an output of float32");
        }
    }

    /** Keys in a direct buffer of shorts, values that were copied as bits. */
    private static void keysAndValuesMayBeOfOtherTypes() {
        final float[] numbers = numbers(24);
        final ShortBuffer bits = ByteBuffer.allocateDirect(48).order(ByteOrder.nativeOrder()).asShortBuffer();
        final short[] copied = new short[24];
        for (int i = 0; i < copied.length; i++) {
            bits.put(i, HalfFloats.floatToBfloat16(numbers[i]));
            copied[i] = HalfFloats.floatToFloat16(numbers[i]);
        }
        final Tensor query = Tensor.of(numbers, 2, 3, 4);
        final Tensor key = Tensor.view(Tensor.Dtype.BFLOAT16, bits, 2, 3, 4);
        final Tensor value = Tensor.ofBits(Tensor.Dtype.FLOAT16, copied, 2, 3, 4);
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3, 4);
        final Tensor expected = Tensor.zeros(Tensor.Dtype.FLOAT32, 2, 3, 4);
        Attention.sdpa(query, widened(key), widened(value), expected, new SdpaOptions());
        Attention.sdpa(query, key, value, output, new SdpaOptions());
        checkNear(output, expected);
        final Tensor wide = Tensor.zeros(Tensor.Dtype.FLOAT64, 2, 3, 4);
        refuses("ATTN_ERROR_DTYPE", "key: expected dtype float32, bfloat16 or float16, got float64", () ->
                Attention.sdpa(value, wide, wide, output, new SdpaOptions()));
    }

    private static void weightsStayFloat32WhereAContextAsks() {
        for (final String kernels : new String[] {null, "avx512_bf16", "neon_bf16"}) {
            try (Context context = new Context(new Context.Config().kernels(kernels).float32Weights(true))) {
                checkWeightsAreFloat32(context);
            } catch (AttentionException refusal) {
                if (kernels == null || !refusal.codeName().equals("ATTN_ERROR_UNSUPPORTED")) {
                    throw refusal;
                }
                System.out.println("not on this machine: " + refusal.getMessage());
            }
        }
    }

    /** Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256). */
    private static void checkWeightsAreFloat32(Context context) {
        final Tensor query = Tensor.rounded(Tensor.Dtype.BFLOAT16, new float[] {1, 1, 1, 1, 1, 1, 1, 1}, 8, 1);
        final Tensor key = Tensor.rounded(Tensor.Dtype.BFLOAT16, new float[] {0, -77f / 256}, 2, 1);
        final Tensor value = Tensor.rounded(Tensor.Dtype.BFLOAT16, new float[] {0, 1}, 2, 1);
        final Tensor output = Tensor.zeros(Tensor.Dtype.FLOAT32, 8, 1);
        Attention.sdpa(query, key, value, output, new SdpaOptions(), context);
        final double expected = 1 / (1 + Math.exp(77.0 / 256));
        for (final double number : output.toDoubles()) {
            check(Math.abs(number - expected) <= 1e-5, "expected " + expected + ", got " + number);
        }
    }

    private static Tensor forward(Multihead layer, Tensor tokens) {
        final Multihead.Options options = new Multihead.Options();
        final Tensor output = layer.outputs(tokens, tokens, tokens, options).output();
        layer.forward(tokens, tokens, tokens, output, options);
        return output;
    }

    private static void layersComputeWith(Tensor.Dtype dtype, Tensor.Dtype parameterDtype) {
        final Multihead.Config config = new Multihead.Config(8, 2).bias(false);
        try (Multihead wideLayer = new Multihead(config);
                Multihead layer = new Multihead(
                        new Multihead.Config(8, 2).bias(false).dtype(dtype).parameterDtype(parameterDtype))) {
            layer.initialize(1);
            final Map<String, Long> rows = Map.of("in_proj_weight", 24L, "out_proj.weight", 8L);
            rows.forEach((name, count) -> {
                final Tensor values = Tensor.zeros(parameterDtype, count, 8);
                layer.read(name, values);
                wideLayer.load(name, widened(values));
            });
            check(layer.describe().dtype() == dtype, layer.describe().toString());
            check(layer.describe().parameterDtype() == parameterDtype, layer.describe().toString());
            final Tensor tokens = dtype == Tensor.Dtype.FLOAT32
                    ? Tensor.of(numbers(24), 3, 8)
                    : Tensor.rounded(dtype, numbers(24), 3, 8);
            final Tensor output = forward(layer, tokens);
            check(output.dtype() == dtype, "an output is of the layer's type");
            checkNear(output, forward(wideLayer, widened(tokens)));
        }
    }

    private static void layersKeepAndComputeWith16Bits() {
        layersComputeWith(Tensor.Dtype.BFLOAT16, Tensor.Dtype.BFLOAT16);
        layersComputeWith(Tensor.Dtype.FLOAT16, Tensor.Dtype.FLOAT32);
        layersComputeWith(Tensor.Dtype.FLOAT32, Tensor.Dtype.BFLOAT16);
        final Multihead.Config refused =
                new Multihead.Config(8, 2).dtype(Tensor.Dtype.FLOAT64).parameterDtype(Tensor.Dtype.FLOAT16);
        refuses("ATTN_ERROR_DTYPE", "parameter_dtype: expected float64, or 0, beside dtype float64, got float16", () ->
                new Multihead(refused));
    }

    private static void otherTypesHaveNoBits() {
        try {
            Tensor.rounded(Tensor.Dtype.FLOAT32, numbers(2), 2);
        } catch (IllegalArgumentException refusal) {
            check(refusal.getMessage().equals("dtype: expected BFLOAT16 or FLOAT16, got FLOAT32"), refusal.getMessage());
            return;
        }
        throw new AssertionError("float32 was rounded to 16 bits");
    }

    public static void main(String[] arguments) {
        numbersAreTheNearest();
        attentionIsThatOfTheNumbers();
        keysAndValuesMayBeOfOtherTypes();
        weightsStayFloat32WhereAContextAsks();
        layersKeepAndComputeWith16Bits();
        otherTypesHaveNoBits();
        System.out.println("16 bits: passed");
    }
}
