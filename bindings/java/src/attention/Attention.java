// SPDX-License-Identifier: BSD-3-Clause
package attention;

/** Scaled dot-product attention. A null context is the process's default one. */
public final class Attention {
    private Attention() {}

    /**
     * query (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev), output (..., Hq, L, Ev).
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
