// SPDX-License-Identifier: BSD-3-Clause
package attention;

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

    /** Types and shapes of that call's outputs, for making them. */
    public static Outputs outputs(Tensor query, Tensor key, Tensor value, SdpaOptions options) {
        final Abi.Outputs described = new Abi.Outputs();
        Abi.check(
                Abi.LIBRARY.attn_sdpa_describe_outputs(
                        query, key, value, options, described));
        return new Outputs(described);
    }

    /** What that call would run, and why. */
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

    /** Throws unless this machine computes what has a known result. */
    public static void selftest(Context context) {
        Abi.check(Abi.LIBRARY.attn_selftest(context, null));
    }

    /** The library's version. */
    public static String version() {
        return Abi.LIBRARY.attn_version_string();
    }
}
