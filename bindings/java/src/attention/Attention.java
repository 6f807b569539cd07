// SPDX-License-Identifier: BSD-3-Clause
package attention;

/** Scaled dot-product attention. */
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
                        Context.handleOf(context),
                        query.view,
                        key.view,
                        value.view,
                        options.params(),
                        output.view,
                        null,
                        0));
    }

    /** As above, with the default context. */
    public static void sdpa(Tensor query, Tensor key, Tensor value, Tensor output, SdpaOptions options) {
        sdpa(query, key, value, output, options, null);
    }

    /** The library's version. */
    public static String version() {
        return Abi.LIBRARY.attn_version_string();
    }
}
