// SPDX-License-Identifier: BSD-3-Clause
package attention;

import java.util.List;

/** Scaled dot-product attention. A null context is the process's default one. */
public final class Attention {
    private Attention() {}

    /**
     * query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L, Ev).
     * With {@link SdpaOptions#kv} key and value are null.
     *
     * @throws AttentionException naming the argument that does not fit
     */
    public static void sdpa(
            Tensor query, Tensor key, Tensor value, Tensor output, SdpaOptions options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_sdpa(
                        context,
                        query,
                        key,
                        value,
                        options,
                        Tensor.written("output", output),
                        null,
                        0));
    }

    /** As above, with the default context. */
    public static void sdpa(Tensor query, Tensor key, Tensor value, Tensor output, SdpaOptions options) {
        sdpa(query, key, value, output, options, null);
    }

    /**
     * The gradients of a call of {@link #sdpa} with the same arguments: output, and the options' lse,
     * which softmax needs, are as that wrote them. The options' weights and scores do not matter.
     */
    public static void sdpaBackward(
            Tensor query,
            Tensor key,
            Tensor value,
            Tensor output,
            SdpaGradients gradients,
            SdpaOptions options,
            Context context) {
        Abi.check(
                Abi.LIBRARY.attn_sdpa_backward(
                        context, query, key, value, options, output, gradients, null, 0));
    }

    /**
     * Stores new rows, converted: key (batch axes, Hk, L, E), value (batch axes, Hv, L, Ev). The
     * lengths of kv count them already. Nothing is written if this throws.
     */
    public static void kvAppend(
            KvPlaces kv, Tensor key, Tensor value, KvAppendOptions options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_kv_append(
                        context, kv == null ? null : kv.written(), key, value, options));
    }

    /** As above, with the default context. */
    public static void kvAppend(KvPlaces kv, Tensor key, Tensor value, KvAppendOptions options) {
        kvAppend(kv, key, value, options, null);
    }

    /**
     * Puts together what was attended over parts of the keys. Output, and the options' lse, may be
     * those of a part. If no part has an lse, outputs are added.
     */
    public static void merge(
            List<PartialResult> parts, Tensor output, MergeOptions options, Context context) {
        final Tensor lse = options == null ? null : options.lse();
        Abi.check(
                Abi.LIBRARY.attn_sdpa_merge(
                        context,
                        parts.size(),
                        PartialResult.outputs(parts),
                        PartialResult.lses(parts),
                        options,
                        Tensor.written("output", output),
                        lse));
    }

    /**
     * Rotates the features of input (batch axes, H, L, E) by the positions of its rows. Output, of
     * the same shape, may be input.
     */
    public static void rope(Tensor input, Tensor output, RopeOptions options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_rope(context, input, options, Tensor.written("output", output)));
    }

    /**
     * Divides each row of input (..., E) by the root of the mean of its squares. Output, of the same
     * shape, may be input.
     */
    public static void rmsNorm(Tensor input, Tensor output, RmsNormOptions options, Context context) {
        Abi.check(
                Abi.LIBRARY.attn_rms_norm(
                        context, input, options, Tensor.written("output", output)));
    }

    /** Types and shapes of the outputs of {@link #sdpa}, for making them. */
    public static Outputs outputs(Tensor query, Tensor key, Tensor value, SdpaOptions options) {
        final Abi.Outputs described = new Abi.Outputs();
        Abi.check(
                Abi.LIBRARY.attn_sdpa_describe_outputs(
                        query, key, value, options, described));
        return new Outputs(described);
    }

    /** What {@link #sdpa} would run, and why. */
    public static SdpaReport explain(
            Tensor query, Tensor key, Tensor value, Tensor output, SdpaOptions options, Context context) {
        final Abi.SdpaReport report = new Abi.SdpaReport();
        Abi.check(
                Abi.LIBRARY.attn_sdpa_explain(
                        context,
                        query,
                        key,
                        value,
                        options,
                        output,
                        report));
        return SdpaReport.of(report);
    }

    /** What {@link #sdpaBackward} would run, and why. */
    public static SdpaBackwardReport explainBackward(
            Tensor query,
            Tensor key,
            Tensor value,
            Tensor output,
            SdpaGradients gradients,
            SdpaOptions options,
            Context context) {
        final Abi.SdpaBackwardReport report = new Abi.SdpaBackwardReport();
        Abi.check(
                Abi.LIBRARY.attn_sdpa_backward_explain(
                        context, query, key, value, options, output, gradients, report));
        return SdpaBackwardReport.of(report);
    }

    /** Throws unless this machine computes what has a known result. */
    public static void selftest(Context context) {
        Abi.check(Abi.LIBRARY.attn_selftest(context, null));
    }

    /** The library's version. */
    public static String version() {
        return Abi.LIBRARY.attn_version_string();
    }
}
