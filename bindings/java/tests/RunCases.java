// SPDX-License-Identifier: BSD-3-Clause
import attention.Attention;
import attention.AttentionException;
import attention.Mask;
import attention.Multihead;
import attention.MultiheadGradients;
import attention.SdpaGradients;
import attention.SdpaOptions;
import attention.Tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** The cases that every language runs. Usage: RunCases FOLDER */
final class RunCases {
    private static final int FEWEST_CASES = 60;
    private static final int FEWEST_ERRORS = 5;
    private static final Set<String> ATTENTION_NAMES =
            Set.of(
                    "query", "key", "value", "attn_mask", "bias", "query_offset", "key_lengths",
                    "sinks", "alibi_slopes", "is_causal", "scale", "enable_gqa", "align_end",
                    "window_left", "window_right", "softcap", "normalizer", "lse", "mask_start",
                    "position_bias", "block_mask", "block_rows", "block_columns",
                    "dropout_probability", "dropout_seed", "dropout_offset", "dropout_batch",
                    "dropout_head", "dropout_row", "dropout_column");
    private static final Set<String> SDPA_NAMES =
            Set.of(
                    "output", "weights", "gradient.output", "gradient.query", "gradient.key",
                    "gradient.value", "gradient.attn_mask");
    private static final Set<String> MHA_NAMES =
            Set.of(
                    "key_padding_mask", "embed_dim", "num_heads", "kdim", "vdim", "qdim", "head_dim",
                    "value_head_dim", "num_kv_heads", "no_bias", "add_bias_kv", "add_zero_attn",
                    "batch_first", "need_weights", "average_attn_weights", "attn_output",
                    "attn_weights", "parameter_dtype", "gradient.attn_output",
                    "gradient.attn_weights", "gradient.query", "gradient.key", "gradient.value",
                    "gradient.attn_mask");
    private static final String PARAMETER = "parameter.";
    private static final String PARAMETER_GRADIENT = "gradient.parameter.";

    private final CaseFile made;
    private final Map<String, Tensor> results = new HashMap<>();

    private RunCases(CaseFile made) {
        this.made = made;
    }

    // ---- what the case holds ----

    private long number(String option, long absent) {
        final String text = made.options.get(option);
        return text == null ? absent : Long.parseLong(text);
    }

    private boolean flag(String option) {
        return number(option, 0) != 0;
    }

    private static boolean isOfParameter(String name) {
        return name.startsWith(PARAMETER) || name.startsWith(PARAMETER_GRADIENT);
    }

    private void refuseUnknown(Set<String> known) {
        for (final var names : Set.of(made.options.keySet(), made.tensors.keySet(), made.expected.keySet())) {
            for (final String name : names) {
                if (!ATTENTION_NAMES.contains(name) && !known.contains(name) && !isOfParameter(name)) {
                    throw new IllegalStateException("unknown: " + name);
                }
            }
        }
    }

    /** Memory for a result that the case expects, lse of the scores' type, others of query's; else null. */
    private Tensor expectedResult(String name) {
        final CaseFile.Expected expected = made.expected.get(name);
        return expected == null ? null : newResult(name, expected.values().shape());
    }

    private Tensor newResult(String name, long[] shape) {
        final Tensor.Dtype dtype = made.tensors.get("query").dtype();
        final boolean isWide = dtype == Tensor.Dtype.FLOAT64 || !name.equals("lse");
        final Tensor result = Tensor.zeros(isWide ? dtype : Tensor.Dtype.FLOAT32, shape);
        results.put(name, result);
        return result;
    }

    /** A call to be refused gets the shape of query with `features` columns. */
    private Tensor mainResult(String name, long features) {
        final Tensor expected = expectedResult(name);
        if (expected != null) {
            return expected;
        }
        final long[] shape = made.tensors.get("query").shape();
        shape[shape.length - 1] = features;
        return newResult(name, shape);
    }

    private Mask mask(String name, boolean isIncluded) {
        final Tensor tensor = made.tensors.get(name);
        if (tensor == null) {
            return null;
        }
        if (tensor.dtype() != Tensor.Dtype.BOOL) {
            return Mask.additive(tensor);
        }
        return isIncluded ? Mask.include(tensor) : Mask.exclude(tensor);
    }

    // ---- calls ----

    /** The options of attention, in a layer or not. */
    private SdpaOptions attention(boolean isIncluded, String weights) {
        final SdpaOptions options =
                new SdpaOptions()
                        .mask(mask("attn_mask", isIncluded))
                        .maskStart(made.tensors.get("mask_start"))
                        .bias(made.tensors.get("bias"))
                        .positionBias(made.tensors.get("position_bias"))
                        .blockMask(
                                made.tensors.get("block_mask"),
                                number("block_rows", 0),
                                number("block_columns", 0))
                        .causal(flag("is_causal"))
                        .enableGqa(flag("enable_gqa"))
                        .alignEnd(flag("align_end"))
                        .softcap(Double.parseDouble(made.options.getOrDefault("softcap", "0")))
                        .queryOffset(made.tensors.get("query_offset"))
                        .keyLengths(made.tensors.get("key_lengths"))
                        .sinks(made.tensors.get("sinks"))
                        .alibiSlopes(made.tensors.get("alibi_slopes"))
                        .lse(expectedResult("lse"))
                        .weights(expectedResult(weights));
        final String normalizer = made.options.getOrDefault("normalizer", "softmax");
        if (made.options.containsKey("dropout_probability")) {
            options.dropout(
                    Double.parseDouble(made.options.get("dropout_probability")),
                    number("dropout_seed", 0),
                    number("dropout_offset", 0),
                    number("dropout_batch", 0),
                    number("dropout_head", 0),
                    number("dropout_row", 0),
                    number("dropout_column", 0));
        }
        options.normalizer(SdpaOptions.Normalizer.valueOf(normalizer.toUpperCase()));
        if (made.options.containsKey("scale")) {
            options.scale(Double.parseDouble(made.options.get("scale")));
        }
        if (made.options.containsKey("window_left") || made.options.containsKey("window_right")) {
            options.window(number("window_left", -1), number("window_right", -1));
        }
        return options;
    }

    private void runSdpa() {
        refuseUnknown(SDPA_NAMES);
        final Tensor value = made.tensors.get("value");
        final long[] shape = value.shape();
        final Tensor output = mainResult("output", shape[shape.length - 1]);
        final SdpaOptions options = attention(true, "weights");
        final Tensor query = made.tensors.get("query");
        final Tensor key = made.tensors.get("key");
        final Tensor given = made.tensors.get("gradient.output");
        if (given != null && !made.expected.containsKey("lse")) {
            options.lse(Attention.outputs(query, key, value, options).lse());
        }
        Attention.sdpa(query, key, value, output, options);
        if (given != null) {
            final SdpaGradients wanted =
                    new SdpaGradients(given)
                            .query(expectedResult("gradient.query"))
                            .key(expectedResult("gradient.key"))
                            .value(expectedResult("gradient.value"))
                            .mask(expectedResult("gradient.attn_mask"));
            Attention.sdpaBackward(query, key, value, output, wanted, options, null);
        }
    }

    private Multihead.Config config() {
        final Multihead.Config config = new Multihead.Config(number("embed_dim", 0), number("num_heads", 0));
        if (made.options.containsKey("parameter_dtype")) {
            config.parameterDtype(Tensor.Dtype.valueOf(made.options.get("parameter_dtype").toUpperCase()));
        }
        return config
                .bias(!flag("no_bias"))
                .addBiasKv(flag("add_bias_kv"))
                .addZeroAttn(flag("add_zero_attn"))
                .batchFirst(flag("batch_first"))
                .widths(number("qdim", 0), number("kdim", 0), number("vdim", 0))
                .headDims(number("head_dim", 0), number("value_head_dim", 0))
                .numKvHeads(number("num_kv_heads", 0))
                .dtype(made.tensors.get("query").dtype());
    }

    private void runMha() {
        refuseUnknown(MHA_NAMES);
        try (Multihead layer = new Multihead(config())) {
            made.tensors.forEach(
                    (name, values) -> {
                        if (name.startsWith(PARAMETER)) {
                            layer.load(name.substring(PARAMETER.length()), values);
                        }
                    });
            final Multihead.Options options =
                    new Multihead.Options()
                            .keyPaddingMask(mask("key_padding_mask", false))
                            .attention(attention(false, "attn_weights"));
            final Tensor query = made.tensors.get("query");
            final Tensor key = made.tensors.get("key");
            final Tensor value = made.tensors.get("value");
            final Tensor output = mainResult("attn_output", number("embed_dim", 0));
            if (made.tensors.containsKey("gradient.attn_output")) {
                layer.forwardSaving(query, key, value, output, options, null).backward(layerGradients());
            } else {
                layer.forward(query, key, value, output, options);
            }
        }
    }

    private MultiheadGradients layerGradients() {
        final MultiheadGradients wanted =
                new MultiheadGradients(made.tensors.get("gradient.attn_output"))
                        .query(expectedResult("gradient.query"))
                        .key(expectedResult("gradient.key"))
                        .value(expectedResult("gradient.value"))
                        .attention(
                                new SdpaGradients(null)
                                        .weights(made.tensors.get("gradient.attn_weights"))
                                        .mask(expectedResult("gradient.attn_mask")));
        for (final String name : made.expected.keySet()) {
            if (name.startsWith(PARAMETER_GRADIENT)) {
                wanted.parameter(name.substring(PARAMETER_GRADIENT.length()), expectedResult(name));
            }
        }
        return wanted;
    }

    private static boolean isNear(double found, double wanted, double tolerance) {
        if (Double.isNaN(wanted) || Double.isInfinite(wanted)) {
            return Double.compare(found, wanted) == 0;
        }
        return Math.abs(found - wanted) <= tolerance;
    }

    private void compare() {
        made.expected.forEach(
                (name, expected) -> {
                    final double[] found = results.get(name).toDoubles();
                    final double[] wanted = expected.values().toDoubles();
                    for (int i = 0; i < wanted.length; i++) {
                        if (!isNear(found[i], wanted[i], expected.tolerance())) {
                            throw new IllegalStateException(
                                    name + "[" + i + "]: expected " + wanted[i] + ", got " + found[i]);
                        }
                    }
                });
    }

    private void run() {
        try {
            switch (made.call) {
                case "sdpa" -> runSdpa();
                case "mha" -> runMha();
                default -> throw new IllegalStateException("unknown call: " + made.call);
            }
        } catch (AttentionException refusal) {
            if (refusal.code() != made.errorCode || !refusal.getMessage().equals(made.errorText)) {
                throw refusal;
            }
            return;
        }
        if (made.errorCode != 0) {
            throw new IllegalStateException("expected the error: " + made.errorText);
        }
        compare();
    }

    public static void main(String[] arguments) throws IOException {
        final Path folder = Path.of(arguments[0]);
        int cases = 0;
        int errors = 0;
        int failures = 0;
        for (final String name : Files.readAllLines(folder.resolve("cases.txt"))) {
            final CaseFile made = new CaseFile(folder.resolve(name + ".case"));
            if (made.errorCode == 0) {
                cases++;
            } else {
                errors++;
            }
            try {
                new RunCases(made).run();
            } catch (RuntimeException problem) {
                System.out.println(name + ": " + problem);
                failures++;
            }
        }
        System.out.printf("java: %d cases, %d errors, %d failures%n", cases, errors, failures);
        System.exit(failures == 0 && cases >= FEWEST_CASES && errors >= FEWEST_ERRORS ? 0 : 1);
    }
}
